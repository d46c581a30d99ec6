use std::path::Path;

use circuitscope_files::{
    Dtype, Entry, FileErrorKind, Metadata, Reader, Writer, by_head, sha256_of,
};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use serde_json::json;

fn at(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

fn bytes_of(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// A file of another program.
fn write_other(path: &Path, tensors: &[(&str, Dtype, &[usize], &[u8])], texts: &[(&str, &str)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.to_vec(), bytes).unwrap();
        (*name, view)
    });
    let texts = texts
        .iter()
        .map(|(key, text)| (key.to_string(), text.to_string()));
    fs_err::write(
        path,
        safetensors::serialize(views, Some(texts.collect())).unwrap(),
    )
    .unwrap();
}

#[test]
fn a_file_is_what_the_library_of_the_format_writes() {
    let (_folder, path) = at("ours");
    let tensors = vec![
        Entry::of::<u8>("labels", &[2]),
        Entry::of::<f32>("b", &[2, 1]),
        Entry::of::<f32>("a", &[1]),
    ];
    let mut file = Writer::create_for_others(&path, tensors, "format", "pt").unwrap();
    let length = file.length();
    file.fill("labels", &[1u8, 0]).unwrap();
    // Rows come in any order.
    file.rows("b", 1, &[3.0f32]).unwrap();
    file.rows("b", 0, &[2.0f32]).unwrap();
    file.fill("a", &[1.0f32]).unwrap();
    assert!(!path.exists(), "nowhere before it is finished");
    file.finish().unwrap();

    let other = path.with_file_name("other");
    let tensors: [(&str, Dtype, &[usize], &[u8]); 3] = [
        ("a", Dtype::F32, &[1], bytes_of(&[1.0])),
        ("b", Dtype::F32, &[2, 1], bytes_of(&[2.0, 3.0])),
        ("labels", Dtype::U8, &[2], &[1, 0]),
    ];
    write_other(&other, &tensors, &[("format", "pt")]);
    assert_eq!(fs_err::read(&path).unwrap(), fs_err::read(&other).unwrap());
    assert_eq!(fs_err::metadata(&path).unwrap().len(), length);
}

#[test]
fn metadata_is_one_text_and_that_of_earlier_versions_is_read() {
    let (_folder, path) = at("new");
    let others = Metadata::from([
        ("made_by".to_owned(), json!("a test")),
        ("lengths".to_owned(), json!([3, 4])),
    ]);
    let file = Writer::create(&path, Vec::new(), by_head::metadata(4, 8, others)).unwrap();
    file.finish().unwrap();
    let bytes = fs_err::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let texts = header.metadata().clone().unwrap();
    let text = r#"{"lengths":[3,4],"made_by":"a test","n_heads":8,"n_layers":4}"#;
    assert_eq!(texts, [("circuitscope".to_owned(), text.to_owned())].into());
    let file = Reader::open(&path).unwrap();
    assert_eq!(by_head::layers_and_heads(&file).unwrap(), [4, 8]);
    assert_eq!(file.text("made_by").unwrap(), "a test");
    assert_eq!(file.metadata()["lengths"], json!([3, 4]));

    let old = path.with_file_name("old");
    write_other(
        &old,
        &[],
        &[
            ("n_layers", "4"),
            ("n_heads", "8"),
            ("made_by", "an old test"),
        ],
    );
    let file = Reader::open(&old).unwrap();
    assert_eq!(by_head::layers_and_heads(&file).unwrap(), [4, 8]);
    assert_eq!(file.text("made_by").unwrap(), "an old test");
}

#[test]
fn half_precision_is_widened() {
    let (_folder, path) = at("halves");
    let values = [1.0f32, -2.5, 0.0, 65504.0];
    let halves = values.map(|x| half::f16::from_f32(x).to_le_bytes());
    let brain = values.map(|x| half::bf16::from_f32(x).to_le_bytes());
    let tensors: [(&str, Dtype, &[usize], &[u8]); 2] = [
        ("f16", Dtype::F16, &[2, 2], halves.as_flattened()),
        ("bf16", Dtype::BF16, &[4], brain.as_flattened()),
    ];
    write_other(&path, &tensors, &[]);
    let file = Reader::open(&path).unwrap();
    assert_eq!(file.names(), ["bf16", "f16"]);
    assert_eq!(file.tensor("f16").unwrap().f32().unwrap(), values);
    let brain = file.tensor("bf16").unwrap().f32().unwrap();
    assert_eq!(brain, values.map(|x| half::bf16::from_f32(x).to_f32()));
}

#[test]
fn errors_name_file_tensor_found_and_expected() {
    let (_folder, path) = at("x.safetensors");
    let nan = [1.0, 2.0, f32::NAN, 4.0, 5.0, 6.0];
    let tensors: [(&str, Dtype, &[usize], &[u8]); 3] = [
        ("x", Dtype::F32, &[3, 2], bytes_of(&nan)),
        ("codes", Dtype::I64, &[1], &7i64.to_le_bytes()),
        ("labels", Dtype::U8, &[3], &[0, 1, 2]),
    ];
    write_other(&path, &tensors, &[("n_layers", "four"), ("n_heads", "8")]);
    let file = Reader::open(&path).unwrap();
    let text = |error: circuitscope_files::FileError| {
        assert_eq!(error.path(), path);
        let text = error.to_string();
        let place = format!("{}: ", path.display());
        text.strip_prefix(&place).unwrap().to_owned()
    };
    let x = file.tensor("x").unwrap();
    assert_eq!(
        text(x.shape(&[2, 3]).unwrap_err()),
        "tensor `x`: found shape [3, 2], expected [2, 3]"
    );
    assert_eq!(
        text(x.axes(["a", "b", "c"]).unwrap_err()),
        "tensor `x`: found shape [3, 2], expected the axes [a, b, c]"
    );
    assert_eq!(
        text(x.finite().unwrap_err()),
        "tensor `x`: found NaN at [1, 0], expected finite numbers"
    );
    assert_eq!(
        text(x.integers::<i32>().unwrap_err()),
        "tensor `x`: found type F32, expected I32 or I64"
    );
    let codes = file.tensor("codes").unwrap();
    assert_eq!(codes.integers::<i32>().unwrap(), [7]);
    assert_eq!(
        text(codes.f32().unwrap_err()),
        "tensor `codes`: found type I64, expected F32, F16 or BF16"
    );
    assert_eq!(
        text(file.tensor("code").unwrap_err()),
        r#"tensor `code`: found no such tensor among ["codes", "labels", "x"], expected it to be there"#
    );
    assert_eq!(
        text(by_head::layers_and_heads(&file).unwrap_err()),
        "metadata `n_layers`: found \"four\", expected a number"
    );
    assert_eq!(
        text(by_head::are_positive(&file, 3, "x").unwrap_err()),
        "tensor `labels`: found 2 at example 2, expected 1 (positive) or 0 (negative)"
    );
    assert_eq!(
        text(by_head::are_positive(&file, 4, "x").unwrap_err()),
        "tensor `labels`: found 3 labels, expected 4, one for each example of `x`"
    );
}

#[test]
fn what_is_no_such_file_is_refused_and_says_why() {
    let (_folder, path) = at("x.safetensors");
    let header = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let overlapping = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let cases = [
        (b"abc".to_vec(), "3 bytes, the header length alone takes 8"),
        (u64::MAX.to_le_bytes().to_vec(), "header too large"),
        (
            b"\x93NUMPY\x01\x00\x76\x00{".to_vec(),
            "found a NumPy file (.npy), expected safetensors; safetensors.numpy.save_file writes such a file",
        ),
        (
            b"PK\x03\x04\x14\x00\x00\x00".to_vec(),
            "found a zip archive (.npz, or what torch.save writes), expected safetensors; ",
        ),
        (
            b"\x80\x02\x8a\x0al\xfc\x9c\x46".to_vec(),
            "found a Python pickle, expected safetensors; ",
        ),
        (9u64.to_le_bytes().to_vec(), "invalid header length"),
        (header("{\"a\": 1}"), "invalid JSON in header: "),
        (header(overlapping), "invalid offset for tensor `a`"),
        (
            header(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#),
            "incomplete metadata, file not fully covered",
        ),
    ];
    for (bytes, why) in cases {
        fs_err::write(&path, bytes).unwrap();
        let error = Reader::open(&path).unwrap_err();
        assert_eq!(*error.kind(), FileErrorKind::NotSafetensors);
        let text = error.to_string();
        let expected = format!("{}: not a safetensors file: {why}", path.display());
        assert!(text.starts_with(&expected), "{text}");
    }
    write_other(&path, &[], &[("circuitscope", "[1]")]);
    let text = Reader::open(&path).unwrap_err().to_string();
    assert!(text.contains("metadata `circuitscope`: found"), "{text}");
    let missing = Reader::open(&path.with_file_name("none")).unwrap_err();
    assert_eq!(missing.io_kind(), Some(std::io::ErrorKind::NotFound));
}

#[test]
fn labels_may_lie_as_other_programs_write_them() {
    let (_folder, path) = at("x.safetensors");
    let ints = [1i32, 0].map(i32::to_le_bytes).concat();
    let longs = [1i64, 0].map(i64::to_le_bytes).concat();
    for (dtype, bytes) in [
        (Dtype::BOOL, &[1u8, 0][..]),
        (Dtype::U8, &[1, 0]),
        (Dtype::I32, &ints),
        (Dtype::I64, &longs),
    ] {
        write_other(&path, &[("labels", dtype, &[2], bytes)], &[]);
        let file = Reader::open(&path).unwrap();
        let found = by_head::are_positive(&file, 2, "activations").unwrap();
        assert_eq!(found, [true, false], "{dtype:?}");
    }
    write_other(&path, &[("labels", Dtype::F32, &[1], &[0; 4])], &[]);
    let file = Reader::open(&path).unwrap();
    let error = by_head::are_positive(&file, 1, "activations").unwrap_err();
    let expected = "tensor `labels`: found type F32, expected BOOL, U8, I32 or I64";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn two_tensors_of_one_name_and_a_name_that_was_not_announced_are_errors() {
    let (folder, path) = at("x.safetensors");
    let twice = vec![Entry::of::<u8>("a", &[1]), Entry::of::<f32>("a", &[1])];
    let error = Writer::create(&path, twice, Metadata::new()).unwrap_err();
    let expected = format!(
        "cannot write `{}`: found two tensors `a`, expected one",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    let huge = vec![Entry::of::<f32>("a", &[usize::MAX, 2])];
    assert!(Writer::create(&path, huge, Metadata::new()).is_err());
    let unfinished = Writer::create(&path, vec![Entry::of::<u8>("a", &[1])], Metadata::new());
    drop(unfinished.unwrap());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
#[should_panic(expected = "bytes of tensor `a`")]
fn a_file_is_not_finished_before_all_values_have_come() {
    let (_folder, path) = at("x.safetensors");
    let file = Writer::create(&path, vec![Entry::of::<u8>("a", &[1])], Metadata::new());
    file.unwrap().finish().unwrap();
}

/// The mask of a shell decides who may read results.
#[cfg(unix)]
#[test]
fn the_mask_of_the_user_decides_who_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    let (_folder, path) = at("private");
    let program = std::env::current_exe().unwrap();
    let command = format!(
        "umask 077; exec '{}' tensors::writes_a_file --exact",
        program.display()
    );
    let ran = Command::new("sh")
        .args(["-c", &command])
        .env("CIRCUITSCOPE_WRITE", &path)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let mode = fs_err::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

/// The tests around run it in a process of its own; by itself it does nothing.
#[test]
fn writes_a_file() {
    let Some(path) = std::env::var_os("CIRCUITSCOPE_WRITE") else {
        return;
    };
    let others = ["c", "a", "b"].map(|key| (key.to_owned(), json!({"z": 1, "y": [key]})));
    let tensors = ["c", "b", "a"].map(|name| Entry::of::<f32>(name, &[1]));
    let metadata = others.into_iter().collect();
    let mut file = Writer::create(path.as_ref(), tensors.to_vec(), metadata).unwrap();
    for name in ["a", "b", "c"] {
        file.fill(name, &[1.0f32]).unwrap();
    }
    file.finish().unwrap();
}

/// Hash maps of two processes have different orders.
#[test]
fn two_processes_write_equal_bytes() {
    let (folder, _) = at("x");
    let hashes = ["one", "two"].map(|name| {
        let path = folder.path().join(name);
        let ran = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["tensors::writes_a_file", "--exact"])
            .env("CIRCUITSCOPE_WRITE", &path)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
        sha256_of(&fs_err::read(path).unwrap())
    });
    assert_eq!(hashes[0], hashes[1]);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        values in prop::collection::vec(any::<i32>(), 0..50),
        names in prop::collection::btree_set("[a-z_]{1,8}", 0..5),
    ) {
        let (_folder, path) = at("x");
        let tensors = names.iter().map(|name| Entry::of::<i32>(name, &[values.len()]));
        let mut file = Writer::create(&path, tensors.collect(), Metadata::new()).unwrap();
        for name in &names {
            file.fill(name, &values).unwrap();
        }
        file.finish().unwrap();
        let file = Reader::open(&path).unwrap();
        prop_assert_eq!(file.names(), names.iter().cloned().collect::<Vec<_>>());
        for name in &names {
            let found = file.tensor(name).unwrap().shape(&[values.len()]).unwrap();
            let expected: Vec<i64> = values.iter().map(|&value| value.into()).collect();
            prop_assert_eq!(found.integers::<i32>().unwrap(), expected);
        }
    }

    /// Whatever lies there, the answer is an error or tensors that can be read.
    #[test]
    fn no_bytes_are_too_bad(
        header in prop::collection::vec(prop::sample::select(&b"{}[]\",:1a \xff"[..]), 0..60),
        rest in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (_folder, path) = at("x");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(&header);
        bytes.extend(&rest);
        fs_err::write(&path, &bytes).unwrap();
        if let Ok(file) = Reader::open(&path) {
            for name in file.names() {
                file.tensor(&name).unwrap().f32().ok();
            }
        }
    }
}
