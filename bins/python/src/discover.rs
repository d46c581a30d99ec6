//! `discover`: examples of a behaviour in, ranked heads and a circuit out. The same calls as the program makes, in the same
//! order.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::causal::Ablation;
use circuitscope::eval::methods::{self, MethodSettings};
use circuitscope::eval::{About, Choice};
use circuitscope::found::{self, ExamineSettings, Gathered, Judging, Shape, examine};
use circuitscope::hooks::HeadActivations;
use circuitscope::measures::{DISCOVERY_FILE, Scores};
use circuitscope::model::{Loaded, PrependBos};
use circuitscope::tasks::TaskSpec;
use circuitscope::{
    DictionaryOrigin, DiscoverSettings, Error, Exec, GivenDictionary, Graph, HeadId, Metric,
    Progress, Provenance, Seed, discover_by, discover_with, encodes_heads,
};
use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arrays;
use crate::gathered::{Told, gather, of_outputs};
use crate::model::Model;
use crate::prompts::Examples;
use crate::settings;
use crate::work::{self, raised, run, to_json};

type B = Autodiff<Flex>;

/// What was asked for, as the package passes it on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "a keyword argument each")]
struct Options {
    #[serde(default)]
    examples: Examples,
    n_examples: Option<usize>,
    circuit: Option<String>,
    only_correct: bool,
    method: String,
    select: Option<String>,
    max_heads: Option<usize>,
    faithfulness: String,
    random_circuits: Option<usize>,
    tests: bool,
    explain: Vec<String>,
    chat: bool,
    prepend_bos: String,
    max_batch_tokens: Option<usize>,
    metric: Option<String>,
    reference: String,
    seed: u64,
    settings: Map<String, Value>,
    /// Names of all arguments, for hints.
    arguments: Vec<String>,
    n_layers: Option<usize>,
    /// Names of arguments that were given and are not read where no model runs.
    unread: Vec<String>,
    sae: Option<PathBuf>,
    other_site: bool,
}

/// The same, read.
pub(crate) struct Asked {
    pub(crate) examples: Examples,
    pub(crate) n_examples: Option<usize>,
    pub(crate) circuit: Option<String>,
    pub(crate) only_correct: bool,
    pub(crate) method: &'static About,
    pub(crate) rule: Option<Choice>,
    pub(crate) max_heads: Option<usize>,
    pub(crate) examine: ExamineSettings,
    pub(crate) chat: bool,
    pub(crate) prepend_bos: PrependBos,
    pub(crate) max_batch_tokens: Option<usize>,
    pub(crate) metric: Option<Metric>,
    pub(crate) ablation: Ablation,
    pub(crate) seed: Seed,
    /// Settings of methods that were given, by name.
    pub(crate) settings: Map<String, Value>,
    pub(crate) arguments: Vec<String>,
    /// The name of the model, for the command that does the same.
    pub(crate) model: Option<String>,
    /// Names of arguments that are not read where no model runs.
    pub(crate) unread: Vec<String>,
    /// The folder of a dictionary that is there already.
    sae: Option<PathBuf>,
    other_site: bool,
}

impl Asked {
    fn read(options: Options, model: Option<String>) -> Result<Self> {
        let said = |name: &str, error: &dyn std::fmt::Display| anyhow!("{name}: {error}");
        let method = methods::about(&options.method)?;
        let rule = options.select.as_deref().map(str::parse::<Choice>);
        let rule = rule.transpose().map_err(|error| said("select", &error))?;
        let judging: Judging = options.faithfulness.parse()?;
        let heads = options.explain.iter().map(|head| head.parse::<HeadId>());
        let heads = heads
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| said("explain", &error))?;
        let metric = options.metric.as_deref().map(str::parse::<Metric>);
        let metric = metric.transpose().map_err(|error| said("metric", &error))?;
        if let Some(metric) = metric {
            method.check_metric(metric)?;
        }
        let ablation = options.reference.parse::<Ablation>()?;
        let prepend_bos = options.prepend_bos.parse::<PrependBos>();
        let prepend_bos = prepend_bos.map_err(|error| said("prepend_bos", &error))?;
        for (name, number) in [
            ("examples", options.n_examples),
            ("max_heads", options.max_heads),
            ("random_circuits", options.random_circuits),
            ("max_batch_tokens", options.max_batch_tokens),
        ] {
            work::in_range(name, number, 1..=work::MOST)?;
        }
        let examine = ExamineSettings::default()
            .with_judging(judging)
            .with_random(options.random_circuits)
            .with_tests(options.tests)
            .with_explain(heads)
            .with_given_codes(options.sae.is_some());
        if options.other_site && options.sae.is_none() {
            bail!("other_site: found no sae, expected the folder of a dictionary with it");
        }
        if let Some((random, fewest)) = examine.too_few_draws() {
            bail!(
                "tests: found random_circuits {random}, expected at least {fewest}: with fewer a circuit that is ahead of all of them \
                 is not shown to be ahead of 90 %"
            );
        }
        Ok(Self {
            examples: options.examples,
            n_examples: options.n_examples,
            circuit: options.circuit,
            only_correct: options.only_correct,
            method,
            rule,
            max_heads: options.max_heads,
            examine,
            chat: options.chat,
            prepend_bos,
            max_batch_tokens: options.max_batch_tokens,
            metric,
            ablation,
            seed: Seed::new(options.seed),
            settings: options.settings,
            arguments: options.arguments,
            model,
            unread: options.unread,
            sae: options.sae,
            other_site: options.other_site,
        })
    }

    /// Settings of methods; λ of the dictionary is the task's unless it was asked for.
    fn methods(&self, task: Option<&TaskSpec>) -> Result<MethodSettings> {
        let usual = task.map_or_else(MethodSettings::default, MethodSettings::for_task);
        settings::methods(&usual, &self.settings, &self.arguments)
    }

    /// Arguments of the program that do the same on the prompts that are saved: `circuitscope compare` runs them again.
    fn command(&self, methods: &MethodSettings) -> Vec<String> {
        let patching = &methods.patching;
        let (task, file) = (&self.examples.task, &self.examples.pairs_file);
        let examples = match (task, file) {
            (Some(task), _) => ["--task".to_owned(), task.clone()],
            (None, Some(file)) => ["--pairs".to_owned(), file.display().to_string()],
            (None, None) => ["--pairs".to_owned(), found::PROMPTS_FILE.to_owned()],
        };
        let mut command = vec!["discover".to_owned()];
        if let Some(model) = &self.model {
            command.extend(["--model".to_owned(), model.clone()]);
        }
        command.extend(examples);
        let mut add = |flag: &str, value: String| command.extend([flag.to_owned(), value]);
        add("--method", self.method.name.clone().into_owned());
        add("--seed", self.seed.value().to_string());
        add("--reference", self.ablation.to_string());
        if let Some(sae) = &self.sae {
            add("--sae", sae.display().to_string());
        }
        add("--prepend-bos", self.prepend_bos.to_string());
        add("--gradient-pairs", patching.gradient_pairs.to_string());
        add("--patch-pairs", patching.patch_pairs.to_string());
        if let Some(metric) = self.metric {
            add("--metric", metric.to_string());
        }
        for (flag, on) in [("--chat", self.chat), ("--other-site", self.other_site)] {
            command.extend(on.then(|| flag.to_owned()));
        }
        command
    }
}

/// What was found.
#[pyclass(frozen, module = "circuitscope._circuitscope")]
#[derive(Debug)]
pub struct Found {
    inner: found::Found,
    graph: Option<Graph>,
    d: usize,
    pairs: Option<String>,
    notes: Vec<String>,
}

/// Runs the model and everything after it.
#[pyfunction]
#[pyo3(signature = (model, options, head_outputs=None, labels=None, progress=None))]
pub fn discover(
    py: Python<'_>,
    model: Option<&Model>,
    options: &str,
    head_outputs: Option<PyReadonlyArrayDyn<'_, f32>>,
    labels: Option<PyReadonlyArray1<'_, bool>>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Found> {
    let options: Options = work::options(options)?;
    let n_layers = options.n_layers;
    let named = model.map(|model| model.named().to_owned());
    let asked = Asked::read(options, named).map_err(|error| raised(&error))?;
    let outputs = match (head_outputs, labels) {
        (Some(outputs), Some(labels)) => Some(arrays::head_outputs(&outputs, &labels, n_layers)?),
        _ => None,
    };
    let loaded = model.map(Model::loaded);
    run(py, progress, move |progress| {
        found(&asked, loaded, outputs, progress)
    })
}

fn found(
    asked: &Asked,
    loaded: Option<Loaded<Flex>>,
    outputs: Option<HeadActivations>,
    progress: &dyn Progress,
) -> Result<Found> {
    let mut told = Told {
        notes: Vec::new(),
        provenance: Provenance::start(
            concat!("circuitscope ", env!("CARGO_PKG_VERSION")),
            Vec::new(),
        ),
    };
    told.provenance.on(&format!(
        "flex (CPU, {} threads)",
        Exec::all_cores().host_threads
    ));
    let task = asked.examples.task(&mut told.provenance)?;
    let task = task.as_ref();
    let methods = asked.methods(task)?;
    if outputs.is_none() {
        told.provenance.command = asked.command(&methods);
    }
    // Before anything runs: a wrong folder should not cost that time.
    let given = given(asked, &mut told)?;
    let start = Instant::now();
    let gathered = match (loaded, outputs) {
        (_, Some(outputs)) => of_outputs(asked, outputs, &mut told)?,
        (Some(loaded), None) => gather(asked, loaded, task, &methods, &mut told, progress)?,
        (None, None) => bail!("found neither a model nor head_outputs, expected one of them"),
    };
    for head in &asked.examine.explain {
        if let Some(said) = gathered.evidence.grid().lacks(*head) {
            bail!("explain {head}: {said}");
        }
    }
    if let Some(given) = &given {
        let d = gathered.evidence.d();
        let said = encodes_heads(&given.saved, asked.other_site, d, "other_site=True")?;
        told.notes.extend(said);
    }
    let settings = DiscoverSettings::default()
        .with_method(gathered.method.name.clone().into_owned())
        .with_methods(methods)
        .with_choice(asked.rule)
        .with_max_heads(asked.max_heads)
        .with_seed(asked.seed);
    let mut found = begun(asked, task, &gathered, &settings, &told);
    found.stage("gather", start);
    let origin = given
        .as_ref()
        .map(|given| DictionaryOrigin::of(&given.saved));
    found.settings.dictionary = origin;
    search(
        asked, &gathered, given, &settings, &mut found, &mut told, progress,
    )?;
    found.provenance = told.provenance.now();
    Ok(Found {
        d: gathered.evidence.d(),
        graph: gathered.graph,
        pairs: gathered.pairs,
        notes: told.notes,
        inner: found,
    })
}

/// The dictionary that was asked for; its files are inputs.
fn given(asked: &Asked, told: &mut Told) -> Result<Option<GivenDictionary<Flex>>> {
    let Some(folder) = &asked.sae else {
        return Ok(None);
    };
    let given = GivenDictionary::load(folder, &asked.method.name, &FlexDevice)?;
    told.provenance.input_all(&given.saved.files)?;
    Ok(Some(given))
}

/// Everything that is known before heads are scored.
fn begun(
    asked: &Asked,
    task: Option<&TaskSpec>,
    gathered: &Gathered<Flex>,
    settings: &DiscoverSettings,
    told: &Told,
) -> found::Found {
    let name = match (task, gathered.model.is_some()) {
        (Some(task), _) => task.name.clone().into_owned(),
        (None, true) => asked.examples.name(),
        (None, false) => "head outputs".to_owned(),
    };
    let now = told.provenance.now();
    let mut found = found::Found::begun(name, gathered, settings, asked.ablation, now);
    found.summary = task.map(|task| task.summary.clone().into_owned());
    found
}

/// Scores, chooses, judges and reads.
fn search(
    asked: &Asked,
    gathered: &Gathered<Flex>,
    given: Option<GivenDictionary<Flex>>,
    settings: &DiscoverSettings,
    found: &mut found::Found,
    told: &mut Told,
    progress: &dyn Progress,
) -> Result<()> {
    let evidence = &gathered.evidence;
    let norms = gathered.norms(progress)?;
    let (start, mut scored) = (Instant::now(), Instant::now());
    let ranked = |scores: &Scores| {
        found.stage("score", start);
        found.rank(scores, norms.as_deref());
        scored = Instant::now();
        Ok::<_, Error>(())
    };
    let discovery = match given {
        None => discover_with::<B, Error>(evidence, settings, &FlexDevice, progress, ranked),
        Some(given) => discover_by(&given.method(), evidence, settings, progress, ranked),
    }?;
    found.stage("choose", scored);
    found.complete(discovery, gathered.truth.as_ref());
    let runs = match asked.examine.judging {
        Judging::None => false,
        Judging::All => true,
        _ => evidence.causal(&found.method).is_ok(),
    };
    let empty = found.circuit().is_empty();
    if asked.examine.random.is_some() && (empty || !(runs || asked.examine.tests)) {
        told.note("random_circuits is not read: no circuit is run");
    }
    if empty && asked.examine.tests {
        told.note("tests: no circuit is shown, so that nothing is tested");
    }
    let tokenizer = gathered.tokenizer.as_ref();
    let words = tokenizer.map(|tokenizer| (&gathered.parts, tokenizer));
    examine::<B, Error>(
        found,
        evidence,
        words,
        &asked.examine,
        &FlexDevice,
        progress,
        |_, _| Ok(()),
    )?;
    Ok(())
}

#[pymethods]
impl Found {
    /// Everything, as `discovery.json` has it.
    fn json(&self) -> PyResult<String> {
        to_json(&self.inner)
    }

    /// A score for each head, layer by layer.
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, numpy::PyArrayDyn<f64>>> {
        let shape = [self.inner.n_layers, self.inner.n_heads];
        arrays::shaped(py, self.inner.nodes.clone(), &shape)
    }

    /// `[heads, heads]`, writer by reader, where the method scores pairs.
    fn edges<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, numpy::PyArrayDyn<f64>>>> {
        let heads = self.inner.grid().len();
        let edges = self.inner.edges.as_ref();
        let edges = edges.map(|edges| arrays::shaped(py, edges.scores.clone(), &[heads, heads]));
        edges.transpose()
    }

    /// What was assumed, one sentence each.
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// What may be concluded, in one sentence.
    fn conclusion(&self) -> String {
        self.inner.conclusion()
    }

    /// What is known of the prompts, of the circuit and of what it keeps.
    fn sentences(&self) -> Vec<String> {
        let found = &self.inner;
        let all = [
            found.behaviour_sentences(),
            found.circuit_sentences(),
            found.quality_sentences(),
        ];
        all.concat()
    }

    /// The lines of `scores.csv`.
    fn table(&self) -> String {
        self.inner.table()
    }

    /// Scores and circuit in the form of EAP-IG, where a model was run.
    fn importances(&self) -> PyResult<Option<String>> {
        let graph = self.graph.as_ref();
        let file = graph.map(|graph| self.inner.importances(graph, self.d).to_json());
        file.map(|file| to_json(&file)).transpose()
    }

    /// Writes everything into a folder, as `discover --output` does; the path of the page.
    fn save(&self, folder: PathBuf) -> PyResult<PathBuf> {
        self.saved(&folder).map_err(|error| raised(&error))
    }
}

impl Found {
    fn saved(&self, folder: &std::path::Path) -> Result<PathBuf> {
        if folder.is_file() {
            bail!(
                "{}: found a file, expected a folder or nothing",
                folder.display()
            );
        }
        let ours = folder.join(DISCOVERY_FILE).exists();
        let page = circuitscope::report::PAGE_FILE;
        if let Some(found) = [
            page,
            found::SCORES_FILE,
            circuitscope::measures::SETTINGS_FILE,
        ]
        .into_iter()
        .find(|name| folder.join(name).exists() && !ours)
        {
            bail!(
                "{}: found {found} and no {DISCOVERY_FILE}, expected a new folder, or one that a discovery was saved into",
                folder.display()
            );
        }
        fs_err::create_dir_all(folder)?;
        found::Found::remove_beside(folder)?;
        self.inner.write(folder)?;
        let shape = self.graph.as_ref().map(|graph| Shape {
            graph,
            d_model: self.d,
        });
        let page = self
            .inner
            .write_beside(folder, shape, self.pairs.as_deref())?;
        Ok(page)
    }
}
