//! `discover`: examples of a behaviour in, ranked heads and a circuit out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use burn::tensor::activation::softmax;
use circuitscope::core::{Graph, HeadGrid, HeadId, Seed, files};
use circuitscope::eval::methods::{self, MethodSettings};
use circuitscope::eval::{
    Choice, Chosen, CircuitQuality, DictionaryReport, Evidence, GraphScores, circuit_quality,
};
use circuitscope::hooks::HeadActivations;
use circuitscope::model::{Loaded, ModelProvenance, PaddingSide, TokenBatch, check_finite};
use circuitscope::tasks::{GroundTruth, LabelledPrompts, Task, read_lines, read_pairs};
use circuitscope::{
    DiscoverSettings, Discovery, KnownAs, MetricChoice, capture, causal_evidence, discover,
    known_as, known_circuits, pose, task_prompts,
};
use serde::Serialize;

use super::bos::Bos;
use super::exports::{self, Shown};
use super::{inputs, pages};
use crate::args::{Behaviour, DiscoverArgs};
use crate::device::{B, Device};
use crate::output::{Printer, count, note, table};
use crate::progress::Terminal;
use crate::provenance::{Provenance, human_bytes};

/// Head outputs that take more bytes than this are not held, where a method reads them once.
const HOLD: u64 = 128 << 20;

/// What was found, in the output folder.
const DISCOVERY_FILE: &str = "discovery.json";

/// What is printed, and kept as `discovery.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// The task, or the files that show the behaviour.
    pub(crate) behaviour: String,
    pub(crate) method: String,
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) positives: usize,
    pub(crate) negatives: usize,
    /// From the highest score to the lowest.
    pub(crate) heads: Vec<RankedHead>,
    pub(crate) selection: Choice,
    /// The circuit, and what its choice rests on.
    #[serde(flatten)]
    pub(crate) chosen: Chosen,
    /// Signed scores of the whole graph, MLPs and ports included, where the method has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) graph: Option<GraphScores>,
    /// What the circuit keeps, where it was run with the rest ablated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quality: Option<CircuitQuality>,
    /// `[heads][heads]`, writer by reader, heads layer by layer; 0 unless the writer is in an
    /// earlier layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) edges: Option<Vec<Vec<f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paper_edge_head_counts: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dictionary: Option<DictionaryReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<ModelProvenance>,
    /// What is read from the output, and why that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metric: Option<MetricChoice>,
    /// Whose known circuit the heads are set beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) known_circuit: Option<KnownAs>,
    pub(crate) settings: Settings,
    /// Seconds of each stage, in order.
    pub(crate) stages: Vec<Stage>,
    pub(crate) provenance: Provenance,
}

/// What the result depends on, apart from the inputs.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    prepend_bos: Option<Bos>,
    methods: MethodSettings,
    seed: Seed,
}

/// A head with its score.
#[derive(Debug, Serialize)]
pub(crate) struct RankedHead {
    pub(crate) head: HeadId,
    pub(crate) score: f64,
    /// Whether it is in the circuit.
    pub(crate) selected: bool,
}

/// A stage with its time.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    name: &'static str,
    seconds: f64,
}

/// Evidence, and what is known about it.
struct Gathered {
    evidence: Evidence<B>,
    graph: Option<Graph>,
    model: Option<ModelProvenance>,
    truth: Option<(GroundTruth, KnownAs)>,
    bos: Option<Bos>,
    /// What is read from the output, where a model is run.
    metric: Option<MetricChoice>,
    /// A prompt to show, where results are written.
    shown: Option<Shown>,
}

pub(crate) fn run(args: &DiscoverArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = Provenance::start();
    args.patching.check(&[args.method])?;
    let device = args.device.device.open()?;
    provenance.on(&device);
    if let Some(folder) = &args.output {
        inputs::writable_folder(folder)?;
    }
    let mut stages = Stages(Vec::new());
    let mut gathered = gather(args, &device, &mut provenance, &mut stages, progress)?;
    if let Some(path) = &args.save_activations {
        save_activations(&gathered.evidence, path, &provenance)?;
    }
    let settings = DiscoverSettings {
        method: args.method.to_owned(),
        methods: MethodSettings {
            sae: args.sae.settings(inputs::l1_of(args.behaviour.task)),
            patching: args.patching.settings(),
        },
        choice: args.select.0,
        seed: Seed::new(args.seed.seed),
    };
    let start = Instant::now();
    let discovery = discover::<B>(&gathered.evidence, &settings, &device.training(), progress)?;
    stages.split(start, progress);

    let quality = if args.faithfulness {
        let start = Instant::now();
        let heads: Vec<HeadId> = discovery.chosen.circuit.heads().collect();
        let pairs = args.patching.patch_pairs as usize;
        let causal = gathered.evidence.causal(args.method)?;
        let quality = circuit_quality(causal, &heads, pairs)?;
        stages.add("ablate", start);
        Some(quality)
    } else {
        None
    };
    let mut found = Found::new(&gathered, &settings, discovery, args, stages, &provenance);
    found.quality = quality;
    let written = match &args.output {
        Some(folder) => {
            let mut json = serde_json::to_vec_pretty(&found)?;
            json.push(b'\n');
            files::write_atomic(&folder.join(DISCOVERY_FILE), |out| out.write_all(&json))?;
            if let (Some(graph), Some(shown)) = (&gathered.graph, gathered.shown.take()) {
                exports::write(folder, &found, graph, gathered.evidence.d(), shown)?;
            }
            let page = pages::discovery(
                folder,
                &found,
                gathered.truth.as_ref().map(|known| &known.0),
            )?;
            Some(page)
        }
        None => None,
    };
    printer.print(&found, || found.text(args.top, written))
}

fn gather(
    args: &DiscoverArgs,
    device: &Device,
    provenance: &mut Provenance,
    stages: &mut Stages,
    progress: &Terminal,
) -> Result<Gathered> {
    let start = Instant::now();
    if let Some(path) = &args.behaviour.activations {
        provenance.input(path)?;
        let file = HeadActivations::read(path)?;
        let evidence = Evidence::from_file(file, device.plain());
        stages.add("read", start);
        return Ok(Gathered {
            evidence: evidence.with_context(|| path.display().to_string())?,
            model: None,
            graph: None,
            truth: None,
            bos: None,
            metric: None,
            shown: None,
        });
    }
    let prompts = read(args, provenance)?;
    let loaded = inputs::load_model(&args.model, device, progress)?;
    stages.add("load", start);

    let start = Instant::now();
    let task = args.behaviour.task;
    let (mut prompts, truth) = match (prompts, task) {
        (Some(prompts), _) => (prompts, None),
        (None, Some(task)) => {
            let seed = Seed::new(args.seed.seed);
            let set = task_prompts(&loaded, task, args.examples, seed)?.set;
            (set.labelled(), truth(args, &loaded, task)?)
        }
        (None, None) => bail!("no examples: use --task, --pairs, --positive or --activations"),
    };
    let plain = prompts.texts.clone();
    let bos = Bos::settle(&loaded, &args.model, args.chat, &mut prompts.texts);
    let bos = bos.with_context(|| behaviour(args))?;
    prompts.move_spans(&plain);
    let posed = pose(&loaded, prompts, task, args.patching.metric)?;
    for said in &posed.notes {
        note(&format!("note: {said}"));
    }
    for warning in &posed.warnings {
        note(&format!("warning: {warning}"));
    }
    let prompts = posed.prompts;
    let mut settings = inputs::capture_settings(&args.model, device);
    settings.prepend_bos = bos.setting();
    settings.last_position = methods::reads_last(args.method);
    if methods::reads_once(args.method) && args.save_activations.is_none() {
        settings.hold = Some(HOLD);
    }
    let evidence = capture(&loaded, &prompts, settings, device.plain(), progress);
    let mut evidence = evidence.with_context(|| behaviour(args))?;
    let needs_model = args.faithfulness || args.select.0 == Choice::Knee;
    if methods::runs_model(args.method) || needs_model {
        let mut settings = settings;
        settings.causal = args.patching.causal();
        settings.causal.metric = Some(posed.metric.metric);
        let causal = causal_evidence(&loaded, &prompts, settings, device.plain());
        evidence = evidence.with_causal(causal.with_context(|| behaviour(args))?);
    }
    stages.add("capture", start);
    let shown = match &args.output {
        Some(_) => Some(show(&loaded, &prompts, bos.done, device)?),
        None => None,
    };
    Ok(Gathered {
        bos: Some(bos),
        shown,
        evidence,
        graph: Some(loaded.model.config().graph()),
        model: Some(loaded.provenance),
        truth,
        metric: Some(posed.metric),
    })
}

/// The circuit known for a task in this model, if one is, and whose it is.
fn truth(
    args: &DiscoverArgs,
    loaded: &Loaded<B>,
    task: Task,
) -> Result<Option<(GroundTruth, KnownAs)>> {
    let Some(known) = known_as(&loaded.provenance, args.circuit)? else {
        return Ok(None);
    };
    match known_circuits(loaded, task, args.circuit) {
        Ok(truths) => Ok(truths.into_iter().next().map(|truth| (truth, known))),
        Err(error) if args.circuit.is_some() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// The first prompt that shows the behaviour, and what the model makes of it.
fn show(
    loaded: &Loaded<B>,
    prompts: &LabelledPrompts,
    bos: bool,
    device: &Device,
) -> Result<Shown> {
    let prompt = &prompts.texts[0];
    let tokenizer = loaded.tokenizer()?;
    let tokens = tokenizer.encode(prompt, bos)?;
    let text = |token: u32| match tokenizer.decode(&[token]) {
        Ok(text) if !text.is_empty() => text,
        _ => tokenizer.token(token).unwrap_or_default(),
    };
    let batch = TokenBatch::new(&[&tokens], PaddingSide::Right, device.plain())?;
    let logits = loaded.model.logits(&batch);
    let shares = softmax(batch.last(logits), 1).into_data().convert::<f32>();
    let shares = shares.into_vec::<f32>();
    let shares = shares.map_err(|error| anyhow!("the device failed: {error:?}"))?;
    if shares.iter().any(|share| !share.is_finite()) {
        check_finite(&loaded.model, &[&tokens], device.plain())?;
    }
    let best = shares.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    Ok(Shown {
        prompt: prompt.clone(),
        tokens: tokens.iter().map(|&token| text(token)).collect(),
        output: best.map(|(token, p)| (text(token as u32), f64::from(*p))),
    })
}

/// Writes what the method starts from, in the form that `train` and `encode` read.
fn save_activations(evidence: &Evidence<B>, path: &Path, provenance: &Provenance) -> Result<()> {
    let data = evidence.activations()?.to_data().convert::<f32>();
    let data = data.into_vec::<f32>();
    let data = data.map_err(|error| anyhow!("the device failed: {error:?}"))?;
    let labels = evidence.labels().to_vec();
    let file = HeadActivations::new(evidence.grid(), evidence.d(), labels, data);
    Ok(file.write(path, &provenance.metadata())?)
}

/// The user's own prompts, before the model is loaded: a wrong file should not cost that time.
fn read(args: &DiscoverArgs, provenance: &mut Provenance) -> Result<Option<LabelledPrompts>> {
    let behaviour = &args.behaviour;
    if let Some(path) = &behaviour.pairs {
        let prompts = read_pairs(path)?;
        provenance.input(path)?;
        return Ok(Some(prompts));
    }
    if let (Some(positive), Some(negative)) = (&behaviour.positive, &args.negative) {
        let prompts = read_lines(positive, negative)?;
        provenance.input(positive)?;
        provenance.input(negative)?;
        return Ok(Some(prompts));
    }
    Ok(None)
}

/// What shows the behaviour: a task, or files.
fn behaviour(args: &DiscoverArgs) -> String {
    let Behaviour {
        task,
        pairs,
        positive,
        activations,
    } = &args.behaviour;
    let files: Vec<String> = [pairs, positive, &args.negative, activations]
        .into_iter()
        .flatten()
        .map(|path| path.display().to_string())
        .collect();
    match task {
        Some(task) => task.name().to_owned(),
        None => files.join(" against "),
    }
}

struct Stages(Vec<Stage>);

impl Stages {
    fn add(&mut self, name: &'static str, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        self.0.push(Stage { name, seconds });
    }

    /// The method's time, with training told apart where there was one.
    fn split(&mut self, start: Instant, progress: &Terminal) {
        let all = start.elapsed().as_secs_f64();
        let training = progress.seconds("training the dictionary");
        if let Some(seconds) = training {
            self.0.push(Stage {
                name: "train",
                seconds,
            });
        }
        self.0.push(Stage {
            name: if training.is_some() {
                "encode and score"
            } else {
                "score"
            },
            seconds: all - training.unwrap_or(0.0),
        });
    }
}

impl Found {
    fn new(
        gathered: &Gathered,
        settings: &DiscoverSettings,
        discovery: Discovery,
        args: &DiscoverArgs,
        stages: Stages,
        provenance: &Provenance,
    ) -> Self {
        let Discovery {
            method,
            scores,
            chosen,
        } = discovery;
        let members: Vec<HeadId> = chosen.circuit.heads().collect();
        let heads = scores
            .ranking()
            .into_iter()
            .map(|(head, score)| RankedHead {
                head,
                score,
                selected: members.contains(&head),
            })
            .collect();
        let labels = gathered.evidence.labels();
        let positives = labels.iter().filter(|label| label.label() == 1).count();
        let width = scores.grid.len();
        let edges = scores.edges.as_deref();
        Self {
            behaviour: behaviour(args),
            method,
            n_layers: scores.grid.n_layers,
            n_heads: scores.grid.n_heads,
            positives,
            negatives: labels.len() - positives,
            heads,
            selection: settings.choice,
            chosen,
            quality: None,
            graph: scores.graph,
            edges: edges.map(|edges| edges.chunks(width).map(<[_]>::to_vec).collect()),
            paper_edge_head_counts: scores.paper_edge_head_counts,
            dictionary: scores.dictionary,
            model: gathered.model.clone(),
            metric: gathered.metric.clone(),
            known_circuit: gathered.truth.as_ref().map(|known| known.1.clone()),
            settings: Settings {
                prepend_bos: gathered.bos.clone(),
                methods: settings.methods.clone(),
                seed: settings.seed,
            },
            stages: stages.0,
            provenance: provenance.now(),
        }
    }

    /// Scores of heads, layer by layer.
    pub(crate) fn scores_by_index(&self, grid: HeadGrid) -> Vec<f64> {
        let mut scores = vec![0.0; grid.len()];
        for ranked in &self.heads {
            if let Some(at) = grid.index(ranked.head) {
                scores[at] = ranked.score;
            }
        }
        scores
    }

    fn text(&self, top: usize, page: Option<PathBuf>) -> String {
        let rows: Vec<Vec<String>> = self
            .heads
            .iter()
            .take(top)
            .map(|head| {
                vec![
                    head.head.to_string(),
                    format!("{}", (head.score * 1e4).round() / 1e4),
                    if head.selected { "yes" } else { "no" }.to_owned(),
                ]
            })
            .collect();
        let circuit: Vec<String> = self
            .chosen
            .circuit
            .heads()
            .map(|head| head.to_string())
            .collect();
        let circuit = if circuit.is_empty() {
            "none stands out".to_owned()
        } else {
            circuit.join(" ")
        };
        let mut notes = Vec::new();
        if let Some(significance) = &self.chosen.significance {
            notes.push(format!(
                "\nat most {:.0} % of these heads are expected to tell the classes apart by chance alone \
                 ({} relabellings); that is not to say that they take part",
                100.0 * significance.rate,
                significance.relabellings
            ));
        }
        if let Some(stability) = &self.chosen.stability {
            notes.push(format!(
                "\nheads that are among the best {} on most of {} half samples of the prompts",
                stability.best, stability.half_samples
            ));
        }
        if let Some(knee) = &self.chosen.knee {
            let size = self.chosen.circuit.heads().count();
            let at = knee.sizes.iter().position(|kept| *kept == size);
            let kept = at.map_or(0.0, |at| knee.faithfulness[at]);
            notes.push(format!(
                "\nwith more heads than these, what is kept of the behaviour ({:.0} %) grows slowly",
                100.0 * kept
            ));
        }
        if let Some(quality) = &self.quality {
            let least = quality.marginal.iter().min_by(|a, b| a.1.total_cmp(&b.1));
            let least = least.map_or_else(String::new, |(head, share)| {
                format!(
                    "; its least needed member, {head}, carries {:.0} %",
                    100.0 * share
                )
            });
            notes.push(format!(
                "\nall other heads ablated, it keeps {:.0} % of the behaviour; without it {:.0} % are left{least}",
                100.0 * quality.faithfulness,
                100.0 * quality.without
            ));
        }
        let stages: Vec<String> = self
            .stages
            .iter()
            .map(|stage| format!("{} {:.2} s", stage.name, stage.seconds))
            .collect();
        let memory = self.provenance.peak_memory_bytes;
        let memory = memory.map_or_else(String::new, |bytes| {
            format!("; peak memory {}", human_bytes(bytes))
        });
        let page = page.map_or_else(String::new, |page| format!("\nreport: {}", page.display()));
        let bos = self.settings.prepend_bos.as_ref();
        let bos = bos.map_or_else(String::new, |bos| format!("\n{}", bos.text()));
        format!(
            "{} against {}, {} layers of {}, method {}{bos}\n\n{}\ncircuit ({}): {circuit}{}\ntime: {}{memory}{page}",
            count(self.positives, "positive example"),
            count(self.negatives, "negative one"),
            self.n_layers,
            count(self.n_heads, "head"),
            self.method,
            table(&["head", "score", "in circuit"], &rows),
            count(self.chosen.circuit.heads().count(), "head"),
            notes.concat(),
            stages.join(", "),
        )
    }
}
