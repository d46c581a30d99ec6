//! `train-tokens`: rows of tokens in, a dictionary out.

use anyhow::{Result, bail};
use circuitscope::features::{CHECKPOINT_ROWS_FILE, Course, ROWS_FILE, Rows, train_rows};
use circuitscope::report::{PAGE_FILE, TrainingPage, render_training};
use circuitscope::sae::{
    CFG_FILE, CHECKPOINT_FILE, Objective, SaeMetadata, StepRecord, StreamConfig, WEIGHTS_FILE,
    save_trained,
};
use circuitscope::{Seed, files};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::inputs;
use crate::args::{TokenArchitecture, TrainTokensArgs};
use crate::device::B;
use crate::interrupt::{self, Kept};
use crate::output::{Printer, count, note};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance, human_bytes};

/// Every step, beside the dictionary.
const HISTORY_FILE: &str = "history.json";

/// What other commands and tools leave in folders of theirs.
const OTHERS: [&str; 9] = [
    CFG_FILE,
    WEIGHTS_FILE,
    PAGE_FILE,
    ROWS_FILE,
    "params.npz",
    "params.safetensors",
    "sae.safetensors",
    "ae.pt",
    "config.yaml",
];

/// Features that are active where none are asked for.
const K: usize = 32;
/// Weight of the number of active features where none is asked for.
const L0: f64 = 1e-3;
/// Weight of the size of features where none is asked for.
const L1: f64 = 1.0;

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    output: String,
    rows: usize,
    d_in: usize,
    d_out: usize,
    d_sae: usize,
    architecture: String,
    steps: u64,
    /// Of the last epoch, each step before its update.
    fvu: f64,
    l0: f64,
    dead: usize,
    provenance: Provenance,
}

pub(crate) fn run(args: &TrainTokensArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let device = args.device.device.open()?;
    provenance.on(&device);
    let rows = Rows::open(&args.rows)?;
    provenance.input(&args.rows.join(ROWS_FILE))?;
    inputs::writable_folder(&args.output)?;
    inputs::own_folder(&args.output, HISTORY_FILE, &OTHERS)?;
    let of = rows.metadata();
    let transcodes = of.site_out.is_some();
    let d_sae = args.features.unwrap_or(4 * of.d_in);
    let k = args.k.unwrap_or(K.min(d_sae));
    if k > d_sae {
        bail!("--k {k}: expected at most {d_sae}, the number of features");
    }
    let objective = match (args.architecture, transcodes) {
        (Some(TokenArchitecture::Gated), true) => bail!(
            "--architecture gated: found rows of {} and {}, expected topk, batchtopk, jumprelu or standard for a transcoder: no format \
             holds a gated one",
            of.site,
            of.site_out.as_deref().unwrap_or_default()
        ),
        (Some(TokenArchitecture::Topk), true) if of.d_in != of.d_out => bail!(
            "--architecture topk: found rows of widths {} and {}, expected batchtopk, jumprelu or standard, or one width: no format holds \
             such a transcoder of the k largest",
            of.d_in,
            of.d_out
        ),
        (Some(TokenArchitecture::Topk), _) | (None, false) => Objective::TopK { k },
        (Some(TokenArchitecture::Batchtopk), _) | (None, true) => Objective::BatchTopK { k },
        (Some(TokenArchitecture::Jumprelu), _) => Objective::jump_relu(args.l0.unwrap_or(L0)),
        (Some(TokenArchitecture::Standard), _) => Objective::standard(args.l1.unwrap_or(L1)),
        (Some(TokenArchitecture::Gated), false) => Objective::gated(args.l1.unwrap_or(L1)),
    };
    if args.skip && !transcodes {
        bail!(
            "--skip: found rows of one site, expected --site-out of `rows`: only a transcoder has a skip connection"
        );
    }
    let read = match objective {
        Objective::TopK { .. } | Objective::BatchTopK { .. } => "--k",
        Objective::JumpRelu { .. } => "--l0",
        _ => "--l1",
    };
    for (option, given) in [
        ("--k", args.k.is_some()),
        ("--l0", args.l0.is_some()),
        ("--l1", args.l1.is_some()),
    ] {
        if given && option != read {
            note(&format!(
                "note: {option} is not read: architecture {}",
                name(objective)
            ));
        }
    }
    let config = if transcodes {
        StreamConfig::transcoder(of.d_in, of.d_out, d_sae, objective).with_skip(args.skip)
    } else {
        StreamConfig::new(of.d_in, d_sae, objective)
    };
    let batch = args.batch_rows.min(of.rows.max(1));
    let steps = rows.steps(batch) * args.epochs as u64;
    let config = config
        .with_batch_rows(batch)
        .with_learning_rate(args.learning_rate)
        .with_steps(steps)
        .with_warm_up(steps / 20)
        .with_decay(steps / 5)
        .with_dead_after(args.dead_after as u64)
        .with_exec(device.exec());
    let seed = Seed::new(args.seed.seed);
    interrupt::keep(Kept {
        said: format!(
            "training is kept in {}; the same command goes on from there",
            args.output.display()
        ),
        json: None,
    });
    let course = Course::new(args.epochs as u64).with_checkpoints(&args.output);
    let trained = train_rows::<B>(&rows, &config, course, seed, device.plain(), progress)?;
    if trained.resumed_from > 0 {
        note(&format!(
            "note: {}: gone on from step {}; the steps before are not in the page and {HISTORY_FILE}",
            args.output.display(),
            trained.resumed_from
        ));
    }
    let made_by: Map<String, Value> = Map::from_iter([
        ("made_by".to_owned(), json!(provenance.program)),
        ("command".to_owned(), json!(provenance.command)),
        ("device".to_owned(), json!(provenance.device)),
        ("inputs".to_owned(), json!(provenance.inputs)),
        ("rows".to_owned(), json!(of)),
    ]);
    let metadata = SaeMetadata::default()
        .with_seed(seed)
        .with_provenance(made_by);
    let history = serde_json::to_vec(&trained.records)?;
    files::write_atomic(&args.output.join(HISTORY_FILE), |out| {
        out.write_all(&history)
    })?;
    save_trained(
        &trained.dictionary,
        &metadata,
        &rows.trained_on(),
        &args.output,
    )?;
    for file in [CHECKPOINT_FILE, CHECKPOINT_ROWS_FILE] {
        files::remove(&args.output.join(file))?;
    }
    let last = &trained.last_epoch;
    let report = Report {
        output: args.output.display().to_string(),
        rows: of.rows,
        d_in: of.d_in,
        d_out: of.d_out,
        d_sae,
        architecture: name(objective).to_owned(),
        steps: trained.dictionary.steps,
        fvu: last.fvu,
        l0: last.l0,
        dead: last.dead,
        provenance: provenance.now(),
    };
    let figure = |value: fn(&StepRecord) -> f64| trained.records.iter().map(value).collect();
    let page = TrainingPage {
        title: format!("A dictionary of {} in {}", of.site, of.model),
        lead: report.sentence(),
        steps: trained
            .records
            .iter()
            .map(|record| record.step as f64)
            .collect(),
        curves: vec![
            (
                "share of variance not explained".to_owned(),
                figure(|record| record.fvu),
            ),
            (
                "features active on a row".to_owned(),
                figure(|record| record.l0),
            ),
            (
                "dead features".to_owned(),
                figure(|record| record.dead as f64),
            ),
        ],
        densities: last.firing_rates.clone(),
        provenance: json!({ "provenance": report.provenance, "rows": of }),
    };
    render_training(&page).write(&args.output)?;
    printer.print(&report, || report.text())
}

const fn name(objective: Objective) -> &'static str {
    match objective {
        Objective::TopK { .. } => "topk",
        Objective::BatchTopK { .. } => "batchtopk",
        Objective::Standard { .. } => "standard",
        Objective::Gated { .. } => "gated",
        _ => "jumprelu",
    }
}

impl Report {
    fn sentence(&self) -> String {
        format!(
            "{} features ({}) on {} of width {}: in the last epoch {:.1} % of the variance is explained by {:.1} features a row; {}",
            self.d_sae,
            self.architecture,
            count(self.rows, "row"),
            self.d_in,
            100.0 * (1.0 - self.fvu),
            self.l0,
            match self.dead {
                0 => "none is dead".to_owned(),
                dead => format!("{dead} are dead"),
            }
        )
    }

    fn text(&self) -> String {
        let memory = self.provenance.peak_memory_bytes;
        let memory = memory.map_or_else(String::new, |bytes| {
            format!(", at most {} of memory", human_bytes(bytes))
        });
        format!(
            "{}\n{} in {:.1} s{memory}\nwrote the dictionary, {HISTORY_FILE} and {PAGE_FILE} in {}",
            self.sentence(),
            count(self.steps as usize, "step"),
            self.provenance.seconds,
            self.output
        )
    }
}
