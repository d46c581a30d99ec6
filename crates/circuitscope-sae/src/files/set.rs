//! The transcoders of a model's layers, read together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;

use super::circuit_tracer::{self, Set};
use super::{Kind, SavedSae, load_dir, names};
use crate::{Error, Result};

/// How deep dictionaries may lie in the folder of a set: `layer_3/width_16k/average_l0_9`.
const DEPTH: usize = 4;

/// One transcoder for each of some layers of a model.
///
/// # Shapes
/// All read and write the same sites, and vectors of the same widths; the number of features may differ.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TranscoderSet<B: Backend> {
    /// By layer.
    pub layers: BTreeMap<usize, SavedSae<B>>,
    /// The model, where the folder says so.
    pub model: Option<String>,
    /// Under which names circuit-tracer looks for pictures of the features.
    pub scan: Vec<String>,
    /// The folder.
    pub folder: PathBuf,
}

/// Reads the transcoders in the folder `folder`:
///
/// - a set of circuit-tracer: `config.yaml` with `model_kind: transcoder_set`, and `layer_0.safetensors` and so on, or the
///   files that it lists under `transcoders`;
/// - or folders that [`load_dir`] reads, one for each layer, at most four levels below; the layer is that of what each
///   reads. Hidden folders are passed over.
///
/// # Errors
/// As [`load_dir`], and [`Error::Yaml`], [`Error::OtherFormat`] for cross-layer transcoders, [`Error::Unsuited`] for layers
/// that are missing or twice there, for folders that say no layer or are no transcoder, and for layers of other widths or
/// sites.
///
/// # Memory
/// All weights, in f32. [`load_layer`] keeps those of one.
///
/// # Examples
/// ```
/// # let set = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden/transcoders/circuit-tracer-jumprelu-skip");
/// use circuitscope_sae::load_set;
///
/// let set = load_set::<burn_flex::Flex>(set.as_ref(), &Default::default())?;
/// assert_eq!(set.layers.keys().copied().collect::<Vec<_>>(), [0, 1]);
/// let on = &set.layers[&1].trained_on;
/// assert_eq!(on.hook_name.as_deref(), Some("blocks.1.mlp.hook_in"));
/// assert_eq!(on.hook_name_out.as_deref(), Some("blocks.1.hook_mlp_out"));
/// # Ok::<(), circuitscope_sae::Error>(())
/// ```
pub fn load_set<B: Backend>(folder: &Path, device: &B::Device) -> Result<TranscoderSet<B>> {
    if circuit_tracer::is_set(&names(folder)?) {
        let set = Set::read(folder)?;
        let mut layers = BTreeMap::new();
        for (layer, path) in &set.layers {
            layers.insert(*layer, set.load(folder, *layer, path, device)?);
        }
        check(&layers)?;
        return Ok(TranscoderSet {
            layers,
            model: set.model,
            scan: set.scan,
            folder: folder.to_owned(),
        });
    }
    let mut layers: BTreeMap<usize, SavedSae<B>> = BTreeMap::new();
    for place in dictionaries(folder)? {
        let saved = load_dir(&place, device)?;
        let layer = layer_of(&saved)?;
        if let Some(other) = layers.get(&layer) {
            return Err(twice(place, layer, other));
        }
        layers.insert(layer, saved);
    }
    check(&layers)?;
    let models = layers.values().map(|saved| &saved.trained_on.model);
    Ok(TranscoderSet {
        model: models.flatten().next().cloned(),
        layers,
        scan: Vec::new(),
        folder: folder.to_owned(),
    })
}

/// Reads the transcoder of one layer of a set ([`load_set`]). Of folders with one each all are read, since only they tell
/// their layer, and one is kept.
///
/// # Errors
/// As [`load_set`], and [`Error::Unsuited`] if the set has no such layer, which names those that it has.
///
/// # Examples
/// ```
/// # let set = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden/transcoders/circuit-tracer-relu");
/// use circuitscope_sae::load_layer;
///
/// let layer = load_layer::<burn_flex::Flex>(set.as_ref(), 1, &Default::default())?;
/// assert_eq!(layer.trained_on.layer(), Some(1));
/// let error = load_layer::<burn_flex::Flex>(set.as_ref(), 2, &Default::default()).unwrap_err();
/// assert!(error.to_string().ends_with("layer: found 2, expected one of 0, 1"));
/// # Ok::<(), circuitscope_sae::Error>(())
/// ```
pub fn load_layer<B: Backend>(
    folder: &Path,
    layer: usize,
    device: &B::Device,
) -> Result<SavedSae<B>> {
    let none = |layers: Vec<usize>| {
        let layers: Vec<String> = layers.iter().map(usize::to_string).collect();
        Error::Unsuited {
            path: folder.to_owned(),
            what: "layer",
            found: layer.to_string(),
            expected: format!("one of {}", layers.join(", ")),
        }
    };
    if circuit_tracer::is_set(&names(folder)?) {
        let set = Set::read(folder)?;
        return match set.layers.get(&layer) {
            Some(path) => set.load(folder, layer, path, device),
            None => Err(none(set.layers.into_keys().collect())),
        };
    }
    let mut wanted: Option<SavedSae<B>> = None;
    let mut others = Vec::new();
    for place in dictionaries(folder)? {
        let saved = load_dir(&place, device)?;
        let of = layer_of(&saved)?;
        match &wanted {
            _ if of != layer => others.push(of),
            None => wanted = Some(saved),
            Some(first) => return Err(twice(place, layer, first)),
        }
    }
    others.sort_unstable();
    wanted.ok_or_else(|| none(others))
}

fn twice<B: Backend>(path: PathBuf, layer: usize, first: &SavedSae<B>) -> Error {
    Error::Unsuited {
        path,
        what: "layer",
        found: format!("{layer}, which {} has", first.folder.display()),
        expected: "one transcoder for each layer".to_owned(),
    }
}

/// The folders of dictionaries below `folder`, in order.
fn dictionaries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    search(folder, DEPTH, &mut found)?;
    if found.is_empty() {
        let lying = names(folder)?;
        return Err(Error::Unsuited {
            path: folder.to_owned(),
            what: "set of transcoders",
            found: if lying.is_empty() {
                "nothing".to_owned()
            } else {
                lying.join(", ")
            },
            expected: format!(
                "{} (circuit-tracer), or folders with one transcoder each",
                circuit_tracer::FILE
            ),
        });
    }
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for name in names(folder)? {
        let Some(name) = name.strip_suffix('/').filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let below = folder.join(name);
        if !Kind::all_of(&names(&below)?).is_empty() {
            found.push(below);
        } else if depth > 1 {
            search(&below, depth - 1, found)?;
        }
    }
    Ok(())
}

fn layer_of<B: Backend>(saved: &SavedSae<B>) -> Result<usize> {
    let hook = saved.trained_on.hook_name.as_deref();
    let unsuited = |what, found: &str, expected: &str| Error::Unsuited {
        path: saved.folder.clone(),
        what,
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    if !saved.transcodes {
        return Err(unsuited("kind", "an autoencoder", "a transcoder"));
    }
    let said = hook.unwrap_or("no site");
    saved
        .trained_on
        .layer()
        .ok_or_else(|| unsuited("site", said, "one of a layer, as blocks.3.mlp.hook_in"))
}

/// Fails unless all layers read and write alike.
fn check<B: Backend>(layers: &BTreeMap<usize, SavedSae<B>>) -> Result<()> {
    let Some(first) = layers.values().next() else {
        return Ok(());
    };
    let like = |saved: &SavedSae<B>| {
        let on = &saved.trained_on;
        let named = |site: Option<&str>| site.unwrap_or("no site").to_owned();
        [
            ("width", saved.encoder.d_in().to_string()),
            ("width of what it writes", saved.encoder.d_out().to_string()),
            ("site", named(on.site())),
            ("site of what it writes", named(on.site_out())),
        ]
    };
    for saved in layers.values() {
        for ((what, found), (_, expected)) in like(saved).into_iter().zip(like(first)) {
            if found != expected {
                let of = saved.files.last().unwrap_or(&saved.folder);
                let other = first.files.last().unwrap_or(&first.folder);
                return Err(Error::Unsuited {
                    path: of.clone(),
                    what,
                    found,
                    expected: format!("{expected}, as {}", other.display()),
                });
            }
        }
    }
    Ok(())
}
