//! Whose circuits are known.

use burn::tensor::backend::Backend;
use circuitscope_model::{Loaded, ModelProvenance};
use circuitscope_tasks::{GroundTruth, KNOWN_MODELS, KnownModel, Task, ground_truths};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Whose circuits count as those of a model, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAs {
    /// One of [`circuitscope_tasks::MODELS`].
    pub model: String,
    /// Why, as the end of a sentence.
    pub why: String,
}

/// Whose circuits count as those of a model: of the model `named`, if that was asked for; else of the
/// known model that has its name on the hub, or its weights.
///
/// # Errors
/// [`circuitscope_tasks::Error::UnknownModel`] for another name.
pub fn known_as(provenance: &ModelProvenance, named: Option<&str>) -> Result<Option<KnownAs>> {
    let known = |model: KnownModel, why: String| KnownAs {
        model: model.name.to_owned(),
        why,
    };
    if let Some(name) = named {
        let why = "as asked for".to_owned();
        return Ok(Some(known(KnownModel::named(name)?, why)));
    }
    let hashes = || provenance.files.iter().map(|file| file.sha256.as_str());
    let hub = provenance.hub.as_ref().map(|origin| origin.repo.as_str());
    let mut found = KNOWN_MODELS.into_iter().filter_map(|model| {
        if let Some(repo) = hub.filter(|repo| model.hub.contains(repo)) {
            return Some(known(model, format!("by its name {repo} on the hub")));
        }
        let weights = model.has_weights(hashes());
        weights.then(|| known(model, "by the hash of its weights".to_owned()))
    });
    Ok(found.next())
}

/// Whether a model is the one that the crate carries, by the hash of its weights.
#[must_use]
pub fn is_reference(provenance: &ModelProvenance) -> bool {
    let hashes = provenance.files.iter().map(|file| file.sha256.as_str());
    KnownModel::REFERENCE.has_weights(hashes)
}

/// The circuits known for a task in a model, whose circuits they are being decided by [`known_as`]. The
/// variant that tables quote comes first.
///
/// # Errors
/// [`Error::NoKnownCircuit`]; with `named`, an unknown name, and [`Error::CircuitShape`] if the model
/// has another shape than the one named.
pub fn known_circuits<B: Backend>(
    loaded: &Loaded<B>,
    task: Task,
    named: Option<&str>,
) -> Result<Vec<GroundTruth>> {
    let grid = loaded.model.config().grid();
    let none = || Error::NoKnownCircuit {
        task,
        model: loaded.provenance.name.clone(),
    };
    let known = known_as(&loaded.provenance, named)?.ok_or_else(none)?;
    let truths = ground_truths(task, &known.model)?;
    match truths.first() {
        None if named.is_some() => Err(Error::NoCircuitIn {
            task,
            circuit: known.model,
        }),
        None => Err(none()),
        Some(truth) if truth.circuit.grid != grid => Err(Error::CircuitShape {
            circuit: known.model,
            expected: truth.circuit.grid,
            found: grid,
        }),
        Some(_) => Ok(truths),
    }
}
