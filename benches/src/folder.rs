//! A model folder with random weights, for benches of loading.

use anyhow::Result;
use circuitscope::{HeadGrid, Seed, draw};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tempfile::TempDir;

use crate::Shape;

/// `config.json` and `model.safetensors` of a GPT-2, as transformers names its parts.
pub(crate) fn model_folder(shape: &Shape) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let HeadGrid { n_layers, n_heads } = shape.grid;
    let (d, mlp) = (shape.d_model, 4 * shape.d_model);
    let config = json!({
        "model_type": "gpt2", "n_layer": n_layers, "n_head": n_heads, "n_embd": d,
        "n_positions": 64, "vocab_size": shape.d_vocab, "n_inner": mlp,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "bos_token_id": 0,
    });
    fs_err::write(folder.path().join("config.json"), config.to_string())?;
    let mut sizes: Vec<(String, Vec<usize>)> = vec![
        ("wte.weight".into(), vec![shape.d_vocab, d]),
        ("wpe.weight".into(), vec![64, d]),
        ("ln_f.weight".into(), vec![d]),
        ("ln_f.bias".into(), vec![d]),
    ];
    for layer in 0..n_layers {
        for (name, size) in [
            ("ln_1.weight", vec![d]),
            ("ln_1.bias", vec![d]),
            ("attn.c_attn.weight", vec![d, 3 * d]),
            ("attn.c_attn.bias", vec![3 * d]),
            ("attn.c_proj.weight", vec![d, d]),
            ("attn.c_proj.bias", vec![d]),
            ("ln_2.weight", vec![d]),
            ("ln_2.bias", vec![d]),
            ("mlp.c_fc.weight", vec![d, mlp]),
            ("mlp.c_fc.bias", vec![mlp]),
            ("mlp.c_proj.weight", vec![mlp, d]),
            ("mlp.c_proj.bias", vec![d]),
        ] {
            sizes.push((format!("h.{layer}.{name}"), size));
        }
    }
    let mut rng = Seed::new(0).stream("bench/weights").rng();
    let data: Vec<Vec<u8>> = sizes
        .iter()
        .map(|(_, size)| {
            let count: usize = size.iter().product();
            let values = (0..count).map(|_| draw::between(&mut rng, -0.1, 0.1));
            values.flat_map(f32::to_le_bytes).collect()
        })
        .collect();
    let views = sizes
        .iter()
        .zip(&data)
        .map(|((name, size), bytes)| Ok((name, TensorView::new(Dtype::F32, size.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>>>()?;
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path)?;
    Ok(folder)
}
