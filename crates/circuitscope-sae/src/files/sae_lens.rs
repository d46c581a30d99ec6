//! SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and of 3 to 5. Version 6 is written, too, with our own
//! settings under `metadata`.

use std::path::{Path, PathBuf};

use burn::tensor::Transaction;
use burn::tensor::backend::Backend;
use circuitscope_core::Seed;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::keys::Keys;
use super::{Format, Found, SavedSae, TrainedOn, tensor_names, write};
use crate::architecture::Settings;
use crate::read::{execute, floats};
use crate::tensors::{Tensors, bytes_of};
use crate::{
    Architecture, Dictionary, Error, Normalisation, Result, SparseAutoencoder, StreamConfig,
    TrainConfig,
};

/// Name of the settings file.
pub const CFG_FILE: &str = "cfg.json";
/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "sae_weights.safetensors";
/// Where SAELens keeps the factor of `expected_average_only_in` beside a checkpoint.
const SCALER_FILE: &str = "activation_scaler.json";

/// Version of what is written under `metadata.circuitscope`.
pub(super) const SCHEMA: u64 = 1;
/// The tensors that are written.
const TENSORS: [&str; 4] = ["W_enc", "W_dec", "b_enc", "b_dec"];
/// Of ones, in some folders of SAELens 3.
const SCALING: &str = "scaling_factor";

/// Keys of version 6 that are read.
const READ: [&str; 7] = [
    "d_in",
    "d_sae",
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "architecture",
    "metadata",
];
/// Keys of architectures that choose features by the norms of their atoms.
const OF_TOPK: [&str; 2] = ["k", "rescale_acts_by_decoder_norm"];
/// The key of transcoders.
const OF_TRANSCODERS: [&str; 1] = ["d_out"];
/// Keys that cannot change what a vector is encoded as: how numbers were stored, and how a checkpoint was trained.
const HARMLESS: [&str; 18] = [
    "dtype",
    "device",
    "aux_loss_coefficient",
    "decoder_init_norm",
    "jumprelu_bandwidth",
    "jumprelu_init_threshold",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_ste_to_input",
    "jumprelu_tanh_scale",
    "l0_coefficient",
    "l0_warm_up_steps",
    "l1_coefficient",
    "l1_warm_up_steps",
    "lp_norm",
    "pre_act_loss_coefficient",
    "target_l0",
    "topk_threshold_lr",
    "use_sparse_activations",
];
/// Keys of versions 3 to 5 beside these; those that are read say what it was trained on, and the activation function.
const OLD: [&str; 22] = [
    "activation_fn",
    "activation_fn_kwargs",
    "activation_fn_str",
    "context_size",
    "dataset_path",
    "dataset_trust_remote_code",
    "finetuning_scaling_factor",
    "hook_head_index",
    "hook_head_index_out",
    "hook_layer",
    "hook_name",
    "hook_name_out",
    "hook_point",
    "hook_point_head_index",
    "hook_point_layer",
    "model_from_pretrained_kwargs",
    "model_name",
    "neuronpedia_id",
    "prepend_bos",
    "sae_lens_training_version",
    "sae_lens_version",
    "seqpos_slice",
];

/// What a saved dictionary says about its making. All of it is optional: a folder that SAELens
/// wrote says nothing of the kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_", strip_option)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
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
    /// How it was trained on a stream of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamConfig>,
    /// From which seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// Whatever else made it: command, versions, hashes of the data.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub provenance: Map<String, Value>,
}

/// Writes `sae` into the folder `folder`, which is created if need be: `cfg.json` and
/// `sae_weights.safetensors` (f32), readable by SAELens 6 and by [`load_dir`](crate::load_dir).
///
/// `metadata` becomes `metadata.circuitscope` of `cfg.json`. Each file is complete or absent;
/// `cfg.json` is written last, so that a folder that has it is whole.
///
/// # Errors
/// [`Error::File`] naming the file that cannot be written, [`Error::Device`] if the weights cannot
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
/// let metadata = SaeMetadata::default().with_seed(Seed::new(0));
/// save_dir(&sae, &metadata, folder.path())?;
///
/// let saved = load_dir::<B>(folder.path(), &device)?;
/// assert_eq!(saved.metadata, metadata);
/// assert_eq!(saved.encoder.atoms().map(|atoms| atoms.to_data()), Some(sae.w_dec.to_data()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_dir<B: Backend>(
    sae: &SparseAutoencoder<B>,
    metadata: &SaeMetadata,
    folder: &Path,
) -> Result<()> {
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
    let tensors = TENSORS.into_iter().zip(shapes).zip(read);
    let tensors = tensors.map(|((name, shape), values)| {
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        (name, shape, values)
    });
    let keys = json!({
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": true,
        "architecture": "standard",
    });
    write::write_folder(
        folder,
        write::Contents {
            tensors: tensors.collect(),
            keys,
            trained_on: &TrainedOn::default(),
            metadata,
            firing_rates: None,
        },
    )
}

pub(super) fn load<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    let mut cfg = Keys::read(folder.join(CFG_FILE))?;
    let mut files = vec![cfg.path().to_owned()];
    // What a folder is comes before its details.
    let format = format_of(&cfg)?;
    let Named {
        name,
        architecture,
        transcodes,
        skip,
    } = architecture_of(&cfg, format)?;
    let by_norm = matches!(architecture, Architecture::TopK | Architecture::BatchTopK);
    let old: &[&str] = if format == Format::SaeLens5 {
        &OLD
    } else {
        &[]
    };
    let more: &[&str] = if by_norm { &OF_TOPK } else { &OF_TOPK[1..] };
    let out: &[&str] = if transcodes { &OF_TRANSCODERS } else { &[] };
    cfg.only(&[&READ, &HARMLESS, old, more, out])?;

    let (d_in, d_sae) = (cfg.size("d_in")?, cfg.size("d_sae")?);
    let d_out = if transcodes { cfg.size("d_out")? } else { d_in };
    let k = match (architecture, format) {
        (Architecture::TopK, Format::SaeLens5) => {
            let kwargs = cfg.get("activation_fn_kwargs");
            let of_function = kwargs.and_then(|kwargs| kwargs.get("k"));
            match cfg.get("k") {
                Some(found) => cfg.k("k", Some(found), d_sae)?,
                None => cfg.k("activation_fn_kwargs.k", of_function, d_sae)?,
            }
        }
        (Architecture::TopK, _) => cfg.k("k", cfg.get("k"), d_sae)?,
        // Of a batch: what is read is the threshold that stands for it.
        _ => 0,
    };
    let by_decoder_norm = cfg.flag("rescale_acts_by_decoder_norm", false)?;
    if by_decoder_norm && !by_norm {
        let found = Value::Bool(true);
        let expected = format!("false with architecture {name}");
        return Err(cfg.wrong("rescale_acts_by_decoder_norm", Some(&found), &expected));
    }
    // Heads side by side are one vector; whose they are is for whoever encodes.
    if cfg.get("reshape_activations").is_some() {
        cfg.one_of("reshape_activations", &["none", "hook_z"], None)?;
    }
    // SAELens' default is true.
    let centred = cfg.flag("apply_b_dec_to_input", true)?;
    if centred && transcodes {
        let expected = format!("false with architecture {name}, whose b_dec is of what it writes");
        let key = "apply_b_dec_to_input";
        return Err(cfg.wrong(key, cfg.get(key), &expected));
    }
    let normalisation = normalisation(&cfg, format, folder, d_in, &mut files)?;
    if transcodes && matches!(normalisation, Normalisation::Scale(_)) {
        let expected = format!(
            "\"none\", \"constant_norm_rescale\" or \"layer_norm\" with architecture {name}"
        );
        let key = "normalize_activations";
        return Err(cfg.wrong(key, cfg.get(key), &expected));
    }
    let (trained_on, metadata) = made(&mut cfg, format)?;

    let path = folder.join(WEIGHTS_FILE);
    let bytes = bytes_of(&path)?;
    let tensors = Tensors::of_safetensors(&path, &bytes)?;
    let mut names = tensor_names(architecture, skip);
    if tensors.has(SCALING) {
        tensors.floats_that((SCALING, &[d_sae], "[d_sae]"), "ones", |value| value == 1.0)?;
        names.push(SCALING);
    }
    tensors.only(&names)?;
    if skip {
        tensors.require(&["W_skip"])?;
    }
    files.push(path.clone());
    Found {
        format,
        architecture,
        settings: Settings {
            d_in,
            d_out,
            d_sae,
            k,
            by_decoder_norm,
            transcodes,
            centred,
            normalisation,
        },
        trained_on,
        metadata,
        folder,
        files,
    }
    .read(&tensors, device)
}

/// Tells the version by its keys.
///
/// # Errors
/// [`Error::OtherFormat`] for sparsify, and for what SAELens 3 to 5 has beyond an architecture of version 6.
fn format_of(cfg: &Keys) -> Result<Format> {
    let other = |found: String| Error::OtherFormat {
        path: cfg.path().to_owned(),
        found,
    };
    let sparsify = [
        "expansion_factor",
        "multi_topk",
        "num_latents",
        "skip_connection",
    ];
    if !cfg.has("architecture") && sparsify.iter().any(|key| cfg.has(key)) {
        return Err(other(format!(
            "a dictionary of sparsify, which lies in sae.safetensors, not in {WEIGHTS_FILE}"
        )));
    }
    let old = [
        "activation_fn",
        "activation_fn_str",
        "hook_layer",
        "hook_point",
        "finetuning_scaling_factor",
    ];
    if !old.iter().any(|key| cfg.has(key)) {
        return Ok(Format::SaeLens6);
    }
    let version = cfg.get("sae_lens_training_version").and_then(Value::as_str);
    let tool = version.map_or_else(|| "SAELens 3 to 5".to_owned(), |v| format!("SAELens {v}"));
    if let Some(activation) = activation(cfg)
        && ![json!("relu"), json!("topk")].contains(activation)
    {
        return Err(other(format!(
            "a dictionary of {tool} with activation_fn_str {activation}, where \"relu\" and \"topk\" are read"
        )));
    }
    if let Some(found) = cfg.get("finetuning_scaling_factor")
        && *found != json!(false)
    {
        return Err(other(format!(
            "a dictionary of {tool} with finetuning_scaling_factor {found}, where false is read"
        )));
    }
    Ok(Format::SaeLens5)
}

/// Of versions 3 to 5.
fn activation(cfg: &Keys) -> Option<&Value> {
    cfg.get("activation_fn_str").or(cfg.get("activation_fn"))
}

/// What a name of SAELens stands for.
#[derive(Debug, Clone, Copy)]
struct Named {
    name: &'static str,
    architecture: Architecture,
    transcodes: bool,
    skip: bool,
}

impl Named {
    const fn transcoder(name: &'static str, architecture: Architecture, skip: bool) -> Self {
        Self {
            name,
            architecture,
            transcodes: true,
            skip,
        }
    }

    fn all() -> Vec<Self> {
        use Architecture::{JumpRelu, Standard};
        let known = Architecture::ALL.into_iter();
        let known = known.filter(|architecture| *architecture != Architecture::GroupMax);
        let autoencoders = known.map(|architecture| Self {
            name: architecture.name(),
            architecture,
            transcodes: false,
            skip: false,
        });
        let transcoders = [
            Self::transcoder("transcoder", Standard, false),
            Self::transcoder("skip_transcoder", Standard, true),
            Self::transcoder("jumprelu_transcoder", JumpRelu, false),
            Self::transcoder("jumprelu_skip_transcoder", JumpRelu, true),
        ];
        autoencoders.chain(transcoders).collect()
    }
}

fn architecture_of(cfg: &Keys, format: Format) -> Result<Named> {
    let default = (format == Format::SaeLens5).then_some("standard");
    let all = Named::all();
    let names: Vec<&'static str> = all.iter().map(|named| named.name).collect();
    let name = cfg.one_of("architecture", &names, default)?;
    let mut all = all.into_iter();
    let Some(named) = all.find(|named| named.name == name) else {
        unreachable!("one of the names")
    };
    // What version 6 calls an architecture was an activation function.
    if format == Format::SaeLens5 && activation(cfg) == Some(&json!("topk")) {
        return match named.architecture {
            Architecture::Standard | Architecture::TopK if !named.transcodes => Ok(Named {
                architecture: Architecture::TopK,
                ..named
            }),
            _ => Err(cfg.wrong(
                "activation_fn_str",
                activation(cfg),
                &format!("\"relu\" with architecture {name}"),
            )),
        };
    }
    Ok(named)
}

fn normalisation(
    cfg: &Keys,
    format: Format,
    folder: &Path,
    d_in: usize,
    files: &mut Vec<PathBuf>,
) -> Result<Normalisation> {
    const KEY: &str = "normalize_activations";
    const AVERAGE: &str = "expected_average_only_in";
    let name = match cfg.get(KEY) {
        None => "none",
        Some(Value::Bool(true)) if format == Format::SaeLens5 => AVERAGE,
        Some(Value::Bool(false)) if format == Format::SaeLens5 => "none",
        Some(_) => cfg.one_of(
            KEY,
            &["none", AVERAGE, "constant_norm_rescale", "layer_norm"],
            None,
        )?,
    };
    match name {
        AVERAGE => {
            let scaler = folder.join(SCALER_FILE);
            let wanted = format!(
                "\"none\", or the factor of the input as \"scaling_factor\" in {SCALER_FILE} beside it: {AVERAGE} is \
                 relative to activations that are not in the folder"
            );
            if !scaler.exists() {
                return Err(cfg.wrong(KEY, cfg.get(KEY), &wanted));
            }
            let scaler = Keys::read(scaler)?;
            let found = scaler.get("scaling_factor");
            let factor = found.and_then(Value::as_f64);
            let factor = factor.filter(|factor| factor.is_normal() && *factor > 0.0);
            files.push(scaler.path().to_owned());
            factor
                .map(Normalisation::Scale)
                .ok_or_else(|| scaler.wrong("scaling_factor", found, "a number above 0"))
        }
        "constant_norm_rescale" => Ok(Normalisation::ConstantNorm),
        "layer_norm" if d_in < 2 => Err(cfg.wrong(KEY, cfg.get(KEY), "\"none\" with d_in 1")),
        "layer_norm" => Ok(Normalisation::LayerNorm),
        _ => Ok(Normalisation::None),
    }
}

/// What it was trained on, and what this crate wrote.
fn made(cfg: &mut Keys, format: Format) -> Result<(TrainedOn, SaeMetadata)> {
    let mut metadata = match cfg.take("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(metadata)) => metadata,
        Some(other) => return Err(cfg.wrong("metadata", Some(&other), "an object")),
    };
    let own = own_metadata(
        cfg,
        "metadata.circuitscope",
        metadata.remove("circuitscope"),
    )?;
    let trained_on = if format == Format::SaeLens5 {
        TrainedOn::of_sae_lens(cfg, str::to_owned, |key| cfg.get(key).cloned(), None)?
    } else {
        let name = |key: &str| format!("metadata.{key}");
        // Version 6 loads models without processing, unless it is asked for.
        TrainedOn::of_sae_lens(cfg, name, |key| metadata.get(key).cloned(), Some(false))?
    };
    Ok((trained_on, own))
}

/// What this crate wrote under the key `field`.
pub(super) fn own_metadata(cfg: &Keys, field: &str, own: Option<Value>) -> Result<SaeMetadata> {
    let mut own = match own {
        None => return Ok(SaeMetadata::default()),
        Some(Value::Object(own)) => own,
        Some(other) => return Err(cfg.wrong(field, Some(&other), "an object")),
    };
    let schema = own.remove("schema");
    if schema != Some(json!(SCHEMA)) {
        let key = format!("{field}.schema");
        return Err(cfg.wrong(&key, schema.as_ref(), &SCHEMA.to_string()));
    }
    let own = Value::Object(own);
    SaeMetadata::deserialize(&own).map_err(|error| cfg.wrong(field, Some(&own), &error.to_string()))
}
