//! `train`: activations in, a dictionary out.

use anyhow::{Result, bail};
use burn::tensor::{Tensor, TensorData};
use circuitscope::files;
use circuitscope::hooks::HeadActivations;
use circuitscope::sae::{
    CFG_FILE, History, SaeConfig, SaeMetadata, TrainConfig, WEIGHTS_FILE, save_dir, train,
};
use circuitscope::{Seed, draw};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::inputs;
use crate::args::TrainArgs;
use crate::device::{B, Device};
use crate::output::{Printer, count};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance};

/// Training examples where none are asked for, as in the paper.
const TRAIN_EXAMPLES: usize = 10;
const HISTORY_FILE: &str = "history.json";

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    output: String,
    d_in: usize,
    d_sae: usize,
    train_examples: usize,
    vectors: usize,
    steps: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last>,
    provenance: Provenance,
}

/// The state before the last step.
#[derive(Debug, Serialize)]
struct Last {
    loss: f64,
    mse: f64,
    l0: f64,
    explained_variance: f64,
    dead: usize,
}

pub(crate) fn run(args: &TrainArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    provenance.input(&args.activations)?;
    inputs::writable_folder(&args.output)?;
    inputs::own_folder(&args.output, HISTORY_FILE, &[CFG_FILE, WEIGHTS_FILE])?;
    let activations = HeadActivations::read(&args.activations)?;
    let seed = Seed::new(args.seed.seed);
    let chosen = choose(args, activations.examples(), seed)?;
    let x = rows(&activations, &chosen, &device);
    let vectors = x.dims()[0];

    let config = SaeConfig::new(activations.d)
        .with_d_sae(args.codes)
        .with_l1_coefficient(args.l1)
        .with_dictionary(args.dictionary.into());
    let training = TrainConfig::new()
        .with_steps(args.steps)
        .with_learning_rate(args.learning_rate)
        .with_exec(device.exec());
    let weights = seed.stream("sae/weights");
    let trained = train(&config, &training, x, weights, progress)?;

    let made_by: Map<String, Value> = Map::from_iter([
        ("made_by".to_owned(), json!(provenance.program)),
        ("command".to_owned(), json!(provenance.command)),
        ("device".to_owned(), json!(provenance.device)),
        ("inputs".to_owned(), json!(provenance.inputs)),
        ("seed".to_owned(), json!(seed)),
        ("train_examples".to_owned(), json!(chosen)),
    ]);
    let metadata = SaeMetadata::default()
        .with_dictionary(config.dictionary)
        .with_l1_coefficient(config.l1_coefficient)
        .with_training(training)
        .with_seed(weights)
        .with_provenance(made_by);
    let history = serde_json::to_vec(&trained.history)?;
    files::write_atomic(&args.output.join(HISTORY_FILE), |out| {
        out.write_all(&history)
    })?;
    save_dir(&trained.sae, &metadata, &args.output)?;

    let report = Report {
        output: args.output.display().to_string(),
        d_in: config.d_in,
        d_sae: config.d_sae,
        train_examples: chosen.len(),
        vectors,
        steps: trained.history.len(),
        last: Last::of(&trained.history),
        provenance: provenance.now(),
    };
    printer.print(&report, || report.text())
}

/// The examples to train on: those that the `sae` methods would take with the same seed.
fn choose(args: &TrainArgs, examples: usize, seed: Seed) -> Result<Vec<usize>> {
    let wanted = match args.train_examples {
        Some(wanted) if wanted > examples => bail!(
            "{}: found {}, expected at least --train-examples {wanted}",
            args.activations.display(),
            count(examples, "example")
        ),
        Some(wanted) => wanted,
        None => TRAIN_EXAMPLES.min(examples),
    };
    if wanted == 0 {
        bail!(
            "{}: found no examples to train on",
            args.activations.display()
        );
    }
    let mut rng = seed.stream("sae/examples").rng();
    Ok(draw::sample(&mut rng, examples, wanted))
}

/// `[chosen * heads, d]`.
fn rows(activations: &HeadActivations, chosen: &[usize], device: &Device) -> Tensor<B, 2> {
    let data: Vec<f32> = chosen
        .iter()
        .flat_map(|&example| activations.example(example))
        .copied()
        .collect();
    let shape = [chosen.len() * activations.grid.len(), activations.d];
    Tensor::from_data(TensorData::new(data, shape), device.plain())
}

impl Last {
    fn of(history: &History) -> Option<Self> {
        Some(Self {
            loss: *history.loss.last()?,
            mse: *history.mse.last()?,
            l0: *history.l0.last()?,
            explained_variance: *history.explained_variance.last()?,
            dead: *history.dead.last()?,
        })
    }
}

impl Report {
    fn text(&self) -> String {
        let size = format!(
            "trained {} features on {} ({} vectors of width {}), {}",
            self.d_sae,
            count(self.train_examples, "example"),
            self.vectors,
            self.d_in,
            count(self.steps, "step")
        );
        let end = self.last.as_ref().map_or_else(String::new, |last| {
            format!(
                "loss {:.6}, {:.1} % of the variance explained, {:.1} features active on a vector, {} never\n",
                last.loss,
                100.0 * last.explained_variance,
                last.l0,
                last.dead
            )
        });
        format!(
            "{size} in {:.2} s\n{end}wrote {CFG_FILE}, {WEIGHTS_FILE} and {HISTORY_FILE} in {}",
            self.provenance.seconds, self.output
        )
    }
}
