//! `compare`: two results of `discover` beside each other, each circuit judged in the other run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::eval::methods::about;
use circuitscope::eval::{QualitySettings, circuit_quality};
use circuitscope::measures::compare::{KeptIn, Place};
use circuitscope::measures::{CircuitFigures, Comparison, DiscoveryFile, write_json};
use circuitscope::report::{ComparisonPage, PAGE_FILE, PICTURES_FOLDER, render_comparison};
use circuitscope::{HeadId, Seed};
use clap::Parser as _;
use serde::Serialize;
use serde_json::{Value, json};

use circuitscope::found::PROMPTS_FILE;

use super::found_text::Stages;
use super::gathered::gather;
use super::inputs;
use crate::args::{Behaviour, Cli, Command, CompareArgs, DiscoverArgs, Judge};
use crate::device::Device;
use crate::output::{Printer, indented, note, table};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance};

/// What was found, in the output folder.
const COMPARISON_FILE: &str = "comparison.json";

/// What this command leaves in its folder.
const RESULTS: [&str; 3] = [COMPARISON_FILE, PAGE_FILE, PICTURES_FOLDER];

/// What is printed, and kept as `comparison.json`.
#[derive(Serialize)]
struct Kept<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    provenance: Provenance,
}

pub(crate) fn run(args: &CompareArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = provenance::start();
    let (a, b) = (DiscoveryFile::read(&args.a)?, DiscoveryFile::read(&args.b)?);
    for side in [&a, &b] {
        provenance.input(&side.path)?;
    }
    if let Some(folder) = &args.output {
        inputs::writable_folder(folder)?;
        inputs::own_folder(folder, COMPARISON_FILE, &RESULTS)?;
    }
    let mut comparison = Comparison::of(&a, &b);
    if !args.no_models && comparison.is_matched() {
        let device = args.device.device.open()?;
        provenance.on(&device);
        let mut judged = |side: &DiscoveryFile, model: Option<&String>, other: &DiscoveryFile| {
            let circuit: Vec<HeadId> = other.circuit().collect();
            if circuit.is_empty() {
                return Ok(None);
            }
            judge(side, model, &circuit, &device, &mut provenance, progress)
        };
        comparison.kept.b_in_a = judged(&a, args.model_a.as_ref(), &b)?;
        comparison.kept.a_in_b = judged(&b, args.model_b.as_ref(), &a)?;
    }
    let kept = Kept {
        comparison: &comparison,
        provenance: provenance.now(),
    };
    let page = args.output.as_deref();
    let page = page.map(|folder| write(folder, &kept, args)).transpose()?;
    let text = || {
        let page = page.map_or_else(String::new, |page| format!("report: {}\n", page.display()));
        format!("{}{page}", text(&comparison, args.top))
    };
    printer.print(&kept, text)
}

fn write(folder: &Path, kept: &Kept<'_>, args: &CompareArgs) -> Result<PathBuf> {
    write_json(&folder.join(COMPARISON_FILE), kept)?;
    let seconds = format!("{:.1} s", kept.provenance.seconds);
    let page = ComparisonPage {
        title: "Two circuits beside each other".to_owned(),
        lead: format!("A: {}; B: {}", args.a.display(), args.b.display()),
        facts: vec![("time".to_owned(), seconds)],
        comparison: kept.comparison.clone(),
        provenance: json!(kept.provenance),
    };
    Ok(render_comparison(&page)?.write(folder)?)
}

/// Tables, and what may be concluded now that models were run.
fn text(comparison: &Comparison, top: usize) -> String {
    let shown = |(columns, rows): (Vec<String>, Vec<Vec<String>>)| {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        table(&columns, &rows)
    };
    let mut parts = Vec::new();
    if comparison.is_matched() {
        for (title, place) in [
            ("heads of both circuits", Place::Both),
            ("only in A's", Place::OnlyA),
            ("only in B's", Place::OnlyB),
        ] {
            if comparison.heads_in(place).next().is_some() {
                let heads = shown(comparison.heads_table(place, top));
                parts.push(format!("\n{title}\n\n{heads}"));
            }
        }
    }
    let made = comparison.made_table(true);
    if !made.1.is_empty() {
        parts.push(format!("\nmade differently\n\n{}", shown(made)));
    }
    parts.push(format!(
        "\nwhat each circuit keeps in each run\n\n{}\n{}",
        shown(comparison.kept_table()),
        indented(&comparison.sentences())
    ));
    parts.concat()
}

/// What `circuit` keeps in the run of another discovery, made anew from its command and its prompts; nothing, with a note,
/// where it cannot be.
fn judge(
    side: &DiscoveryFile,
    model: Option<&String>,
    circuit: &[HeadId],
    device: &Device,
    provenance: &mut Provenance,
    progress: &Terminal,
) -> Result<Option<KeptIn>> {
    let folder = side.path.parent().unwrap_or(Path::new(""));
    let prompts = folder.join(PROMPTS_FILE);
    let recorded = recorded(side, prompts.clone())?;
    let Some(mut args) = recorded.filter(|_| prompts.is_file()) else {
        note(&format!(
            "note: {}: no {PROMPTS_FILE} of a run of a model on pairs beside it: what the other circuit keeps there is not measured",
            side.path.display()
        ));
        return Ok(None);
    };
    if let Some(model) = model {
        args.model.model.clone_from(model);
    }
    let mut stages = Stages(Vec::new());
    let gathered = gather(&args, None, device, provenance, &mut stages, progress);
    let gathered = gathered.with_context(|| {
        format!(
            "{}: its run cannot be made again: --model-a and --model-b say where models are, --no-models compares without",
            side.path.display()
        )
    })?;
    let grid = gathered.evidence.grid();
    if grid != side.grid() {
        bail!(
            "{}: found a model of {} layers and {} heads, expected the {} and {} of the result",
            args.model.model,
            grid.n_layers,
            grid.n_heads,
            side.n_layers,
            side.n_heads
        );
    }
    let causal = gathered.evidence.causal(&gathered.method.name)?;
    let mut how = QualitySettings::default()
        .with_pairs(args.patching.patch_pairs as usize)
        .with_members(0);
    if let Some(random) = args.random_circuits {
        how = how.with_random(random as usize);
    }
    let seed = Seed::new(args.seed.seed);
    let quality = circuit_quality(causal, circuit, how, seed, progress)?;
    let figures: CircuitFigures = serde_json::from_value(json!(quality))?;
    Ok(KeptIn::of(&figures))
}

/// The command that a result says it was made by, on its own prompts; nothing where it ran no model on pairs.
fn recorded(side: &DiscoveryFile, prompts: PathBuf) -> Result<Option<DiscoverArgs>> {
    let wrong = |what: &str| {
        anyhow!(
            "{}: provenance.command: {what}, expected the arguments of `circuitscope discover`",
            side.path.display()
        )
    };
    let command = side.provenance.get("command").and_then(Value::as_array);
    let command = command.ok_or_else(|| wrong("found none"))?;
    let words = command.iter().filter_map(Value::as_str);
    let cli = Cli::try_parse_from(["circuitscope"].into_iter().chain(words));
    let Ok(cli) = cli else {
        return Err(wrong("found what this version does not read"));
    };
    let Command::Discover(mut args) = cli.command else {
        return Err(wrong("found another command"));
    };
    if args.behaviour.activations.is_some() {
        return Ok(None);
    }
    if let Some(metric) = &side.metric {
        args.patching.metric = Some(metric.parse().map_err(|error| anyhow!("{error}"))?);
    }
    args.behaviour = Behaviour {
        task: None,
        pairs: Some(prompts),
        positive: None,
        activations: None,
    };
    // Nothing is scored anew.
    args.method = about("random")?;
    args.negative = None;
    args.examples = None;
    args.circuit = None;
    args.tests = false;
    args.explain = Vec::new();
    args.save_activations = None;
    args.output = None;
    // The metric is what counts here: it must be there.
    args.faithfulness = Judge::All;
    Ok(Some(args))
}
