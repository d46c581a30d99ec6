//! The same training on one backend directly and through burn's run-time dispatch.

use burn::backend::flex::FlexDevice;
use burn::tensor::{Tensor, TensorData};
use burn::{Dispatch, DispatchDevice};
use circuitscope_core::{NoProgress, Seed};
use circuitscope_sae::{
    EncodeConfig, Encoder as _, SaeConfig, SaeMetadata, TrainConfig, load_dir, save_dir, train,
};

use crate::{matrix, uniform, values};

const ROWS: usize = 64;
const D_IN: usize = 20;

#[test]
fn dispatch_trains_and_encodes_alike() {
    let config = SaeConfig::new(D_IN).with_d_sae(32);
    let steps = TrainConfig::new().with_steps(40);
    let x = uniform(21, ROWS, D_IN);
    let direct = train(
        &config,
        &steps,
        matrix(&x, ROWS, D_IN),
        Seed::new(7),
        &NoProgress,
    )
    .unwrap();

    let plain = DispatchDevice::from(FlexDevice);
    let x_dispatch =
        Tensor::<Dispatch, 2>::from_data(TensorData::new(x.clone(), [ROWS, D_IN]), &plain);
    let dispatched = train(
        &config,
        &steps,
        x_dispatch.clone(),
        Seed::new(7),
        &NoProgress,
    )
    .unwrap();

    assert_eq!(direct.history, dispatched.history);
    assert_eq!(
        values(&direct.sae.w_enc),
        dispatched
            .sae
            .w_enc
            .to_data()
            .iter::<f32>()
            .collect::<Vec<_>>()
    );
    let ties = EncodeConfig::new().with_near_ties(1e-3);
    let codes = dispatched.sae.encode_codes(x_dispatch, &ties).unwrap();
    assert_eq!(
        codes,
        direct
            .sae
            .encode_codes(matrix(&x, ROWS, D_IN), &ties)
            .unwrap()
    );

    // What training returns lies on the plain device, and can be saved and loaded there.
    assert_eq!(dispatched.sae.device(), plain);
    let folder = tempfile::tempdir().unwrap();
    save_dir(&dispatched.sae, &SaeMetadata::default(), folder.path()).unwrap();
    let loaded = load_dir::<Dispatch>(folder.path(), &plain).unwrap();
    let atoms = loaded.encoder.atoms().unwrap();
    assert_eq!(atoms.device(), plain);
    assert_eq!(atoms.to_data(), dispatched.sae.w_dec.to_data());
}
