//! `discover`: examples of a behaviour in, ranked heads and a circuit out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::eval::methods::MethodSettings;
use circuitscope::eval::{Choice, Evidence};
use circuitscope::found::{
    ExamineSettings, Examined, Found, Gathered, IMPORTANCES_FILE, Judging, PROMPTS_FILE,
    SCORES_FILE, Shape, VIEWER_FILE, examine,
};
use circuitscope::hooks::HeadActivations;
use circuitscope::measures::{DISCOVERY_FILE, SETTINGS_FILE, Scores};
use circuitscope::report::{PAGE_FILE, PICTURES_FOLDER};
use circuitscope::{
    CircuitChoice, DiscoverSettings, GivenDictionary, Seed, discover_by, discover_with,
};

use super::dictionary::{self, Origin};
use super::found_text::{FoundText as _, Stages};
use super::gathered::{examples, gather};
use super::inputs;
use super::kept::{Report, saved};
use crate::args::{DiscoverArgs, Judge};
use crate::device::{B, Device};
use crate::interrupt::{self, Kept};
use crate::output::{Printer, indented, note};
use crate::progress::Terminal;
use crate::provenance::{self, Provenance};

/// What this command leaves in its folder.
const RESULTS: [&str; 7] = [
    DISCOVERY_FILE,
    IMPORTANCES_FILE,
    VIEWER_FILE,
    PROMPTS_FILE,
    SCORES_FILE,
    PAGE_FILE,
    PICTURES_FOLDER,
];

pub(crate) fn run(args: &DiscoverArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let printer = printer.keeping(args.output.is_some());
    let mut provenance = provenance::start();
    args.patching.check(&[args.method])?;
    if let Some((random, fewest)) = examine_settings(args).too_few_draws() {
        bail!(
            "--tests: found --random-circuits {random}, expected at least {fewest}: with fewer a circuit that is ahead of all of \
             them is not shown to be ahead of 90 %"
        );
    }
    let rule = args.select;
    let in_pairs = args.behaviour.task.is_some() || args.behaviour.pairs.is_some();
    let method = args.method.suited(in_pairs);
    if !method.relabels && matches!(rule, Some(Choice::FalseDiscoveryRate(_))) {
        let method = method.name.clone().into_owned();
        return Err(circuitscope::eval::Error::NoNull { method }.into());
    }
    let device = args.device.device.open()?;
    provenance.on(&device);
    let given = dictionary::given(args, &device, &mut provenance)?;
    if let Some(folder) = &args.output {
        inputs::writable_folder(folder)?;
        inputs::own_folder(folder, DISCOVERY_FILE, &RESULTS)?;
        if folder.join(SETTINGS_FILE).exists() {
            bail!(
                "--output {}: found {SETTINGS_FILE}, the mark of `circuitscope eval`; choose another folder",
                folder.display()
            );
        }
    }
    let mut stages = Stages(Vec::new());
    if let Some(file) = &args.save_activations {
        let within = args.output.as_ref().map(|folder| file.strip_prefix(folder));
        if let Some(Ok(name)) = within
            && (name == Path::new("") || RESULTS.iter().any(|result| name.starts_with(result)))
        {
            bail!(
                "--save-activations {}: --output writes there, too; choose another file",
                file.display()
            );
        }
        inputs::writable_file("--save-activations", file)?;
    }
    let task = args.behaviour.task.as_ref();
    let task = task.map(|task| task.open(&mut provenance)).transpose()?;
    let task = task.as_ref();
    if let Some(CircuitChoice::File(file)) = &args.circuit {
        provenance.input(file)?;
    }
    let gathered = gather(args, task, &device, &mut provenance, &mut stages, progress)?;
    let grid = gathered.evidence.grid();
    for head in &args.explain {
        if let Some(said) = grid.lacks(*head) {
            bail!("--explain {head}: {said}");
        }
    }
    if let Some(path) = &args.save_activations {
        save_activations(&gathered.evidence, path, &provenance)?;
        interrupt::keep(Kept {
            said: format!("{}; no head was scored", saved(path)),
            json: None,
        });
    }
    if let Some(given) = &given {
        dictionary::check(&given.saved, args.other_site, gathered.evidence.d())?;
    }
    let settings = DiscoverSettings::default()
        .with_method(gathered.method.name.clone().into_owned())
        .with_methods(
            MethodSettings::default()
                .with_sae(args.sae.settings(task))
                .with_patching(args.patching.settings()),
        )
        .with_choice(rule)
        .with_max_heads(args.max_heads.map(|heads| heads as usize))
        .with_seed(Seed::new(args.seed.seed));
    let mut found = Found::begun(
        examples(args),
        &gathered,
        &settings,
        args.patching.ablation,
        provenance.now(),
    );
    if let Some(task) = task {
        found.examples = task.name.clone().into_owned();
        found.summary = Some(task.summary.clone().into_owned());
    }
    found.settings.dictionary = given.as_ref().map(|given| Origin::of(&given.saved));
    let report = Report {
        printer,
        folder: args.output.as_deref(),
        activations: args.save_activations.as_deref(),
    };
    if found.behaviour.is_some() {
        printer.part(&found.behaviour_text())?;
    }
    search(
        args, &gathered, given, &settings, &device, &mut found, stages, report, progress,
    )?;
    found.provenance = provenance.now();
    report.save(&found)?;
    let page = pages(args.output.as_deref(), &found, &gathered)?;
    let page = page.map_or_else(String::new, |page| format!("report: {}\n", page.display()));
    printer.print(&found, || format!("{}{page}", found.stages_text()))
}

/// Scores, chooses and judges; each part is told as soon as it is there.
#[expect(
    clippy::too_many_arguments,
    reason = "one call; what it reads and what it fills are different things"
)]
fn search(
    args: &DiscoverArgs,
    gathered: &Gathered<B>,
    given: Option<GivenDictionary<B>>,
    settings: &DiscoverSettings,
    device: &Device,
    found: &mut Found,
    mut stages: Stages,
    report: Report<'_>,
    progress: &Terminal,
) -> Result<()> {
    let start = Instant::now();
    let mut scored = start;
    let evidence = &gathered.evidence;
    let norms = gathered.norms(progress)?;
    let told = |scores: &Scores| {
        stages.split(start, progress);
        found.rank(scores, norms.as_deref());
        found.stages.clone_from(&stages.0);
        report.ranked(found, args.top)?;
        scored = Instant::now();
        anyhow::Ok(())
    };
    let discovery = match given {
        None => discover_with::<B, anyhow::Error>(
            evidence,
            settings,
            &device.training(),
            progress,
            told,
        ),
        Some(given) => discover_by(&given.method(), evidence, settings, progress, told),
    }?;
    stages.add("choose", scored);
    found.complete(discovery, gathered.truth.as_ref());
    found.stages.clone_from(&stages.0);
    report.chosen(found)?;
    examined(args, gathered, device, found, report, progress)?;
    report.printer.part("")
}

/// Runs, tests and reads the circuit; each part is told as soon as it is there.
fn examined(
    args: &DiscoverArgs,
    gathered: &Gathered<B>,
    device: &Device,
    found: &mut Found,
    report: Report<'_>,
    progress: &Terminal,
) -> Result<()> {
    let empty = found.circuit().is_empty();
    let causal = gathered.evidence.causal(&gathered.method.name);
    let runs = match args.faithfulness {
        Judge::None => false,
        Judge::Auto => causal.is_ok(),
        Judge::All => true,
    };
    if args.random_circuits.is_some() && (empty || !(runs || args.tests)) {
        note("note: --random-circuits is not read: no circuit is run");
    }
    if empty && args.tests {
        note("note: --tests: no circuit is shown, so that nothing is tested");
    }
    if !args.explain.is_empty() {
        causal.context("--explain")?;
    }
    let settings = examine_settings(args);
    let tokenizer = gathered.tokenizer.as_ref();
    let words = tokenizer.map(|tokenizer| (&gathered.parts, tokenizer));
    let printer = report.printer;
    examine::<B, anyhow::Error>(
        found,
        &gathered.evidence,
        words,
        &settings,
        &device.training(),
        progress,
        |part, found| match (part, &found.tests) {
            (Examined::Judged, _) => {
                printer.part(&indented(&found.quality_sentences()))?;
                report.judged(found)
            }
            (Examined::Tested, Some(tests)) => printer.part(&format!(
                "\ntests of the circuit (level {}):\n{}",
                tests.level,
                indented(&tests.sentences())
            )),
            (Examined::Described, _) => printer.part(&found.cards_text(&args.explain)),
            _ => Ok(()),
        },
    )
}

/// Files of other tools, pictures and the page.
fn pages(folder: Option<&Path>, found: &Found, gathered: &Gathered<B>) -> Result<Option<PathBuf>> {
    let Some(folder) = folder else {
        return Ok(None);
    };
    let shape = gathered.graph.as_ref().map(|graph| Shape {
        graph,
        d_model: gathered.evidence.d(),
    });
    Ok(Some(found.write_beside(
        folder,
        shape,
        gathered.pairs.as_deref(),
    )?))
}

/// Writes what the method starts from, in the form that `train` and `encode` read.
fn save_activations(evidence: &Evidence<B>, path: &Path, provenance: &Provenance) -> Result<()> {
    let data = evidence.activations()?.to_data().convert::<f32>();
    let data = data.into_vec::<f32>();
    let data = data.map_err(|error| anyhow!("the device failed: {error:?}"))?;
    let labels = evidence.labels().to_vec();
    let file = HeadActivations::new(evidence.grid(), evidence.d(), labels, data);
    Ok(file.write(path, provenance.metadata())?)
}

/// What is done with the circuit.
fn examine_settings(args: &DiscoverArgs) -> ExamineSettings {
    ExamineSettings::default()
        .with_judging(args.faithfulness.into())
        .with_random(args.random_circuits.map(|random| random as usize))
        .with_tests(args.tests)
        .with_explain(args.explain.clone())
        .with_given_codes(args.sae_dir.is_some())
}

impl From<Judge> for Judging {
    fn from(judge: Judge) -> Self {
        match judge {
            Judge::Auto => Self::Auto,
            Judge::All => Self::All,
            Judge::None => Self::None,
        }
    }
}
