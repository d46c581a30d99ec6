//! `capture`: prompts in, activations out.

use anyhow::{Result, anyhow, bail};
use burn_flex::{Flex, FlexDevice};
use circuitscope::hooks::{Reduce, Site};
use circuitscope::model::{Loaded, PaddedRows, PaddingSide, SiteValues, capture_sites};
use circuitscope::{
    CaptureSettings, PromptStart, Provenance, Seed, available_memory, did_you_mean, nearest,
    task_prompts,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde::Deserialize;

use crate::arrays;
use crate::model::Model;
use crate::prompts::open_task;
use crate::work::{self, raised, refused, run};

/// Pairs that are drawn of a task where no number is asked for.
const PAIRS: usize = 10;

/// What was asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    prompts: Option<Vec<String>>,
    #[serde(default)]
    tokens: Option<Vec<Vec<u32>>>,
    task: Option<String>,
    n_examples: Option<usize>,
    sites: String,
    reduce: String,
    chat: bool,
    prepend_bos: String,
    max_batch_tokens: Option<usize>,
    seed: u64,
}

/// What was captured.
struct Captured {
    sites: Vec<(Site, SiteValues)>,
    tokens: Vec<Vec<u32>>,
    notes: Vec<String>,
}

/// Activations by the names of their sites, the tokens of each prompt, and what was assumed.
#[pyfunction]
#[pyo3(signature = (model, options, progress=None))]
pub fn capture<'py>(
    py: Python<'py>,
    model: &Model,
    options: &str,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options: Options = work::options(options)?;
    for (name, number) in [
        ("examples", options.n_examples),
        ("max_batch_tokens", options.max_batch_tokens),
    ] {
        work::in_range(name, number, 1..=work::MOST).map_err(|error| raised(&error))?;
    }
    let reduce = match options.reduce.as_str() {
        "none" => Reduce::None,
        "mean" => Reduce::Mean,
        "last" => Reduce::Last,
        other => {
            let hint = did_you_mean(nearest(other, ["none", "mean", "last"]));
            return Err(refused(format!(
                "reduce: found `{other}`{hint}, expected none, mean, last"
            )));
        }
    };
    let loaded = model.loaded();
    let captured = run(py, progress, move |progress| {
        let sites = loaded.model.config().catalog().resolve(&options.sites)?;
        let (tokens, notes) = tokens(&loaded, &options)?;
        let rows = PaddedRows::new(tokens, PaddingSide::Right)?;
        let config = loaded.model.config();
        config.check_tokens(rows.prompts())?;
        let settings = CaptureSettings::default()
            .with_max_batch_tokens(options.max_batch_tokens)
            .with_memory(available_memory().unwrap_or(2 << 30));
        let batch = settings.batch_tokens(config, rows.pos(), &sites);
        let model = &loaded.model;
        let found = capture_sites(model, &rows, &sites, reduce, batch, &FlexDevice, progress)?;
        Ok(Captured {
            sites: found.into_iter().collect(),
            tokens: rows.prompts().to_vec(),
            notes,
        })
    })?;
    let sites = PyDict::new(py);
    for (site, values) in captured.sites {
        let array = arrays::shaped(py, values.data, &values.shape)?;
        sites.set_item(site.to_string(), array)?;
    }
    let made = PyDict::new(py);
    made.set_item("sites", sites)?;
    made.set_item("tokens", PyList::new(py, captured.tokens)?)?;
    made.set_item("notes", captured.notes)?;
    Ok(made)
}

/// The tokens of each prompt, and what was assumed in reading them.
fn tokens(loaded: &Loaded<Flex>, options: &Options) -> Result<(Vec<Vec<u32>>, Vec<String>)> {
    if let Some(tokens) = &options.tokens {
        if let Some(at) = tokens.iter().position(Vec::is_empty) {
            bail!("prompts[{at}]: found no token, expected at least one");
        }
        return Ok((tokens.clone(), Vec::new()));
    }
    let (mut texts, mut notes) = match (&options.prompts, &options.task) {
        (Some(prompts), _) => (prompts.clone(), Vec::new()),
        (None, Some(task)) => {
            let task = open_task(task, &mut Provenance::start("circuitscope", Vec::new()))?;
            let pairs = options
                .n_examples
                .unwrap_or_else(|| task.examples_or(PAIRS));
            let drawn = task_prompts(loaded, &task, pairs, Seed::new(options.seed))?;
            (drawn.texts, drawn.notes)
        }
        (None, None) => bail!("no prompts: give prompts or task"),
    };
    if texts.is_empty() {
        bail!("prompts: found none, expected at least one");
    }
    let asked = options.prepend_bos.parse();
    let asked = asked.map_err(|error: String| anyhow!("prepend_bos: {error}"))?;
    let place = |at: usize| format!("prompts[{at}]");
    let start = PromptStart::settle(loaded, asked, options.chat, &mut texts, place);
    let (bos, said) = start?;
    notes.extend(said);
    let tokenizer = loaded.tokenizer()?;
    let tokens = texts.iter().map(|text| tokenizer.encode(text, bos.done));
    Ok((tokens.collect::<Result<_, _>>()?, notes))
}
