//! A family of models that is defined here, outside of the crate that loads models.

use std::path::Path;

use burn_flex::{Flex, FlexDevice};
use circuitscope::model::family::{
    ACTIVATIONS, Family, HostAttention, HostBlock, HostDecoder, HostEmbedding, HostMlp, HostNorm,
    HostUnembedding, Keys, Layout, Matrix, Reader,
};
use circuitscope::model::{
    Activation, Decoder, DecoderConfig, Error, LoadSettings, Loaded, Mlp, PaddingSide, Processing,
    TokenBatch, load_dir, save_gpt2,
};
use circuitscope::{Exec, NoProgress, Seed};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::on_all_cores;

/// GPT-2 in other words: its own keys, its own names, queries, keys and values apart and output-first.
struct Toy {
    /// Puts keys where queries belong, and forgets the values.
    careless: bool,
}

const TOY: Toy = Toy { careless: false };

impl Family for Toy {
    fn name(&self) -> &'static str {
        "Toy"
    }

    fn model_type(&self) -> Option<&str> {
        Some("toy")
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig, Error> {
        let d_model = keys.size("width")?;
        let n_heads = keys.divisor_or("heads", None, d_model, "width")?;
        let (n_layers, d_vocab) = (keys.layers("depth")?, keys.size("words")?);
        let gpt2 = DecoderConfig::gpt2(n_layers, n_heads, d_model, keys.size("places")?, d_vocab);
        let activation = keys.choice("curve", &ACTIVATIONS)?;
        let config = gpt2
            .with_tied_embeddings(keys.flag_or("tied", true)?)
            .with_mlp(Some(Mlp::new(
                keys.size_or("inner", Some(4 * d_model))?,
                activation.unwrap_or(Activation::GeluTanh),
            )));
        keys.finish(&["colour"])?;
        Ok(config)
    }

    fn layout(&self) -> Option<Layout> {
        Some(Layout {
            base: "body.",
            embedding: "body.words",
            head: "head",
        })
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        let config = reader.config();
        HostEmbedding {
            w_e: reader.matrix("body.words", config.d_vocab, config.d_model),
            w_pos: Some(reader.matrix("body.places", config.n_ctx, config.d_model)),
        }
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let d = reader.config().d_model;
        let at = |name: &str| format!("body.{layer}.{name}");
        let [q, k, v] = ["q", "k", "v"].map(|port| reader.matrix(&at(port), d, d));
        let ports = if self.careless {
            vec![k, q]
        } else {
            vec![q, k, v]
        };
        HostAttention {
            ln1: Some(reader.layer_norm(&at("before"))),
            w_qkv: Matrix::side_by_side(&ports),
            b_qkv: reader.vector(&at("qkv_bias"), 3 * d),
            qk_norm: None,
            w_o: reader.linear(&at("out"), d, d),
            b_o: reader.vector(&at("out_bias"), d),
            ln1_post: None,
        }
    }

    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        let at = |name: &str| format!("body.{layer}.{name}");
        let layers = [&at("read"), &at("write")];
        reader.plain_mlp(&at("between"), layers.map(String::as_str), true)
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        HostUnembedding {
            ln_final: Some(reader.layer_norm("body.after")),
            w_u: reader.untied("head"),
            b_u: None,
        }
    }

    fn is_leftover(&self, name: &str) -> bool {
        name == "clock"
    }
}

/// A model in which every weight counts, biases and gains too.
fn model() -> Decoder<Flex> {
    let config = DecoderConfig::gpt2(2, 2, 8, 16, 11);
    let mut host = HostDecoder::from_decoder(&config.init::<Flex>(Seed::new(4), &FlexDevice));
    let mut count = 0;
    let mut moved = |values: &mut Vec<f32>| {
        for value in values {
            count += 1;
            *value += 0.01 * ((count * 37) % 19) as f32 - 0.09;
        }
    };
    for HostBlock { attention, mlp } in &mut host.blocks {
        let mlp = mlp.as_mut().unwrap();
        for vector in [
            &mut attention.b_qkv,
            &mut attention.b_o,
            &mut mlp.b_in,
            &mut mlp.b_out,
        ] {
            moved(vector);
        }
        for norm in [&mut attention.ln1, &mut mlp.ln2].into_iter().flatten() {
            moved(&mut norm.w);
            moved(norm.b.as_mut().unwrap());
        }
    }
    host.into_decoder(config, &FlexDevice).unwrap()
}

/// Writes a model in the layout of the family.
fn write(model: &Decoder<Flex>, folder: &Path, config: &Value) {
    let host = HostDecoder::from_decoder(model);
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let mut matrix = |name: &str, matrix: &Matrix| {
        let shape = vec![matrix.rows, matrix.cols];
        tensors.push((name.to_owned(), shape, matrix.data.clone()));
    };
    let mut vectors: Vec<(String, Vec<f32>)> = vec![("clock".to_owned(), vec![1.0])];
    let mut norm = |name: String, norm: &Option<HostNorm>| {
        let norm = norm.as_ref().unwrap();
        vectors.push((format!("{name}.weight"), norm.w.clone()));
        vectors.push((format!("{name}.bias"), norm.b.clone().unwrap()));
    };
    let mut biases: Vec<(String, Vec<f32>)> = Vec::new();
    matrix("body.words", &host.embedding.w_e);
    matrix("body.places", host.embedding.w_pos.as_ref().unwrap());
    let d = host.embedding.w_e.cols;
    for (layer, HostBlock { attention, mlp }) in host.blocks.iter().enumerate() {
        let at = |name: &str| format!("body.{layer}.{name}");
        let mlp = mlp.as_ref().unwrap();
        // Output-first: rows of queries, of keys and of values.
        let qkv = attention.w_qkv.transposed();
        for (port, name) in ["q", "k", "v"].into_iter().enumerate() {
            matrix(&at(name), &qkv.rows(d, port * d..(port + 1) * d));
        }
        matrix(&at("out"), &attention.w_o.transposed());
        matrix(&at("read.weight"), &mlp.w_in.transposed());
        matrix(&at("write.weight"), &mlp.w_out.transposed());
        norm(at("before"), &attention.ln1);
        norm(at("between"), &mlp.ln2);
        biases.push((at("qkv_bias"), attention.b_qkv.clone()));
        biases.push((at("out_bias"), attention.b_o.clone()));
        biases.push((at("read.bias"), mlp.b_in.clone()));
        biases.push((at("write.bias"), mlp.b_out.clone()));
    }
    norm("body.after".to_owned(), &host.unembedding.ln_final);
    matrix("head", &host.unembedding.w_u.unwrap().transposed());
    let vectors = vectors.into_iter().chain(biases);
    tensors.extend(vectors.map(|(name, values)| (name, vec![values.len()], values)));
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    let file = safetensors::serialize(views, None).unwrap();
    fs_err::write(folder.join("model.safetensors"), file).unwrap();
    fs_err::write(folder.join("config.json"), config.to_string()).unwrap();
}

fn config() -> Value {
    json!({
        "model_type": "toy", "width": 8, "heads": 2, "depth": 2, "words": 11, "places": 16,
        "tied": false, "colour": "red",
    })
}

fn load(folder: &Path, family: &dyn Family) -> Result<Loaded<Flex>, Error> {
    let settings = on_all_cores(Processing::Raw);
    Loaded::from_families(folder, &[family], settings, &FlexDevice, &NoProgress)
}

fn logits(model: &Decoder<Flex>) -> Vec<f32> {
    let prompts = [vec![1, 2, 3, 10], vec![4, 5]];
    let batch = TokenBatch::new(&prompts, PaddingSide::Right, &FlexDevice).unwrap();
    model.logits(&batch).into_data().to_vec().unwrap()
}

#[test]
fn a_family_from_outside_computes_what_a_built_in_one_does() {
    let model = model();
    let [toy, gpt2] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    write(&model, toy.path(), &config());
    save_gpt2(&model, gpt2.path()).unwrap();
    for exec in [Exec::serial(), Exec::all_cores()] {
        for processing in [Processing::Raw, Processing::Folded] {
            let settings = LoadSettings::from(processing).with_exec(exec);
            let built_in =
                load_dir::<Flex>(gpt2.path(), settings, &FlexDevice, &NoProgress).unwrap();
            let families: [&dyn Family; 1] = [&TOY];
            let outside = Loaded::<Flex>::from_families(
                toy.path(),
                &families,
                settings,
                &FlexDevice,
                &NoProgress,
            )
            .unwrap();
            assert_eq!(outside.provenance.family, "Toy");
            assert_eq!(outside.provenance.notes, built_in.provenance.notes);
            assert_eq!(logits(&outside.model), logits(&built_in.model));
        }
    }
    // Built-in families are still read, and the one from outside only where it is given.
    assert_eq!(load(gpt2.path(), &TOY).unwrap().provenance.family, "GPT-2");
    let unknown = load_dir::<Flex>(toy.path(), Processing::Raw, &FlexDevice, &NoProgress);
    let unknown = unknown.unwrap_err().to_string();
    assert!(
        unknown.contains("model_type = \"toy\" is not supported"),
        "{unknown}"
    );
}

#[test]
fn what_is_wrong_with_a_file_of_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let told = |config: &Value, family: &Toy| {
        write(&model(), folder, config);
        load(folder, family).unwrap_err().to_string()
    };
    let with = |key: &str, value: Value| {
        let mut config = config();
        config[key] = value;
        config
    };
    let error = told(&with("heads", json!(3)), &TOY);
    assert!(
        error.contains("heads = 3 is not supported, expected a divisor of width = 8"),
        "{error}"
    );
    let error = told(&with("inner", json!(24)), &TOY);
    assert!(
        error.contains("body.0.read.weight: shape [32, 8], expected [24, 8]"),
        "{error}"
    );
    assert!(
        error.contains("body.1.write.bias") || error.contains("body.1.write.weight"),
        "{error}"
    );
    let error = told(&with("depth", json!(1)), &TOY);
    assert!(error.contains("body.1.q: unused"), "{error}");
    // An unknown `model_type` lists this family's, too.
    let error = told(&with("model_type", json!("toys")), &TOY);
    assert!(error.contains("expected \"toy\", \"gemma\""), "{error}");
    // A family that puts together something else than its configuration says: an error, no panic.
    let error = told(&config(), &Toy { careless: true });
    let expected = "blocks.0.attn.W_QKV: shape [8, 16], expected [8, 24]";
    assert!(error.contains(expected), "{error}");
}

/// A configuration that contradicts itself is refused before weights are read.
#[test]
fn a_configuration_that_contradicts_itself() {
    struct Halves;

    impl Family for Halves {
        fn name(&self) -> &'static str {
            "Halves"
        }

        fn model_type(&self) -> Option<&str> {
            Some("toy")
        }

        fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig, Error> {
            let config = TOY.config(keys)?;
            Ok(config
                .with_n_heads(4)
                .with_n_key_value_heads(3)
                .with_windows(vec![Some(4)]))
        }

        fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
            TOY.embedding(reader)
        }

        fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
            TOY.attention(reader, layer)
        }

        fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
            TOY.mlp(reader, layer)
        }

        fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
            TOY.unembedding(reader)
        }
    }

    let folder = tempfile::tempdir().unwrap();
    write(&model(), folder.path(), &config());
    let error = load(folder.path(), &Halves).unwrap_err().to_string();
    let expected = "config.json: read as Halves: n_key_value_heads = 3, expected a divisor of \
                    n_heads = 4; windows of 1 layers, expected none or n_layers = 2";
    assert!(error.ends_with(expected), "{error}");
}
