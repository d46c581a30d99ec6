//! A folder that SAELens wrote: `golden/saelens.py` made `golden/saelens/`.

use std::path::Path;

use circuitscope_sae::{Architecture, Format, SaeMetadata, load_dir};
use safetensors::SafeTensors;

use crate::{B, device, matrix, values};

/// Sums of 7 products of size one, in two orders.
const TOLERANCE: f32 = 1e-6;

#[test]
fn saelens_folder_computes_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/saelens");
    let saved = load_dir::<B>(&folder, &device()).unwrap();
    assert_eq!((saved.encoder.d_in(), saved.encoder.n_codes()), (5, 7));
    assert_eq!(saved.metadata, SaeMetadata::default());
    assert_eq!(saved.architecture, Architecture::Standard);
    assert_eq!(saved.format, Format::SaeLens6);

    let bytes = fs_err::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let expected = |name: &str| -> Vec<f32> {
        let view = expected.tensor(name).unwrap();
        view.data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let x = matrix(&expected("x"), 4, 5);
    let features = saved.encoder.encode(x.clone());
    let reconstruction = saved.encoder.reconstruct(x).unwrap();
    for (name, found) in [
        ("features", values(&features)),
        ("reconstruction", values(&reconstruction)),
    ] {
        let expected = expected(name);
        assert_eq!(found.len(), expected.len());
        assert!(expected.iter().any(|v| *v != 0.0));
        let scale = expected.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            let difference = (found - expected).abs();
            assert!(
                difference <= TOLERANCE * scale,
                "{name}: {found} {expected}"
            );
        }
    }
}
