//! Rows of golden folders: what a tool makes of vectors, and what is made of them here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use circuitscope_sae::{Error, SavedSae, load_dir, load_layer};
use safetensors::SafeTensors;

use crate::{B, device, matrix, values};

/// Of the largest entry: sums of at most 20 products of size one, in two orders.
pub(crate) const TOLERANCE: f32 = 1e-6;

/// `golden/NAME`.
pub(crate) fn folder(name: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden");
    golden.join(name)
}

/// Loads a dictionary; `SET#3` is a layer of a set.
pub(crate) fn load(root: &str, name: &str) -> Result<SavedSae<B>, Error> {
    match name.split_once('#') {
        Some((set, layer)) => {
            load_layer::<B>(&folder(root).join(set), layer.parse().unwrap(), &device())
        }
        None => load_dir::<B>(&folder(root).join(name), &device()),
    }
}

/// `expected.safetensors` and `sources.json` of a folder of dictionaries.
pub(crate) struct Golden {
    root: &'static str,
    expected: Vec<u8>,
    sources: BTreeMap<String, String>,
}

impl Golden {
    pub(crate) fn read(root: &'static str) -> Self {
        let sources = fs_err::read(folder(root).join("sources.json")).unwrap();
        Self {
            root,
            expected: fs_err::read(folder(root).join("expected.safetensors")).unwrap(),
            sources: serde_json::from_slice(&sources).unwrap(),
        }
    }

    fn words(&self, name: &str) -> (Vec<usize>, Vec<[u8; 4]>) {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let view = file.tensor(name).unwrap();
        let words = view.data().chunks_exact(4);
        let words = words.map(|word| word.try_into().unwrap()).collect();
        (view.shape().to_vec(), words)
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let (_, words) = self.words(name);
        words.into_iter().map(f32::from_le_bytes).collect()
    }

    /// The vectors, `[rows, d_in]`.
    pub(crate) fn x(&self) -> Tensor<B, 2> {
        let (shape, _) = self.words("x");
        matrix(&self.floats("x"), shape[0], shape[1])
    }

    /// All dictionaries, computed here, too.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let names = file.names().into_iter();
        let mut names: Vec<&str> = names
            .filter_map(|name| name.strip_suffix(".codes"))
            .collect();
        names.sort_unstable();
        let rows = names.into_iter().map(|name| self.row(name));
        rows.collect()
    }

    fn row(&self, name: &str) -> Row {
        let saved = load(self.root, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let encoder = &saved.encoder;
        let x = self.x();
        let pair = |what: &str, found: Tensor<B, 2>| {
            let expected = self.floats(&format!("{name}.{what}"));
            (values(&found), expected)
        };
        let (_, codes) = self.words(&format!("{name}.codes"));
        Row {
            features: pair("features", encoder.encode(x.clone())),
            reconstruction: pair("reconstruction", encoder.reconstruct(x).unwrap()),
            codes: codes.into_iter().map(i32::from_le_bytes).collect(),
            source: self.sources[name].clone(),
            name: name.to_owned(),
            saved,
        }
    }
}

/// A dictionary: what is found here and what is expected.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) saved: SavedSae<B>,
    pub(crate) features: (Vec<f32>, Vec<f32>),
    pub(crate) reconstruction: (Vec<f32>, Vec<f32>),
    /// As expected.
    pub(crate) codes: Vec<i32>,
    /// Whose code computed what is expected.
    pub(crate) source: String,
}

impl Row {
    #[track_caller]
    pub(crate) fn assert_close(&self) {
        for (found, expected) in [&self.features, &self.reconstruction] {
            assert_close(&self.name, found, expected, TOLERANCE);
        }
    }

    /// Codes are equal, and what lies where it is said to lie.
    #[track_caller]
    pub(crate) fn assert_codes(&self, x: Tensor<B, 2>) {
        let (name, encoder) = (&self.name, &self.saved.encoder);
        assert_eq!(encoder.codes(x.clone()).unwrap(), self.codes, "{name}");
        let inactive: Vec<bool> = self.codes.iter().map(|code| *code < 0).collect();
        assert_eq!(encoder.inactive(x).unwrap(), inactive, "{name}");
        for file in &self.saved.files {
            assert!(file.is_file(), "{name}");
        }
    }
}

/// The largest difference over the largest entry.
pub(crate) fn gap(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
    let gaps = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // NaN must not be lost.
    let largest = gaps.fold(0.0, |max: f32, gap| if gap <= max { max } else { gap });
    largest / scale
}

#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert!(expected.iter().any(|value| *value != 0.0), "{what}");
    let gap = gap(found, expected);
    assert!(gap <= tolerance, "{what}: {gap} of the largest entry");
}

/// Puts a value in the place of the first of a tensor.
pub(crate) fn overwrite(path: &Path, tensor: &str, value: f32) {
    let mut bytes = fs_err::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let at = file.tensor(tensor).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    fs_err::write(path, bytes).unwrap();
}

/// `cargo xtask dictionaries` prints this table.
#[test]
fn table_of_golden_dictionaries() {
    println!(
        "format | architecture | d_in | d_out | d_sae | features | reconstruction | computed by | folder"
    );
    println!("---|---|--:|--:|--:|--:|--:|---|---");
    for root in ["dictionaries", "transcoders"] {
        for row in Golden::read(root).rows() {
            let (saved, encoder) = (&row.saved, &row.saved.encoder);
            let skip = if encoder.skip().is_some() {
                ", skip"
            } else {
                ""
            };
            let kind = if saved.transcodes { ", transcoder" } else { "" };
            let gaps = [&row.features, &row.reconstruction];
            let [features, reconstruction] = gaps.map(|(found, expected)| gap(found, expected));
            println!(
                "{} | {}{skip}{kind} | {} | {} | {} | {features:.1e} | {reconstruction:.1e} | {} | {root}/{}",
                saved.format,
                saved.architecture,
                encoder.d_in(),
                encoder.d_out(),
                encoder.n_codes(),
                row.source,
                row.name,
            );
            row.assert_close();
        }
    }
}
