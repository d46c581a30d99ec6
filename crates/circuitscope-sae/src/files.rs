//! The folder of a saved dictionary: `cfg.json` and `sae_weights.safetensors`, as SAELens 6 writes
//! and reads them (`StandardSAE.load_from_disk`), with our own settings under `metadata`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Transaction;
use burn::tensor::backend::Backend;
use circuitscope_core::files::{self, write_atomic};
use circuitscope_core::{Seed, nearest};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::autoencoder::HostWeights;
use crate::formats::{Format, OLD_FIELDS};
use crate::read::{execute, floats};
use crate::{Dictionary, Error, Result, SparseAutoencoder, TrainConfig};

/// Name of the settings file.
pub const CFG_FILE: &str = "cfg.json";
/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "sae_weights.safetensors";

/// The SAELens release whose format is written. SAELens takes older versions for its earlier
/// format.
const SAE_LENS_VERSION: &str = "6.0.0";
/// Version of what is written under `metadata.circuitscope`.
const SCHEMA: u64 = 1;

const FIELDS: [&str; 9] = [
    "d_in",
    "d_sae",
    "dtype",
    "device",
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "architecture",
    "metadata",
];
const TENSORS: [&str; 4] = ["W_enc", "W_dec", "b_enc", "b_dec"];

/// What a saved dictionary says about its making. All of it is optional: a folder that SAELens
/// wrote says nothing of the kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaeMetadata {
    /// Which vectors have unit length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<Dictionary>,
    /// Weight of the sparsity penalty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l1_coefficient: Option<f64>,
    /// How it was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainConfig>,
    /// From which seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// Whatever else made it: command, versions, hashes of the data.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub provenance: Map<String, Value>,
}

/// A dictionary read from a folder.
#[derive(Debug, Clone)]
pub struct SavedSae<B: Backend> {
    /// The autoencoder.
    pub sae: SparseAutoencoder<B>,
    /// What the folder says about its making.
    pub metadata: SaeMetadata,
}

/// Writes `sae` into the folder `folder`, which is created if need be: `cfg.json` and
/// `sae_weights.safetensors` (f32), readable by SAELens 6 and by [`load_dir`].
///
/// `metadata` becomes `metadata.circuitscope` of `cfg.json`. Each file is complete or absent;
/// `cfg.json` is written last, so that a folder that has it is whole.
///
/// # Errors
/// [`Error::Io`] naming the file that cannot be written, [`Error::Device`] if the weights cannot
/// be read back, [`Error::NonFiniteWeight`] if they hold NaN or infinite values, in which case
/// nothing is written.
///
/// # Examples
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_sae::{SaeConfig, SaeMetadata, load_dir, save_dir};
///
/// type B = burn_flex::Flex;
/// let device = Default::default();
/// let folder = tempfile::tempdir()?;
/// let sae = SaeConfig::new(6).with_d_sae(4).init::<B>(Seed::new(0), &device)?;
/// let metadata = SaeMetadata { seed: Some(Seed::new(0)), ..SaeMetadata::default() };
/// save_dir(&sae, &metadata, folder.path())?;
///
/// let saved = load_dir::<B>(folder.path(), &device)?;
/// assert_eq!(saved.metadata, metadata);
/// assert_eq!(saved.sae.w_dec.to_data(), sae.w_dec.to_data());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_dir<B: Backend>(
    sae: &SparseAutoencoder<B>,
    metadata: &SaeMetadata,
    folder: &Path,
) -> Result<()> {
    let weights_path = folder.join(WEIGHTS_FILE);
    let cfg_path = folder.join(CFG_FILE);
    let (d_in, d_sae) = (sae.d_in(), sae.d_sae());
    let read = floats(execute(
        Transaction::default()
            .register(sae.w_enc.clone())
            .register(sae.w_dec.clone())
            .register(sae.b_enc.clone())
            .register(sae.b_dec.clone()),
    )?);
    let shapes = [
        vec![d_in, d_sae],
        vec![d_sae, d_in],
        vec![d_sae],
        vec![d_in],
    ];
    let mut tensors = Vec::with_capacity(TENSORS.len());
    for ((name, shape), values) in TENSORS.into_iter().zip(shapes).zip(read) {
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        check_finite(&weights_path, name, &shape, &values)?;
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        tensors.push((name, shape, bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<core::result::Result<Vec<_>, _>>()
        .map_err(|source| safetensors_error(&weights_path, source))?;
    let weights =
        serialize(views, None).map_err(|source| safetensors_error(&weights_path, source))?;

    let mut own = Map::from_iter([("schema".to_owned(), json!(SCHEMA))]);
    if let Value::Object(fields) =
        serde_json::to_value(metadata).map_err(|source| json_error(&cfg_path, source))?
    {
        own.extend(fields);
    }
    let cfg = json!({
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": true,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "architecture": "standard",
        "metadata": {
            "sae_lens_version": SAE_LENS_VERSION,
            "sae_lens_training_version": null,
            "circuitscope": own,
        },
    });
    let mut cfg =
        serde_json::to_vec_pretty(&cfg).map_err(|source| json_error(&cfg_path, source))?;
    cfg.push(b'\n');

    // A stale `cfg.json` beside new weights would describe them wrongly.
    if let Err(error) = fs_err::remove_file(&cfg_path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    write_atomic(&weights_path, |out| out.write_all(&weights))?;
    write_atomic(&cfg_path, |out| out.write_all(&cfg))?;
    Ok(())
}

/// Reads a dictionary from the folder `folder`: one that [`save_dir`] wrote, or any standard (ReLU)
/// autoencoder of SAELens 6, or of 3 to 5, that needs no rescaling of its input. Weights in f16 or bf16 are
/// widened.
///
/// # Errors
/// Names the file, the field or tensor, what was found and what was expected:
/// [`Error::Io`], [`Error::Json`], [`Error::OtherFormat`], [`Error::Field`] (among them an architecture other than
/// `standard`), [`Error::UnknownField`], [`Error::Safetensors`], [`Error::MissingTensor`],
/// [`Error::UnexpectedTensor`], [`Error::Shape`], [`Error::Dtype`], [`Error::NonFiniteWeight`].
pub fn load_dir<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    let cfg = Cfg::read(folder.join(CFG_FILE))?;
    let host = read_weights(&folder.join(WEIGHTS_FILE), cfg.d_in, cfg.d_sae)?;
    Ok(SavedSae {
        sae: SparseAutoencoder::from_host(&host, device),
        metadata: cfg.metadata,
    })
}

/// What `cfg.json` says, after checking that nothing in it asks for another computation than ours.
struct Cfg {
    d_in: usize,
    d_sae: usize,
    metadata: SaeMetadata,
}

impl Cfg {
    fn read(path: PathBuf) -> Result<Self> {
        let text = files::read(&path)?;
        let mut fields: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|source| json_error(&path, source))?;
        // What a folder is comes before its details.
        let format = Format::of(&path, &fields)?;
        let fields_of = Fields { path: &path };
        let (architecture, more): (_, &[&str]) = match format {
            Format::SaeLens6 => (None, &[]),
            Format::SaeLens5 => (Some("standard"), &OLD_FIELDS),
        };
        fields_of.one_of(&fields, "architecture", &["standard"], architecture)?;
        let known = || FIELDS.into_iter().chain(more.iter().copied());
        if let Some(field) = fields
            .keys()
            .find(|field| !known().any(|known| known == *field))
        {
            return Err(Error::UnknownField {
                nearest: nearest(field, known()).map(str::to_owned),
                field: field.clone(),
                path,
            });
        }
        let d_in = fields_of.size(&fields, "d_in")?;
        let d_sae = fields_of.size(&fields, "d_sae")?;
        fields_of.one_of(&fields, "normalize_activations", &["none"], Some("none"))?;
        fields_of.one_of(&fields, "reshape_activations", &["none"], Some("none"))?;
        // SAELens' default is true, and without it the input bias is not subtracted.
        let centred = fields.get("apply_b_dec_to_input");
        if centred.is_some_and(|value| *value != Value::Bool(true)) {
            return Err(fields_of.wrong("apply_b_dec_to_input", centred, "true", None));
        }
        let metadata = match fields.remove("metadata") {
            None => SaeMetadata::default(),
            Some(Value::Object(mut metadata)) => {
                fields_of.own_metadata(metadata.remove("circuitscope"))?
            }
            Some(other) => {
                return Err(fields_of.wrong("metadata", Some(&other), "an object", None));
            }
        };
        Ok(Self {
            d_in,
            d_sae,
            metadata,
        })
    }
}

/// Checks of the fields of one `cfg.json`.
struct Fields<'a> {
    path: &'a Path,
}

impl Fields<'_> {
    fn wrong(
        &self,
        field: &str,
        found: Option<&Value>,
        expected: &str,
        nearest: Option<&str>,
    ) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: field.to_owned(),
            found: found.map_or_else(|| "missing".to_owned(), Value::to_string),
            expected: expected.to_owned(),
            nearest: nearest.map(str::to_owned),
        }
    }

    fn size(&self, fields: &Map<String, Value>, field: &str) -> Result<usize> {
        let found = fields.get(field);
        found
            .and_then(Value::as_u64)
            .filter(|size| (1..=i32::MAX as u64).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| self.wrong(field, found, "an integer of at least 1", None))
    }

    fn one_of(
        &self,
        fields: &Map<String, Value>,
        field: &str,
        choices: &[&str],
        default: Option<&str>,
    ) -> Result<()> {
        let found = fields.get(field);
        let name = match found {
            None => default,
            Some(value) => value.as_str(),
        };
        if name.is_some_and(|name| choices.contains(&name)) {
            return Ok(());
        }
        let expected: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
        let near = name.and_then(|name| nearest(name, choices.iter().copied()));
        Err(self.wrong(field, found, &expected.join(" or "), near))
    }

    fn own_metadata(&self, own: Option<Value>) -> Result<SaeMetadata> {
        const FIELD: &str = "metadata.circuitscope";
        let mut own = match own {
            None => return Ok(SaeMetadata::default()),
            Some(Value::Object(own)) => own,
            Some(other) => return Err(self.wrong(FIELD, Some(&other), "an object", None)),
        };
        let schema = own.remove("schema");
        if schema != Some(json!(SCHEMA)) {
            return Err(self.wrong(
                "metadata.circuitscope.schema",
                schema.as_ref(),
                &SCHEMA.to_string(),
                None,
            ));
        }
        let own = Value::Object(own);
        SaeMetadata::deserialize(&own)
            .map_err(|error| self.wrong(FIELD, Some(&own), &error.to_string(), None))
    }
}

fn read_weights(path: &Path, d_in: usize, d_sae: usize) -> Result<HostWeights> {
    // A dictionary may be larger than what is read within bounds.
    let bytes = if files::is_regular(path) {
        fs_err::read(path)?
    } else {
        Arc::unwrap_or_clone(files::read(path)?)
    };
    let file =
        SafeTensors::deserialize(&bytes).map_err(|source| safetensors_error(path, source))?;
    let found: BTreeMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
    // A misspelt tensor is both missing and unexpected: the latter names what it should be.
    if let Some(tensor) = found.keys().find(|name| !TENSORS.contains(&name.as_str())) {
        return Err(Error::UnexpectedTensor {
            path: path.to_owned(),
            tensor: tensor.clone(),
            nearest: nearest(tensor, TENSORS).map(str::to_owned),
        });
    }
    let read = |tensor: &'static str, expected: &[usize], axes: &'static str| {
        let Some(view) = found.get(tensor) else {
            return Err(Error::MissingTensor {
                path: path.to_owned(),
                tensor,
                found: found.keys().cloned().collect(),
            });
        };
        if view.shape() != expected {
            return Err(Error::Shape {
                path: path.to_owned(),
                tensor,
                expected: expected.to_vec(),
                found: view.shape().to_vec(),
                axes,
            });
        }
        let values = widened(path, tensor, view)?;
        check_finite(path, tensor, expected, &values)?;
        Ok(values)
    };
    Ok(HostWeights {
        d_in,
        d_sae,
        w_enc: read("W_enc", &[d_in, d_sae], "[d_in, d_sae]")?,
        w_dec: read("W_dec", &[d_sae, d_in], "[d_sae, d_in]")?,
        b_enc: read("b_enc", &[d_sae], "[d_sae]")?,
        b_dec: read("b_dec", &[d_in], "[d_in]")?,
    })
}

fn widened(path: &Path, tensor: &'static str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    let halves = || view.data().chunks_exact(2).map(|b| [b[0], b[1]]);
    Ok(match view.dtype() {
        Dtype::F32 => view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        Dtype::F16 => halves()
            .map(|bytes| half::f16::from_le_bytes(bytes).to_f32())
            .collect(),
        Dtype::BF16 => halves()
            .map(|bytes| half::bf16::from_le_bytes(bytes).to_f32())
            .collect(),
        other => {
            return Err(Error::Dtype {
                path: path.to_owned(),
                tensor,
                found: format!("{other:?}"),
            });
        }
    })
}

fn check_finite(path: &Path, tensor: &'static str, shape: &[usize], values: &[f32]) -> Result<()> {
    let Some(at) = values.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    let index = match *shape {
        [_, width] => vec![at / width, at % width],
        _ => vec![at],
    };
    Err(Error::NonFiniteWeight {
        path: path.to_owned(),
        tensor,
        index,
        value: values[at],
    })
}

fn json_error(path: &Path, source: serde_json::Error) -> Error {
    Error::Json {
        path: path.to_owned(),
        source,
    }
}

fn safetensors_error(path: &Path, source: safetensors::SafeTensorError) -> Error {
    Error::Safetensors {
        path: path.to_owned(),
        source,
    }
}
