use std::path::Path;

use circuitscope_core::{HeadGrid, Polarity};
use circuitscope_files::Metadata;
use circuitscope_hooks::HeadActivations;
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn write(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)], metadata: &[(&str, &str)]) {
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let metadata = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    fs_err::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

const SHAPE: [(&str, &str); 2] = [("n_layers", "1"), ("n_heads", "2")];

#[test]
fn reads_half_precision_and_i64_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let halves = [1.5f32, -2.0, 0.25, 4.0];
    let labels: Vec<u8> = [1i64, 0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let f16: Vec<u8> = halves
        .iter()
        .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
        .collect();
    let bf16: Vec<u8> = halves
        .iter()
        .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
        .collect();
    for (dtype, bytes) in [(Dtype::F16, f16), (Dtype::BF16, bf16)] {
        let tensors = [
            ("activations", dtype, vec![2, 2, 1], bytes),
            ("labels", Dtype::I64, vec![2], labels.clone()),
        ];
        write(&path, &tensors, &SHAPE);
        let read = HeadActivations::read(&path).unwrap();
        assert_eq!(read.data, halves);
        assert_eq!(read.labels, [Polarity::Positive, Polarity::Negative]);
        assert_eq!(read.example(1), &halves[2..]);
    }
}

#[test]
fn each_fault_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    let good = || {
        (
            "activations",
            Dtype::F32,
            vec![2, 2, 1],
            f32s(&[1.0, 2.0, 3.0, 4.0]),
        )
    };
    let labels = || ("labels", Dtype::U8, vec![2], vec![1, 0]);
    let message = || {
        let message = HeadActivations::read(&path).unwrap_err().to_string();
        assert!(message.contains("bad.safetensors"), "{message}");
        message
    };

    fs_err::write(&path, b"").unwrap();
    assert!(message().contains("0 bytes"));
    fs_err::write(&path, [255; 64]).unwrap();
    assert!(message().contains("header too large"));
    write(&path, &[good(), labels()], &SHAPE);
    let whole = fs_err::read(&path).unwrap();
    fs_err::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(message().contains("incomplete metadata, file not fully covered"));

    write(&path, &[labels()], &SHAPE);
    assert!(message().contains("`activations`: found no such tensor"));
    write(&path, &[good()], &SHAPE);
    assert!(message().contains("`labels`: found no such tensor"));
    write(&path, &[good(), labels()], &SHAPE[..1]);
    assert!(message().contains("metadata `n_heads`: found no such key"));
    write(
        &path,
        &[good(), labels()],
        &[("n_layers", "1"), ("n_heads", "3")],
    );
    assert!(
        message().contains("found 2 heads of width 1, expected n_layers × n_heads = 1 × 3 heads")
    );
    write(
        &path,
        &[good(), ("labels", Dtype::U8, vec![3], vec![1, 0, 1])],
        &SHAPE,
    );
    assert!(message().contains("found 3 labels, expected 2"));
    write(
        &path,
        &[good(), ("labels", Dtype::U8, vec![2], vec![1, 2])],
        &SHAPE,
    );
    assert!(message().contains("found 2 at example 1"));
    write(
        &path,
        &[good(), ("labels", Dtype::F32, vec![2], f32s(&[1.0, 0.0]))],
        &SHAPE,
    );
    assert!(message().contains("type F32, expected BOOL, U8, I32 or I64"));
    write(
        &path,
        &[
            ("activations", Dtype::I32, vec![2, 2, 1], f32s(&[0.0; 4])),
            labels(),
        ],
        &SHAPE,
    );
    assert!(message().contains("type I32, expected F32, F16 or BF16"));
    write(
        &path,
        &[
            ("activations", Dtype::F32, vec![4, 1], f32s(&[0.0; 4])),
            labels(),
        ],
        &SHAPE,
    );
    assert!(message().contains("shape [4, 1], expected the axes [examples, heads, d]"));
    write(
        &path,
        &[
            (
                "activations",
                Dtype::F32,
                vec![2, 2, 1],
                f32s(&[1.0, 2.0, 3.0, f32::NAN]),
            ),
            labels(),
        ],
        &SHAPE,
    );
    assert!(message().contains("NaN at example 1, head L0H1"));
    let error = HeadActivations::read(&folder.path().join("none.safetensors")).unwrap_err();
    assert!(error.to_string().contains("none.safetensors"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read(
        n_layers in 1usize..4, n_heads in 1usize..4, d in 1usize..5,
        labels in proptest::collection::vec(any::<bool>(), 1..6), seed in any::<u32>(),
    ) {
        let grid = HeadGrid::new(n_layers, n_heads);
        let labels: Vec<_> =
            labels.into_iter().map(|b| if b { Polarity::Positive } else { Polarity::Negative }).collect();
        let data = (0..labels.len() * grid.len() * d).map(|i| (i as f32 + seed as f32).sin()).collect();
        let written = HeadActivations::new(grid, d, labels, data);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        written.write(&path, Metadata::from([("made_by".to_owned(), "a test".into())])).unwrap();
        prop_assert_eq!(HeadActivations::read(&path).unwrap(), written);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        fs_err::write(&path, &bytes).unwrap();
        prop_assert!(HeadActivations::read(&path).is_err());
    }
}
