//! Models.

use std::env;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use burn_flex::{Flex, FlexDevice};
use circuitscope::model::hub::{self, HubSettings};
use circuitscope::model::{LoadSettings, Loaded, Processing};
use circuitscope::{Exec, ModelSource, did_you_mean, nearest};
use pyo3::prelude::*;

use crate::work::{refused, run};

/// A model on the CPU.
#[pyclass(frozen, module = "circuitscope._circuitscope")]
#[derive(Debug)]
pub struct Model {
    /// Tensors share their memory with the clones that work is done on.
    loaded: Mutex<Loaded<Flex>>,
    /// What it was loaded by.
    named: String,
}

impl Model {
    pub(crate) fn loaded(&self) -> Loaded<Flex> {
        let loaded = self.loaded.lock();
        loaded.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name or path that it was loaded by.
    pub(crate) fn named(&self) -> &str {
        &self.named
    }
}

#[pymethods]
impl Model {
    /// Everything that is known of where it came from: name, family, files with their hashes, what was assumed.
    #[getter]
    fn provenance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let json = crate::work::to_json(&self.loaded().provenance)?;
        py.import("json")?.call_method1("loads", (json,))
    }

    /// Its name.
    #[getter]
    fn name(&self) -> String {
        self.loaded().provenance.name
    }

    fn __repr__(&self) -> String {
        let loaded = self.loaded();
        let grid = loaded.model.config().grid();
        format!(
            "<circuitscope.Model {}: {} layers of {} heads, width {}>",
            loaded.provenance.name,
            grid.n_layers,
            grid.n_heads,
            loaded.model.config().d_model
        )
    }

    #[getter]
    fn n_layers(&self) -> usize {
        self.loaded().model.config().grid().n_layers
    }

    #[getter]
    fn n_heads(&self) -> usize {
        self.loaded().model.config().grid().n_heads
    }

    #[getter]
    fn d_model(&self) -> usize {
        self.loaded().model.config().d_model
    }

    /// Names of all sites that can be captured, as TransformerLens names them.
    fn sites(&self) -> Vec<String> {
        let sites = self.loaded().model.config().catalog().sites();
        sites.iter().map(ToString::to_string).collect()
    }

    /// Numbers of the tokens of a text, without anything before them.
    fn tokenize(&self, text: &str) -> PyResult<Vec<u32>> {
        let loaded = self.loaded();
        let tokenizer = loaded.tokenizer().map_err(refused)?;
        tokenizer.encode(text, false).map_err(refused)
    }
}

/// Loads a model by its name.
#[pyfunction]
#[pyo3(signature = (name, processing, dtype, strict_config, progress=None))]
pub fn load_model(
    py: Python<'_>,
    name: String,
    processing: &str,
    dtype: &str,
    strict_config: bool,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Model> {
    let processing = match processing {
        "folded" => Processing::Folded,
        "raw" => Processing::Raw,
        other => {
            return Err(refused(format!(
                "unknown processing `{other}`{}: expected folded, raw",
                did_you_mean(nearest(other, ["folded", "raw"]))
            )));
        }
    };
    let precision = dtype.parse().map_err(refused)?;
    let settings = LoadSettings::default()
        .with_processing(processing)
        .with_precision(precision)
        .with_strict_config(strict_config)
        .with_exec(Exec::all_cores());
    let named = name.clone();
    let loaded = run(py, progress, move |progress| {
        let source = ModelSource::named(&name)?;
        if let ModelSource::Hub(id) = &source {
            let hub = HubSettings::of_variables(|name| env::var_os(name), env::home_dir());
            let hub = hub.context(
                "found no home folder: set HF_HOME to a folder for the models of the hub",
            )?;
            let snapshot = hub::fetch(id, &hub, progress)
                .with_context(|| format!("{id}: no such folder, so taken from the hub"))?;
            return Ok(snapshot.load(settings, &FlexDevice, progress)?);
        }
        Ok(source.load(settings, &FlexDevice, progress)?)
    })?;
    Ok(Model {
        loaded: Mutex::new(loaded),
        named,
    })
}
