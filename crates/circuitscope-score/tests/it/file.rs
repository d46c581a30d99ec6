use std::path::{Path, PathBuf};

use circuitscope_core::{HeadGrid, Polarity};
use circuitscope_files::{FileErrorKind, Metadata, Reader};
use circuitscope_score::{CodeTable, Error};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use Polarity::{Negative, Positive};

fn table() -> CodeTable {
    let codes = vec![0, 1, 2, -1, 7, 199];
    CodeTable::new(HeadGrid::new(3, 1), vec![Positive, Negative], codes).unwrap()
}

type Tensor<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

fn codes(values: &[i32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// What `read` says of a file of these tensors.
fn read_with(tensors: &[Tensor<'_>], metadata: &[(&str, &str)]) -> Result<CodeTable, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let metadata = metadata
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    fs_err::write(
        &path,
        safetensors::serialize(views, Some(metadata)).unwrap(),
    )
    .unwrap();
    CodeTable::read(&path)
}

const GRID: [(&str, &str); 2] = [("n_layers", "3"), ("n_heads", "1")];

fn good() -> [Tensor<'static>; 2] {
    [
        ("codes", Dtype::I32, vec![2, 3], codes(table().codes())),
        ("labels", Dtype::U8, vec![2], vec![1, 0]),
    ]
}

#[test]
fn reads_what_is_right() {
    assert_eq!(read_with(&good(), &GRID).unwrap(), table());
    let wide = |values: &[i64]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    let [mut codes, mut labels] = good();
    (codes.1, codes.3) = (Dtype::I64, wide(&[0, 1, 2, -1, 7, 199]));
    (labels.1, labels.3) = (Dtype::I64, wide(&[1, 0]));
    assert_eq!(read_with(&[codes, labels], &GRID).unwrap(), table());
}

#[test]
fn names_each_fault() {
    let [c, l] = good();
    let changed = |change: &dyn Fn(&mut Tensor<'static>, &mut Tensor<'static>)| {
        let [mut c, mut l] = good();
        change(&mut c, &mut l);
        read_with(&[c, l], &GRID)
    };
    let cases = [
        (
            read_with(std::slice::from_ref(&l), &GRID),
            "tensor `codes`: found no such tensor",
        ),
        (
            read_with(std::slice::from_ref(&c), &GRID),
            "tensor `labels`: found no such tensor",
        ),
        (
            changed(&|c, _| c.0 = "code"),
            "tensor `code`: found an unknown tensor, expected `codes`",
        ),
        (
            read_with(
                &[
                    c.clone(),
                    l.clone(),
                    ("weights", Dtype::U8, vec![1], vec![0]),
                ],
                &GRID,
            ),
            "tensor `weights`: found an unknown tensor, expected only `codes`, `labels` and `amplitudes`",
        ),
        (
            read_with(&good(), &GRID[..1]),
            "metadata `n_heads`: found no such key, expected a number",
        ),
        (
            read_with(&good(), &[("n_layers", "three"), ("n_heads", "1")]),
            "metadata `n_layers`: found \"three\", expected a number",
        ),
        (
            read_with(&good(), &[("n_layers", "2"), ("n_heads", "1")]),
            "tensor `codes`: found 3 heads, expected n_layers × n_heads = 2 × 1 heads",
        ),
        (
            read_with(
                &good(),
                &[("n_layers", "18446744073709551615"), ("n_heads", "2")],
            ),
            "metadata `n_heads`: found 2, expected a number of heads",
        ),
        (
            changed(&|c, _| c.2 = vec![6]),
            "tensor `codes`: found shape [6], expected the axes [examples, heads]",
        ),
        (
            changed(&|c, _| c.1 = Dtype::F32),
            "tensor `codes`: found type F32, expected I32 or I64",
        ),
        (
            changed(&|c, _| c.3 = codes(&[0, 1, 2, -2, 7, 199])),
            "tensor `codes`: found -2 at example 1, head L0H0, expected a feature index or -1",
        ),
        (
            changed(&|_, l| (l.2, l.3) = (vec![3], vec![1, 0, 0])),
            "tensor `labels`: found 3 labels, expected 2, one for each example of `codes`",
        ),
        (
            changed(&|_, l| l.3 = vec![1, 2]),
            "tensor `labels`: found 2 at example 1, expected 1 (positive) or 0 (negative)",
        ),
    ];
    for (result, expected) in cases {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks {expected}");
        assert!(message.contains("x.safetensors: "), "{message}");
    }
}

/// A file of these bytes, and what `read` says of it.
fn read_bytes(folder: &Path, bytes: &[u8]) -> Error {
    let path = folder.join("bad.safetensors");
    fs_err::write(&path, bytes).unwrap();
    CodeTable::read(&path).unwrap_err()
}

fn is_not_safetensors(error: &Error) -> bool {
    matches!(error, Error::File(error) if *error.kind() == FileErrorKind::NotSafetensors)
}

#[test]
fn refuses_what_is_no_safetensors_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.safetensors");
    table().write(&path, Metadata::new()).unwrap();
    let good = fs_err::read(&path).unwrap();
    for end in [0, 4, 8, 40, good.len() - 1] {
        let error = read_bytes(folder.path(), &good[..end]);
        assert!(is_not_safetensors(&error), "{end} bytes: {error}");
    }
    let mut oversized = good.clone();
    oversized[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = read_bytes(folder.path(), &oversized);
    assert!(is_not_safetensors(&error), "{error}");
    let missing = CodeTable::read(&PathBuf::from("/no/such/file")).unwrap_err();
    assert!(missing.to_string().contains("/no/such/file"), "{missing}");
}

#[test]
fn keeps_what_made_it() {
    let path = tempfile::tempdir()
        .unwrap()
        .path()
        .join("new/codes.safetensors");
    table()
        .write(&path, [("seed".to_owned(), 3.into())].into())
        .unwrap();
    let file = Reader::open(&path).unwrap();
    let [seed, n_layers, n_heads] =
        ["seed", "n_layers", "n_heads"].map(|key| file.number(key).unwrap());
    assert_eq!([seed, n_layers, n_heads], [3, 3, 1]);
}

#[test]
fn amplitudes_are_kept_and_may_be_absent() {
    let amplitudes = vec![0.5, 1.0, 0.25, 0.0, 2.0, 3.0];
    let with = |values: &[f32], shape: &[usize]| {
        let values = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let [codes, labels] = good();
        let tensor = ("amplitudes", Dtype::F32, shape.to_vec(), values);
        read_with(&[codes, labels, tensor], &GRID)
    };
    let table = table().with_amplitudes(amplitudes.clone()).unwrap();
    assert_eq!(with(&amplitudes, &[2, 3]).unwrap(), table);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("codes.safetensors");
    table.write(&path, Metadata::new()).unwrap();
    assert_eq!(CodeTable::read(&path).unwrap(), table);
    assert_eq!(read_with(&good(), &GRID).unwrap().amplitudes(), None);
    for (values, shape, expected) in [
        (
            &amplitudes,
            [3, 2],
            "tensor `amplitudes`: found shape [3, 2], expected [2, 3]",
        ),
        (
            &vec![0.5, 1.0, 0.25, 0.0, -2.0, 3.0],
            [2, 3],
            "tensor `amplitudes`: found -2 at example 1, head L1H0, expected finite numbers of at least 0",
        ),
        (
            &vec![0.5, f32::NAN, 0.25, 0.0, 2.0, 3.0],
            [2, 3],
            "tensor `amplitudes`: found NaN at example 0, head L1H0, expected finite numbers of at least 0",
        ),
    ] {
        let message = with(values, &shape).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

proptest! {
    #[test]
    fn reads_back_what_it_wrote(
        (n_layers, n_heads, labels, codes) in (1usize..4, 1usize..4, 0usize..6).prop_flat_map(
            |(n_layers, n_heads, examples)| (
                Just(n_layers),
                Just(n_heads),
                prop::collection::vec(prop_oneof![Just(Positive), Just(Negative)], examples),
                prop::collection::vec(-1i32..=i32::MAX, examples * n_layers * n_heads),
            )
        )
    ) {
        let table = CodeTable::new(HeadGrid::new(n_layers, n_heads), labels, codes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes.safetensors");
        table.write(&path, Metadata::new()).unwrap();
        prop_assert_eq!(CodeTable::read(&path).unwrap(), table);
    }
}
