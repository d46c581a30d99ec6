//! A folder that SAELens wrote: `golden/saelens.py` made `golden/saelens/`.

use std::path::Path;

use circuitscope_core::Seed;
use circuitscope_sae::{
    Architecture, Encoder as _, Format, SaeConfig, SaeMetadata, load_dir, save_dir,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::{B, device, matrix, uniform, values};

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

/// Leaves a folder for `golden/saelens.py check FOLDER`, which lets SAELens compute the same of it.
#[test]
fn a_folder_for_saelens_is_written() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("for-saelens");
    let sae = SaeConfig::new(5).with_d_sae(7);
    let mut sae = sae.init::<B>(Seed::new(3), &device()).unwrap();
    sae.b_enc = matrix(&uniform(4, 1, 7), 1, 7).squeeze_dim(0);
    sae.b_dec = matrix(&uniform(5, 1, 5), 1, 5).squeeze_dim(0);
    save_dir(&sae, &SaeMetadata::default(), &folder).unwrap();
    let x = matrix(&uniform(6, 9, 5), 9, 5);
    let features = sae.encode(x.clone());
    assert!(values(&features).iter().any(|value| *value > 0.0));
    let found = [
        ("x", &x),
        ("features", &features),
        ("reconstruction", &sae.reconstruct(x.clone()).unwrap()),
    ];
    let bytes = found.map(|(name, tensor)| {
        let bytes = values(tensor).into_iter().flat_map(f32::to_le_bytes);
        (name, tensor.dims().to_vec(), bytes.collect::<Vec<u8>>())
    });
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    let written = serialize(views, None).unwrap();
    fs_err::write(folder.join("expected.safetensors"), written).unwrap();
}
