//! Architectures by hand, and what is said of damaged folders of theirs.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use circuitscope_sae::{
    Affine, BatchTopK, Encoder, Gated, INACTIVE, JumpRelu, Normalisation, SparseAutoencoder,
    Standard, TopK, load_dir,
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Map, Value, json};

use crate::{B, device, matrix, values};

/// Features are the coordinates, atoms twice the axes.
fn axes(width: usize) -> Affine<B> {
    let eye = Tensor::eye(width, &device());
    Affine::new(SparseAutoencoder {
        w_enc: eye.clone(),
        w_dec: eye.mul_scalar(2.0),
        b_enc: Tensor::zeros([width], &device()),
        b_dec: Tensor::zeros([width], &device()),
    })
}

fn row(x: &[f32]) -> Tensor<B, 2> {
    matrix(x, 1, x.len())
}

fn vector(x: &[f32]) -> Tensor<B, 1> {
    Tensor::from_data(TensorData::new(x.to_vec(), [x.len()]), &device())
}

fn features(encoder: &impl Encoder<B>, x: &[f32]) -> Vec<f32> {
    values(&encoder.encode(row(x)))
}

#[test]
fn by_hand() {
    let x = [3.0, -1.0, 2.0, 1.0];
    assert_eq!(features(&Standard::new(axes(4)), &x), [3.0, 0.0, 2.0, 1.0]);
    let top = |k| TopK::new(axes(4), k).unwrap();
    assert_eq!(features(&top(2), &x), [3.0, 0.0, 2.0, 0.0]);
    // Of the k largest, those above 0.
    assert_eq!(features(&top(4), &x), [3.0, 0.0, 2.0, 1.0]);
    assert_eq!(features(&top(1), &[-1.0, -2.0, -3.0, -4.0]), [0.0; 4]);
    // Exactly k of equal ones.
    assert_eq!(features(&top(2), &[1.0; 4]).iter().sum::<f32>(), 2.0);
    // The threshold itself is not above it.
    let jump = JumpRelu::new(axes(4), vector(&[3.0, 0.0, 1.5, 0.0]));
    assert_eq!(features(&jump, &x), [0.0, 0.0, 2.0, 1.0]);
    let batch = BatchTopK::new(axes(4), 1.0).unwrap();
    assert_eq!(features(&batch, &x), [3.0, 0.0, 2.0, 0.0]);
    let gated = Gated::new(axes(4), vector(&[0.0, 5.0, -2.5, 0.5]), vector(&[0.0; 4]));
    assert_eq!(features(&gated, &x), [3.0, 0.0, 0.0, 1.5]);
}

/// The strongest feature of `jumprelu` need not have the largest pre-activation.
#[test]
fn codes_and_inactive_vectors() {
    let x = matrix(&[3.0, 2.0, 1.0, 0.5, 0.2, 0.1], 3, 2);
    let jump = JumpRelu::new(axes(2), vector(&[4.0, 0.3]));
    assert_eq!(jump.codes(x.clone()).unwrap(), [1, 1, INACTIVE]);
    assert_eq!(jump.inactive(x.clone()).unwrap(), [false, false, true]);
    assert_eq!(Standard::new(axes(2)).codes(x.clone()).unwrap(), [0, 0, 0]);
    assert_eq!(TopK::new(axes(2), 1).unwrap().codes(x).unwrap(), [0, 0, 0]);
}

/// NaN must not pass for a vector on which nothing is active, whatever the activation function makes of it.
#[test]
fn non_finite_vectors_are_an_error_in_every_architecture() {
    let gated = Gated::new(axes(2), vector(&[0.0; 2]), vector(&[0.0; 2]));
    let encoders: [&dyn Encoder<B>; 5] = [
        &Standard::new(axes(2)),
        &TopK::new(axes(2), 1).unwrap(),
        &BatchTopK::new(axes(2), 0.0).unwrap(),
        &JumpRelu::new(axes(2), vector(&[0.0; 2])),
        &gated,
    ];
    for encoder in encoders {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = encoder.codes(row(&[1.0, bad])).unwrap_err();
            assert!(
                error.to_string().contains("NaN or infinite"),
                "{encoder:?}: {error}"
            );
        }
    }
}

#[test]
fn atoms_are_what_an_activation_adds() {
    let x = row(&[1.0, 0.5]);
    for (encoder, norm) in [
        (TopK::new(axes(2), 2).unwrap(), 2.0),
        (TopK::new(axes(2), 2).unwrap().by_decoder_norm(), 1.0),
    ] {
        assert_eq!(values(&encoder.decoder_norms().unwrap()), [norm; 2]);
        let atoms = encoder.atoms().unwrap();
        let sum = encoder.encode(x.clone()).matmul(atoms);
        assert_eq!(
            values(&sum),
            values(&encoder.reconstruct(x.clone()).unwrap())
        );
    }
    // Of atoms of length 2, chosen by length: the activation is twice the pre-activation.
    let by_norm = TopK::new(axes(2), 1).unwrap().by_decoder_norm();
    assert_eq!(features(&by_norm, &[1.0, 0.5]), [2.0, 0.0]);
}

#[test]
fn normalisations_by_hand() {
    let with = |n| Standard::new(axes(2).with_normalisation(n));
    assert_eq!(
        features(&with(Normalisation::Scale(0.5)), &[3.0, 1.0]),
        [1.5, 0.5]
    );
    let length = with(Normalisation::ConstantNorm);
    let root = 2.0f32.sqrt();
    let found = features(&length, &[3.0, 4.0]);
    assert!((found[0] - 0.6 * root).abs() < 1e-6 && (found[1] - 0.8 * root).abs() < 1e-6);
    assert_eq!(features(&length, &[0.0, 0.0]), [0.0, 0.0]);
    // Mean 2, deviation √2.
    let found = features(&with(Normalisation::LayerNorm), &[3.0, 1.0]);
    assert!((found[0] - 1.0 / (root + 1e-5)).abs() < 1e-6);
    assert_eq!(found[1], 0.0);
}

#[test]
fn settings_out_of_range_are_named() {
    for k in [0, 3] {
        assert_eq!(
            TopK::new(axes(2), k).unwrap_err().to_string(),
            format!("k is {k}: expected at least 1 and at most the number of features")
        );
    }
    for threshold in [-0.5, f32::NAN] {
        assert!(BatchTopK::new(axes(2), threshold).is_err());
    }
}

type Stored = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// A copy of a golden folder, to be damaged.
struct Copy(tempfile::TempDir, &'static str);

impl Copy {
    fn of(name: &str, weights: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/dictionaries");
        let copy = tempfile::tempdir().unwrap();
        for entry in fs_err::read_dir(folder.join(name)).unwrap() {
            let entry = entry.unwrap();
            fs_err::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        Self(copy, weights)
    }

    fn cfg(self, edit: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let path = self.0.path().join("cfg.json");
        let mut cfg = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        edit(&mut cfg);
        fs_err::write(path, serde_json::to_vec(&cfg).unwrap()).unwrap();
        self
    }

    fn set(self, key: &str, value: Value) -> Self {
        self.cfg(|cfg| drop(cfg.insert(key.to_owned(), value)))
    }

    fn weights(self, edit: impl FnOnce(&mut Stored)) -> Self {
        let path = self.0.path().join(self.1);
        let bytes = fs_err::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let owned = file.iter().map(|(name, view)| {
            let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), view.dtype(), shape, data)
        });
        let mut tensors = owned.collect();
        edit(&mut tensors);
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        fs_err::write(path, serialize(views, None).unwrap()).unwrap();
        self
    }

    /// The first value of a tensor.
    fn first(self, tensor: &str, value: f32) -> Self {
        self.weights(|tensors| {
            let found = tensors.iter_mut().find(|(name, ..)| name == tensor);
            let (_, _, _, data) = found.unwrap();
            data[..4].copy_from_slice(&value.to_le_bytes());
        })
    }

    #[track_caller]
    fn fails(self, expected: &str) {
        let folder = format!("{}/", self.0.path().display());
        let error = load_dir::<B>(self.0.path(), &device()).unwrap_err();
        assert_eq!(error.to_string().replace(&folder, ""), expected);
    }
}

const LENS: &str = "sae_weights.safetensors";
const SPARSIFY: &str = "sae.safetensors";

#[test]
fn damaged_folders_of_saelens() {
    let of = |name| Copy::of(name, LENS);
    let file = LENS;
    of("jumprelu").first("threshold", -0.5).fails(&format!(
        "{file}: tensor \"threshold\" has -0.5 at [0]: expected numbers of at least 0"
    ));
    of("jumprelu")
        .first("threshold", f32::NAN)
        .fails(&format!("{file}: tensor \"threshold\" holds NaN at [0]"));
    of("gated").first("r_mag", 200.0).fails(&format!(
        "{file}: tensor \"r_mag\" has 200 at [0]: expected logarithms of at most 80"
    ));
    // A tensor that another architecture has is left over in this one.
    of("gated")
        .set("architecture", json!("jumprelu"))
        .fails(&format!("{file}: unexpected tensor \"b_gate\""));
    of("standard")
        .set("architecture", json!("jumprelu"))
        .fails(&format!(
            "{file}: no tensor \"threshold\"; the file holds W_dec, W_enc, b_dec, b_enc"
        ));
    of("jumprelu")
        .weights(|tensors| {
            let (_, _, shape, _) = tensors.iter_mut().find(|t| t.0 == "threshold").unwrap();
            *shape = vec![4, 5];
        })
        .fails(&format!(
            "{file}: tensor \"threshold\" has shape [4, 5]: expected [20] ([d_sae])"
        ));
    of("batchtopk-checkpoint")
        .weights(|tensors| tensors.retain(|t| t.0 != "topk_threshold"))
        .fails(&format!(
            "{file}: no tensor \"topk_threshold\"; the file holds W_dec, W_enc, b_dec, b_enc"
        ));
    of("topk")
        .set("k", json!(21))
        .fails("cfg.json: k is 21: expected at most 20, the number of features");
    of("topk")
        .set("k", json!(0))
        .fails("cfg.json: k is 0: expected an integer of at least 1");
    of("topk")
        .cfg(|cfg| drop(cfg.remove("k")))
        .fails("cfg.json: k is missing: expected an integer of at least 1");
    of("topk")
        .set("d_out", json!(12))
        .fails("cfg.json: unknown field \"d_out\"");
    let scaler = "activation_scaler.json";
    let scaled = of("jumprelu-scaled-checkpoint");
    fs_err::write(scaled.0.path().join(scaler), "{\"scaling_factor\": null}").unwrap();
    scaled.fails("activation_scaler.json: scaling_factor is missing: expected a number above 0");
    of("saelens-5-standard")
        .first("scaling_factor", 0.5)
        .fails(&format!(
            "{file}: tensor \"scaling_factor\" has 0.5 at [0]: expected ones"
        ));
    of("saelens-5-gated")
        .set("activation_fn_str", json!("topk"))
        .fails(
            "cfg.json: activation_fn_str is \"topk\": expected \"relu\" with architecture gated",
        );
}

#[test]
fn damaged_folders_of_sparsify() {
    let of = || Copy::of("sparsify", SPARSIFY);
    of().set("activation", json!("relu"))
        .fails("cfg.json: activation is \"relu\": expected \"topk\" or \"groupmax\"");
    of().cfg(|cfg| {
        cfg.extend([
            ("activation".to_owned(), json!("groupmax")),
            ("k".to_owned(), json!(3)),
        ]);
    })
    .fails("cfg.json: k is 3: expected a divisor of 20, the number of features, with groupmax");
    of().set("signed", json!(true))
        .fails("cfg.json: signed is true: expected false: activations below 0 have no code");
    of().set("skip_connection", json!(true)).fails(
        "sae.safetensors: no tensor \"W_skip\"; the file holds W_dec, b_dec, encoder.bias, encoder.weight",
    );
    of().set("transcode", json!(1))
        .fails("cfg.json: transcode is 1: expected true or false");
    of().set("k", json!(21))
        .fails("cfg.json: k is 21: expected at most 20, the number of features");
    of().set("kk", json!(21))
        .fails("cfg.json: unknown field \"kk\" (did you mean `k`?)");
    of().set("num_latents", json!("x"))
        .fails("cfg.json: num_latents is \"x\": expected an integer of at least 1");
    of().cfg(|cfg| cfg.extend([
        ("num_latents".to_owned(), json!(0)),
        ("expansion_factor".to_owned(), json!(2_000_000_000)),
    ])).fails(
        "cfg.json: expansion_factor is 2000000000: expected at most 2147483647 features, d_in times as many",
    );
    of().set("num_latents", json!(19)).fails(
        "sae.safetensors: tensor \"encoder.weight\" has shape [20, 12]: expected [19, 12] ([num_latents, d_in])",
    );
    of().weights(|tensors| tensors.retain(|t| t.0 != "W_dec")).fails(
        "sae.safetensors: no tensor \"W_dec\"; the file holds b_dec, encoder.bias, encoder.weight",
    );
    of().weights(|tensors| {
        let skip = ("W_skip".to_owned(), Dtype::F32, vec![1], vec![0; 4]);
        tensors.push(skip);
    })
    .fails("sae.safetensors: unexpected tensor \"W_skip\"");
    of().first("encoder.weight", f32::INFINITY)
        .fails("sae.safetensors: tensor \"encoder.weight\" holds inf at [0, 0]");
}

#[test]
fn damaged_archives_of_gemma_scope() {
    const FOLDER: &str = "gemma-scope-2b-pt-res/layer_6/width_16k/average_l0_4";
    let copy = Copy::of(FOLDER, "");
    let path = copy.0.path().join("params.npz");
    let whole = fs_err::read(&path).unwrap();
    let load = || load_dir::<B>(copy.0.path(), &device());
    // Outside of its place it does not say what it was trained on.
    assert_eq!(load().unwrap().trained_on.hook_name, None);
    for length in [0, 3, whole.len() / 2, whole.len() - 5] {
        fs_err::write(&path, &whole[..length]).unwrap();
        let error = load().unwrap_err().to_string();
        assert!(
            error.contains("params.npz: not an npz archive: "),
            "{error}"
        );
    }
    let broken = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/broken_archives");
    let load = |name: &str| load_dir::<B>(&broken.join(name), &device());
    // Names in lower case, and a factor of ones, are of the same dictionary.
    let whole = load("whole").unwrap().encoder;
    assert_eq!(values(&whole.encode(row(&[2.0, 1.0]))), [2.0, 0.0, 0.0]);
    for (name, expected) in [
        (
            "negative",
            "tensor \"threshold\" has -2 at [1]: expected numbers of at least 0",
        ),
        ("nan", "tensor \"W_dec\" holds NaN at [0, 0]"),
        (
            "missing",
            "no tensor \"threshold\"; the file holds W_dec, W_enc, b_dec, b_enc",
        ),
        ("left-over", "unexpected tensor \"affine_skip_connection\""),
        (
            "shape",
            "tensor \"W_dec\" has shape [2, 3]: expected [3, 2] ([d_sae, d_in])",
        ),
        (
            "flat",
            "tensor \"W_enc\" has shape [6]: expected two axes [d_in, d_sae]",
        ),
        (
            "scaled",
            "tensor \"scaling_factor\" has 2 at [0]: expected ones",
        ),
        (
            "integers",
            "tensor \"b_enc\" has type I64: expected F32, F16 or BF16",
        ),
        (
            "doubles",
            "tensor \"b_enc\" has type F64: expected F32, F16 or BF16",
        ),
    ] {
        let error = load(name).unwrap_err().to_string();
        let file = broken.join(name).join("params.npz");
        assert_eq!(error, format!("{}: {expected}", file.display()));
    }
    let text = load("text").unwrap_err().to_string();
    assert!(
        text.contains("text/params.npz: not an npz archive: "),
        "{text}"
    );
}
