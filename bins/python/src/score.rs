//! `score`: what heads put out in, scores out; no model runs.

use std::path::PathBuf;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::Evidence;
use circuitscope::eval::methods::{self, MethodSettings, method};
use circuitscope::files::write_atomic;
use circuitscope::measures::Scores;
use circuitscope::measures::formats::GraphFile;
use circuitscope::score::{CodeTable, amplitude_scores, node_scores, pair_scores};
use circuitscope::{Exec, Graph, Seed};
use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arrays;
use crate::settings;
use crate::work::{self, raised, refused, run, to_json};

/// What was asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    method: String,
    pairs: Vec<(usize, usize)>,
    n_layers: Option<usize>,
    seed: u64,
    settings: Map<String, Value>,
    /// Names of all arguments, for hints.
    arguments: Vec<String>,
}

/// Scores of heads by what they put out: `nodes` `[layer, head]`, `edges` `[heads, heads]` or nothing, and the rest as JSON.
#[pyfunction]
#[pyo3(signature = (head_outputs, labels, options, progress=None))]
pub fn score<'py>(
    py: Python<'py>,
    head_outputs: PyReadonlyArrayDyn<'py, f32>,
    labels: PyReadonlyArray1<'py, bool>,
    options: &str,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options: Options = work::options(options)?;
    let asked = methods::about(&options.method).map_err(refused)?;
    let about = asked.suited(false);
    let usual = MethodSettings::default();
    let of_methods = settings::methods(&usual, &options.settings, &options.arguments)
        .map_err(|error| raised(&error))?;
    let outputs = arrays::head_outputs(&head_outputs, &labels, options.n_layers)?;
    let seed = Seed::new(options.seed);
    let scores = run(py, progress, move |progress| {
        let mut evidence = Evidence::<Flex>::from_file(outputs, &FlexDevice)?;
        if !options.pairs.is_empty() {
            let (grid, activations) = (evidence.grid(), evidence.activations()?);
            let labels = evidence.labels().to_vec();
            evidence = Evidence::new(grid, activations, labels, options.pairs)?;
        }
        let evidence = evidence.with_exec(Exec::all_cores());
        let method = method::<Autodiff<Flex>>(&about.name, &of_methods, &FlexDevice)?;
        let measured = method.measure(&evidence, seed, progress)?;
        Ok(measured.scores(None)?)
    })?;
    let made = given(py, &scores, &about.name)?;
    let mut notes = Vec::from_iter(about.stands_in(asked));
    let first = scores.nodes.first();
    if scores.nodes.iter().all(|score| Some(score) == first) {
        notes.push(format!(
            "all heads have the same score: {} tells none of them apart here; methods that train or draw dictionaries depend on the \
             unit of head outputs, which is that of the residual stream",
            about.name
        ));
    }
    made.set_item("notes", notes)?;
    Ok(made)
}

fn given<'py>(py: Python<'py>, scores: &Scores, method: &str) -> PyResult<Bound<'py, PyDict>> {
    let (grid, heads) = (scores.grid, scores.grid.len());
    let made = PyDict::new(py);
    let shape = [grid.n_layers, grid.n_heads];
    made.set_item("method", method)?;
    made.set_item("nodes", arrays::shaped(py, scores.nodes.clone(), &shape)?)?;
    let edges = scores.edges.as_ref();
    let edges = edges.map(|edges| arrays::shaped(py, edges.clone(), &[heads, heads]));
    made.set_item("edges", edges.transpose()?)?;
    let counts = scores.paper_edge_head_counts.as_ref();
    let counts = counts.map(|counts| arrays::shaped(py, counts.clone(), &shape));
    made.set_item("paper_edge_head_counts", counts.transpose()?)?;
    made.set_item("dictionary", to_json(&scores.dictionary)?)?;
    Ok(made)
}

/// Scores of heads and pairs of heads by codes, as the program's `score` gives them: numbers of codes seen on positives only.
#[pyfunction]
#[pyo3(signature = (codes, labels, amplitudes=None, n_layers=None, paper_compatible=false))]
pub fn score_codes<'py>(
    py: Python<'py>,
    codes: PyReadonlyArrayDyn<'py, i32>,
    labels: PyReadonlyArray1<'py, bool>,
    amplitudes: Option<PyReadonlyArrayDyn<'py, f32>>,
    n_layers: Option<usize>,
    paper_compatible: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let view = codes.as_array();
    let (grid, _) = arrays::grid(view.shape(), 0, n_layers, "codes")?;
    let labels = arrays::labels(&labels);
    arrays::check_examples("codes", view.shape(), labels.len())?;
    let table = CodeTable::new(grid, labels, view.iter().copied().collect()).map_err(refused)?;
    let table = match &amplitudes {
        None => table,
        Some(amplitudes) => {
            let amplitudes = amplitudes.as_array().iter().copied().collect();
            table.with_amplitudes(amplitudes).map_err(refused)?
        }
    };
    let table = if paper_compatible {
        table.paper_compatible()
    } else {
        table
    };
    let (nodes, pairs, amplitudes) = run(py, None, move |_| {
        let amplitudes = table.amplitudes().map(|_| amplitude_scores(&table));
        Ok((
            node_scores(&table)?,
            pair_scores(&table)?,
            amplitudes.transpose()?,
        ))
    })?;
    let (shape, heads) = ([grid.n_layers, grid.n_heads], grid.len());
    let made = PyDict::new(py);
    for (name, of) in [
        ("unique", nodes.iter().map(|node| node.unique).collect()),
        ("union", nodes.iter().map(|node| node.union).collect()),
        ("paper_edge_head_counts", pairs.paper_head_counts(None)),
    ] {
        let of: Vec<u32> = of;
        made.set_item(name, arrays::shaped(py, of, &shape)?)?;
    }
    let normalised = nodes.iter().map(|node| node.normalised).collect();
    made.set_item("normalised", arrays::shaped(py, normalised, &shape)?)?;
    let amplitudes = amplitudes.map(|scores| arrays::shaped(py, scores, &shape));
    made.set_item("amplitude_scores", amplitudes.transpose()?)?;
    let square = [heads, heads];
    made.set_item(
        "edges",
        arrays::shaped(py, pairs.unique().to_vec(), &square)?,
    )?;
    let normalised = pairs.normalised();
    made.set_item("edges_normalised", arrays::shaped(py, normalised, &square)?)?;
    Ok(made)
}

/// Scores of heads in the form of EAP-IG: all other nodes are kept.
#[pyfunction]
pub fn graph_file(
    nodes: PyReadonlyArrayDyn<'_, f64>,
    d_model: usize,
    mlps: bool,
    parallel: bool,
) -> PyResult<String> {
    let view = nodes.as_array();
    let &[n_layers, n_heads] = view.shape() else {
        return Err(refused(format!(
            "nodes: found shape {:?}, expected [layer, head]",
            view.shape()
        )));
    };
    let graph = Graph {
        n_layers,
        n_heads,
        n_key_value_heads: n_heads,
        mlps,
        parallel,
    };
    graph.check().map_err(refused)?;
    let heads: Vec<f64> = view.iter().copied().collect();
    to_json(&GraphFile::of_heads(&graph, d_model, &heads, None).to_json())
}

/// Writes a file whole or not at all.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "as Python passes it")]
pub fn write_text(path: PathBuf, text: &str) -> PyResult<()> {
    write_atomic(&path, |out| out.write_all(text.as_bytes())).map_err(refused)
}
