//! Ten training steps against PyTorch: `golden/training.py` made `golden/training.safetensors`.

use burn::tensor::Tensor;
use circuitscope_sae::{Dictionary, SaeConfig, SparseAutoencoder, TrainConfig, Trainer};
use safetensors::SafeTensors;

use crate::{B, device, matrix, values};

/// The file is computed in f64 and stored in f32 (losses in f64), so what remains is our own f32
/// rounding: half a unit in the last place (6e-8) for storing, and as much again for each of the
/// sums of 12 to 360 products of size one, whose errors mostly cancel. Ten steps of Adam, each a
/// thousandth of a weight, add next to nothing. Seen: 3e-7 of the largest entry.
const TOLERANCE: f64 = 1e-6;

struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/golden/training.safetensors"
        );
        Self(fs_err::read(path).unwrap())
    }

    fn get(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let values = match view.dtype() {
            safetensors::Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect(),
            _ => view
                .data()
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
                .collect(),
        };
        (view.shape().to_vec(), values)
    }

    fn matrix(&self, name: &str) -> Tensor<B, 2> {
        let (shape, values) = self.get(name);
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        matrix(&values, shape[0], shape[1])
    }

    fn vector(&self, name: &str) -> Tensor<B, 1> {
        let (_, values) = self.get(name);
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        Tensor::from_floats(&values[..], &device())
    }
}

#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f64, |max, v| max.max(v.abs()));
    let mut worst = (0.0, 0);
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs() / scale;
        assert!(!difference.is_nan(), "{what}[{at}]: {found} {expected}");
        if difference > worst.0 {
            worst = (difference, at);
        }
    }
    let (difference, at) = worst;
    assert!(
        difference <= tolerance,
        "{what}[{at}]: found {}, expected {}: {difference:.3e} of the largest entry, above {tolerance:e}",
        found[at],
        expected[at]
    );
}

fn wide<const D: usize>(tensor: &Tensor<B, D>) -> Vec<f64> {
    values(tensor).into_iter().map(f64::from).collect()
}

fn ten_steps(dictionary: Dictionary) {
    let golden = Golden::read();
    let expected = |name: &str| golden.get(&format!("{dictionary}.{name}")).1;
    let start = SparseAutoencoder::<B> {
        w_enc: golden.matrix("start.W_enc"),
        w_dec: golden.matrix("start.W_dec"),
        b_enc: golden.vector("start.b_enc"),
        b_dec: golden.vector("start.b_dec"),
    };
    let config = SaeConfig::new(start.d_in())
        .with_d_sae(start.d_sae())
        .with_dictionary(dictionary);
    let train = TrainConfig::new().with_steps(10);
    let mut trainer = Trainer::<B>::new(&config, &train, start, golden.matrix("x")).unwrap();

    let gradients = trainer.gradients().unwrap();
    for (name, found) in [
        ("W_enc", wide(&gradients.w_enc)),
        ("W_dec", wide(&gradients.w_dec)),
        ("b_enc", wide(&gradients.b_enc)),
        ("b_dec", wide(&gradients.b_dec)),
    ] {
        let name = format!("gradient.{name}");
        assert_close(&name, &found, &expected(&name), TOLERANCE);
    }

    for _ in 0..train.steps {
        trainer.step().unwrap();
    }
    let trained = trainer.finish().unwrap();
    assert_close("loss", &trained.history.loss, &expected("loss"), TOLERANCE);
    assert_close("mse", &trained.history.mse, &expected("mse"), TOLERANCE);
    assert_close("l1", &trained.history.l1, &expected("l1"), TOLERANCE);
    // Counts divided by 30 here and there: equal but for the last bits of the division.
    assert_close("l0", &trained.history.l0, &expected("l0"), 1e-12);
    for (name, found) in [
        ("W_enc", wide(&trained.sae.w_enc)),
        ("W_dec", wide(&trained.sae.w_dec)),
        ("b_enc", wide(&trained.sae.b_enc)),
        ("b_dec", wide(&trained.sae.b_dec)),
    ] {
        let name = format!("end.{name}");
        assert_close(&name, &found, &expected(&name), TOLERANCE);
    }
}

#[test]
fn paper_compatible_steps_equal_pytorch() {
    ten_steps(Dictionary::PaperCompatible);
}

#[test]
fn unit_norm_atoms_steps_equal_pytorch() {
    ten_steps(Dictionary::UnitNormAtoms);
}
