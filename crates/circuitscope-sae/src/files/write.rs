//! Folders as SAELens 6 writes them, and sparsify what SAELens has not.

use std::io;
use std::path::Path;

use circuitscope_files::write_atomic;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Map, Value, json};

use super::sae_lens::SCHEMA;
use super::sparsify;
use super::{CFG_FILE, SaeMetadata, TrainedOn, WEIGHTS_FILE};
use crate::init::transposed;
use crate::tensors::check_finite;
use crate::{Error, Objective, Result, TrainedDictionary};

/// Name of the file of firing rates.
pub const SPARSITY_FILE: &str = "sparsity.safetensors";

/// The SAELens release whose format is written. SAELens takes older versions for its earlier
/// format.
const SAE_LENS_VERSION: &str = "6.0.0";

/// What SAELens adds to firing rates, of which it takes logarithms.
const LEAST_RATE: f64 = 1e-10;

/// A tensor: name, sizes, values row by row.
type Named = (&'static str, Vec<usize>, Vec<f32>);

/// What a folder is made of.
pub(super) struct Contents<'a> {
    pub(super) tensors: Vec<Named>,
    /// Keys of `cfg.json` beside those that all dictionaries here have in common.
    pub(super) keys: Value,
    pub(super) trained_on: &'a TrainedOn,
    pub(super) metadata: &'a SaeMetadata,
    pub(super) firing_rates: Option<&'a [f64]>,
}

/// Writes a trained dictionary into the folder `folder`, which is created if need be: `cfg.json`,
/// `sae_weights.safetensors` (f32) and, once the trainer has made a step, `sparsity.safetensors`: log10 of (firing rate +
/// 1e-10), `[d_sae]`. SAELens 6 reads it, and so does [`load_dir`](crate::load_dir). SAELens has no transcoder of the k largest: such a
/// one is written as sparsify does it, `cfg.json` and `sae.safetensors`, with what it was trained on under a key `circuitscope`
/// that sparsify passes over.
///
/// | objective | `architecture` of an autoencoder | of a transcoder |
/// |---|---|---|
/// | `TopK` | `topk` with `k`, not rescaled by decoder norms | sparsify's, of one width |
/// | `BatchTopK` | `jumprelu`, all thresholds the running mean of the smallest activation that was kept | `jumprelu_transcoder`, `jumprelu_skip_transcoder` |
/// | `JumpRelu` | `jumprelu` | `jumprelu_transcoder`, `jumprelu_skip_transcoder` |
/// | `Standard` | `standard` | `transcoder`, `skip_transcoder` |
/// | `Gated` | `gated`, its `b_enc` as `b_gate` | none: not trained |
///
/// `trained_on` becomes `metadata` of `cfg.json` under SAELens' names, and `metadata` its key `circuitscope`, with the
/// dictionary's settings and seed where it does not have them. Each file is complete or absent; `cfg.json` is written last, so
/// that a folder that has it is whole, and files of the other form are removed.
///
/// # Errors
/// [`Error::File`] naming the file that cannot be written, [`Error::NonFiniteWeight`], [`Error::Config`] for a transcoder of the
/// k largest that writes another width than it reads, which no format holds; nothing is written then.
///
/// # Examples
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_sae::synthetic::Synthetic;
/// use circuitscope_sae::{
///     Objective, SaeMetadata, StreamConfig, StreamTrainer, TrainedOn, load_dir, save_trained,
/// };
///
/// type B = burn_flex::Flex;
/// let (folder, device) = (tempfile::tempdir()?, Default::default());
/// let x = Synthetic::new(16, 8).stream(Seed::new(1))?.next_rows(64);
/// let config = StreamConfig::new(8, 16, Objective::BatchTopK { k: 2 });
/// let mut trainer = StreamTrainer::<B>::new(&config, &x, None, Seed::new(0), &device)?;
/// trainer.step_host(&x, None)?;
///
/// let mut trained_on = TrainedOn::default();
/// trained_on.hook_name = Some("blocks.3.attn.hook_z".to_owned());
/// save_trained(&trainer.dictionary()?, &SaeMetadata::default(), &trained_on, folder.path())?;
///
/// let saved = load_dir::<B>(folder.path(), &device)?;
/// assert_eq!(saved.architecture.name(), "jumprelu");
/// assert_eq!(saved.trained_on, trained_on);
/// assert_eq!(saved.metadata.stream, Some(config));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_trained(
    dictionary: &TrainedDictionary,
    metadata: &SaeMetadata,
    trained_on: &TrainedOn,
    folder: &Path,
) -> Result<()> {
    let TrainedDictionary {
        config,
        seed,
        w_enc,
        w_dec,
        b_enc,
        b_dec,
        threshold,
        w_skip,
        b_mag,
        r_mag,
        firing_rates,
        ..
    } = dictionary;
    let (d_in, d_out, d_sae) = (config.d_in, config.d_out, config.d_sae);
    let metadata = SaeMetadata {
        stream: metadata.stream.clone().or_else(|| Some(config.clone())),
        seed: metadata.seed.or(Some(*seed)),
        ..metadata.clone()
    };
    let architecture = match (config.objective, config.transcoder, config.skip) {
        (Objective::TopK { .. }, false, _) => "topk",
        (Objective::TopK { k }, true, _) => {
            return save_sparsify(dictionary, k, &metadata, trained_on, folder);
        }
        (Objective::Standard { .. }, false, _) => "standard",
        (Objective::Standard { .. }, true, false) => "transcoder",
        (Objective::Standard { .. }, true, true) => "skip_transcoder",
        (Objective::Gated { .. }, ..) => "gated",
        (_, false, _) => "jumprelu",
        (_, true, false) => "jumprelu_transcoder",
        (_, true, true) => "jumprelu_skip_transcoder",
    };
    let mut keys = json!({
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": config.centred,
        "architecture": architecture,
    });
    if config.transcoder {
        keys["d_out"] = json!(d_out);
    }
    let mut tensors = vec![
        ("W_enc", vec![d_in, d_sae], w_enc.clone()),
        ("W_dec", vec![d_sae, d_out], w_dec.clone()),
        ("b_dec", vec![d_out], b_dec.clone()),
    ];
    let bias = match config.objective {
        Objective::Gated { .. } => "b_gate",
        _ => "b_enc",
    };
    tensors.push((bias, vec![d_sae], b_enc.clone()));
    if let Objective::TopK { k } = config.objective {
        keys["k"] = json!(k);
        keys["rescale_acts_by_decoder_norm"] = json!(false);
    }
    for (name, shape, values) in [
        ("threshold", vec![d_sae], threshold),
        ("W_skip", vec![d_out, d_in], w_skip),
        ("b_mag", vec![d_sae], b_mag),
        ("r_mag", vec![d_sae], r_mag),
    ] {
        if let Some(values) = values {
            tensors.push((name, shape, values.clone()));
        }
    }
    write_folder(
        folder,
        Contents {
            tensors,
            keys,
            trained_on,
            metadata: &metadata,
            firing_rates: firing_rates.as_deref(),
        },
    )
}

/// Writes a transcoder of the k largest as sparsify does.
fn save_sparsify(
    dictionary: &TrainedDictionary,
    k: usize,
    metadata: &SaeMetadata,
    trained_on: &TrainedOn,
    folder: &Path,
) -> Result<()> {
    let config = &dictionary.config;
    let (d, d_sae) = (config.d_in, config.d_sae);
    if config.d_out != d {
        return Err(Error::Config {
            field: "objective",
            found: format!("TopK, of a transcoder from width {d} to {}", config.d_out),
            expected: "BatchTopK, JumpRelu or Standard: no format holds such a one of the k largest",
        });
    }
    let cfg_path = folder.join(CFG_FILE);
    let mut own = own(&cfg_path, metadata)?;
    own.insert("trained_on".to_owned(), json!(trained_on));
    let cfg = json!({
        "activation": "topk",
        "expansion_factor": d_sae.div_ceil(d),
        "normalize_decoder": false,
        "num_latents": d_sae,
        "k": k,
        "multi_topk": false,
        "skip_connection": config.skip,
        "transcode": true,
        "d_in": d,
        "circuitscope": own,
    });
    let mut tensors = vec![
        (
            "encoder.weight",
            vec![d_sae, d],
            transposed(&dictionary.w_enc, d, d_sae),
        ),
        ("encoder.bias", vec![d_sae], dictionary.b_enc.clone()),
        ("W_dec", vec![d_sae, d], dictionary.w_dec.clone()),
        ("b_dec", vec![d], dictionary.b_dec.clone()),
    ];
    if let Some(w_skip) = &dictionary.w_skip {
        tensors.push(("W_skip", vec![d, d], w_skip.clone()));
    }
    let rates = dictionary.firing_rates.as_deref();
    write_files(folder, sparsify::WEIGHTS_FILE, tensors, rates, &cfg)
}

/// Writes the files of a folder of SAELens, `cfg.json` last.
pub(super) fn write_folder(folder: &Path, contents: Contents<'_>) -> Result<()> {
    let Contents {
        tensors,
        keys,
        trained_on,
        metadata,
        firing_rates,
    } = contents;
    let cfg = cfg(&folder.join(CFG_FILE), keys, trained_on, metadata)?;
    write_files(folder, WEIGHTS_FILE, tensors, firing_rates, &cfg)
}

/// Writes weights under a name, firing rates and settings, in this order.
fn write_files(
    folder: &Path,
    name: &str,
    tensors: Vec<Named>,
    firing_rates: Option<&[f64]>,
    cfg: &Value,
) -> Result<()> {
    let weights_path = folder.join(name);
    let cfg_path = folder.join(CFG_FILE);
    let sparsity_path = folder.join(SPARSITY_FILE);
    for (name, shape, values) in &tensors {
        check_finite(&weights_path, name, shape, values)?;
    }
    let weights = safetensors(&weights_path, tensors)?;
    let sparsity = firing_rates.map(|rates| {
        let logarithms = rates.iter().map(|rate| (rate + LEAST_RATE).log10() as f32);
        let tensor = ("sparsity", vec![rates.len()], logarithms.collect());
        safetensors(&sparsity_path, vec![tensor])
    });
    let sparsity = sparsity.transpose()?;
    let mut text = serde_json::to_vec_pretty(cfg).map_err(|source| Error::Json {
        path: cfg_path.clone(),
        source,
    })?;
    text.push(b'\n');

    // A stale file beside new weights would describe them wrongly, and weights of the other form would stand beside them.
    let other = if name == WEIGHTS_FILE {
        sparsify::WEIGHTS_FILE
    } else {
        WEIGHTS_FILE
    };
    for path in [&cfg_path, &sparsity_path, &folder.join(other)] {
        if let Err(error) = fs_err::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
    }
    write_atomic(&weights_path, |out| out.write_all(&weights))?;
    if let Some(sparsity) = sparsity {
        write_atomic(&sparsity_path, |out| out.write_all(&sparsity))?;
    }
    write_atomic(&cfg_path, |out| out.write_all(&text))?;
    Ok(())
}

/// The bytes of a file of these tensors.
fn safetensors(path: &Path, tensors: Vec<Named>) -> Result<Vec<u8>> {
    let unwritable = |source| Error::Safetensors {
        path: path.to_owned(),
        source,
    };
    let bytes = |values: Vec<f32>| -> Vec<u8> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        bytes.collect()
    };
    let tensors: Vec<_> = tensors
        .into_iter()
        .map(|(name, shape, values)| (name, shape, bytes(values)))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<core::result::Result<Vec<_>, _>>()
        .map_err(unwritable)?;
    serialize(views, None).map_err(unwritable)
}

/// What stands under the key `circuitscope`.
fn own(path: &Path, metadata: &SaeMetadata) -> Result<Map<String, Value>> {
    let mut own = Map::from_iter([("schema".to_owned(), json!(SCHEMA))]);
    let fields = serde_json::to_value(metadata).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })?;
    if let Value::Object(fields) = fields {
        own.extend(fields);
    }
    Ok(own)
}

/// `cfg.json` of SAELens.
fn cfg(path: &Path, keys: Value, trained_on: &TrainedOn, metadata: &SaeMetadata) -> Result<Value> {
    let mut made = Map::from_iter([
        ("sae_lens_version".to_owned(), json!(SAE_LENS_VERSION)),
        ("sae_lens_training_version".to_owned(), Value::Null),
    ]);
    for (key, value) in [
        ("model_name", json!(trained_on.model)),
        ("hook_name", json!(trained_on.hook_name)),
        ("hook_name_out", json!(trained_on.hook_name_out)),
        ("hook_head_index", json!(trained_on.hook_head_index)),
        ("prepend_bos", json!(trained_on.prepend_bos)),
        (
            "model_from_pretrained_kwargs",
            json!(
                trained_on
                    .folded
                    .map(|folded| json!({ "fold_ln": folded, "center_writing_weights": folded }))
            ),
        ),
        (
            "seqpos_slice",
            json!(trained_on.first_position.map(|first| json!([first, null]))),
        ),
    ] {
        if !value.is_null() {
            made.insert(key.to_owned(), value);
        }
    }
    made.insert(
        "circuitscope".to_owned(),
        Value::Object(own(path, metadata)?),
    );

    let mut cfg = json!({
        "dtype": "float32",
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": if trained_on.site() == Some("attn.hook_z") { "hook_z" } else { "none" },
    });
    if let (Value::Object(cfg), Value::Object(keys)) = (&mut cfg, keys) {
        cfg.extend(keys);
        cfg.insert("metadata".to_owned(), Value::Object(made));
    }
    Ok(cfg)
}
