//! Every backend that is compiled in, stage by stage, against Flex: run on a machine with a GPU, these are its
//! device tests (`benches/run-gpu.sh`).

use burn::tensor::Tensor;
use burn::{Dispatch, DispatchDevice};
use circuitscope::eval::methods::{MethodSettings, PatchingSettings, method};
use circuitscope::hooks::{Reduce, Site};
use circuitscope::model::{
    PaddedRows, PaddingSide, capture_head_means, capture_head_means_and_last, capture_sites,
};
use circuitscope::sae::{
    EncodeConfig, Encoder as _, SaeConfig, SparseAutoencoder, TrainConfig, TrainJob, Trained,
    train_many, train_stacked,
};
use circuitscope::{NoProgress, Seed};
use circuitscope_benches::{SMALL, Shape, TINY, devices, exec};

/// `f32` in another order of summation, as a share of the largest value.
const ROUNDING: f64 = 5e-5;

/// Two largest features this near to each other may change places.
const NEAR_TIE: f64 = 1e-4;

/// Prompts of several lengths, some of which begin alike.
fn sequences(shape: &Shape) -> Vec<Vec<u32>> {
    let mut prompts = shape.sequences();
    let first = prompts[0].clone();
    for (at, prompt) in prompts.iter_mut().enumerate() {
        if at % 3 == 0 {
            let common = first.len() - 1 - at % 5;
            prompt[..common].copy_from_slice(&first[..common]);
        }
        prompt.truncate(first.len() - at % 4);
    }
    prompts
}

fn flex() -> DispatchDevice {
    burn::backend::flex::FlexDevice.into()
}

/// All other backends.
fn others() -> impl Iterator<Item = (&'static str, DispatchDevice)> {
    devices().into_iter().filter(|(name, _)| *name != "flex")
}

fn values<const D: usize>(tensor: &Tensor<Dispatch, D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(largest > 0.0, "{what}: nothing to compare");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = f64::from((found - expected).abs() / largest);
        assert!(
            difference <= tolerance,
            "{what}, entry {at}: {found}, expected {expected}"
        );
    }
}

#[test]
#[ignore = "needs a GPU, or Mesa's software Vulkan"]
fn gpu_activations_of_every_site() {
    let prompts = sequences(&SMALL);
    let rows = PaddedRows::new(prompts, PaddingSide::Left).unwrap();
    let sites = [
        Site::Embed,
        Site::Q(0),
        Site::Pattern(1),
        Site::Z(1),
        Site::Result(0),
        Site::MlpPost(1),
        Site::ResidPost(1),
        Site::Logits,
    ];
    let captured = |device: &DispatchDevice| {
        let model = SMALL.model::<Dispatch>(device);
        capture_sites(&model, &rows, &sites, Reduce::None, 64, device, &NoProgress).unwrap()
    };
    let expected = captured(&flex());
    for (name, device) in others() {
        let found = captured(&device);
        for (site, expected) in &expected {
            let what = format!("{name} {site}");
            assert_eq!(found[site].shape, expected.shape, "{what}");
            assert_close(&what, &found[site].data, &expected.data, ROUNDING);
        }
    }
}

#[test]
#[ignore = "needs a GPU, or Mesa's software Vulkan"]
fn gpu_head_outputs_and_shared_beginnings() {
    let prompts = sequences(&TINY);
    let captured = |device: &DispatchDevice| {
        let model = TINY.model::<Dispatch>(device);
        capture_head_means_and_last(&model, &prompts, 512, device, &NoProgress).unwrap()
    };
    let [means, last] = captured(&flex());
    // Alone, no prompt shares anything.
    let model = TINY.model::<Dispatch>(&flex());
    for at in [0, 3, 7] {
        let alone = &prompts[at..=at];
        let alone = capture_head_means(&model, alone, 512, &flex(), &NoProgress).unwrap();
        let together = means.clone().slice_dim(0, at..=at);
        assert_close("alone", &values(&together), &values(&alone), ROUNDING);
    }
    for (name, device) in others() {
        let [found, found_last] = captured(&device);
        let what = format!("{name} means");
        assert_close(&what, &values(&found), &values(&means), ROUNDING);
        let what = format!("{name} last");
        assert_close(&what, &values(&found_last), &values(&last), ROUNDING);
    }
}

const CONFIG_STEPS: usize = 30;

fn jobs(device: &DispatchDevice) -> Vec<TrainJob<Dispatch>> {
    let job = |seed| TrainJob {
        config: SaeConfig::new(TINY.d_model).with_d_sae(64),
        x: TINY.rows::<Dispatch>(96, device),
        seed: Seed::new(seed),
    };
    (0..3).map(job).collect()
}

#[test]
#[ignore = "needs a GPU, or Mesa's software Vulkan"]
fn gpu_training_one_by_one_and_as_one_problem() {
    let steps = |device: &_| {
        let steps = TrainConfig::new().with_steps(CONFIG_STEPS);
        steps.with_exec(exec::<Dispatch>(device))
    };
    let losses = |trained: Vec<Trained<Dispatch>>| -> Vec<Vec<f32>> {
        let loss = |trained: Trained<Dispatch>| trained.history.loss.into_iter();
        let losses = trained.into_iter().map(loss);
        losses
            .map(|loss| loss.map(|loss| loss as f32).collect())
            .collect()
    };
    let expected = losses(train_many(&jobs(&flex()), &steps(&flex()), &NoProgress).unwrap());
    for (name, device) in devices() {
        let many = train_many(&jobs(&device), &steps(&device), &NoProgress).unwrap();
        let stacked = train_stacked(&jobs(&device), &steps(&device), &NoProgress).unwrap();
        for (how, trained) in [("many", many), ("stacked", stacked)] {
            for (found, expected) in losses(trained).iter().zip(&expected) {
                assert_close(&format!("{name} {how}"), found, expected, 1e-4);
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU, or Mesa's software Vulkan"]
fn gpu_codes_are_equal_but_for_near_ties() {
    const ROWS: usize = 3000;
    let config = SaeConfig::new(TINY.d_model).with_d_sae(TINY.codes);
    let encode = EncodeConfig::new()
        .with_tile_rows(700)
        .with_near_ties(NEAR_TIE);
    let of = |device: &DispatchDevice| {
        let sae = config.init::<Dispatch>(Seed::new(0), device).unwrap();
        let found = sae.encode_codes(TINY.rows(ROWS, device), &encode);
        found.unwrap()
    };
    let expected = of(&flex());
    let near = expected.near_ties.unwrap();
    for (name, device) in devices() {
        let found = of(&device);
        let codes = found.codes.iter().zip(&expected.codes);
        let differ = codes.filter(|(found, expected)| found != expected).count();
        println!("{name}: {differ} of {ROWS} codes differ, {near} near-ties");
        assert!(differ <= near, "{name}: {differ} differ, {near} near-ties");
    }
}

/// The first of equal features is the code on every device.
#[test]
#[ignore = "needs a GPU, or Mesa's software Vulkan"]
fn gpu_codes_of_exact_ties() {
    for (name, device) in devices() {
        let sae = SparseAutoencoder::<Dispatch> {
            w_enc: Tensor::ones([4, 37], &device),
            w_dec: Tensor::ones([37, 4], &device),
            b_enc: Tensor::zeros([37], &device),
            b_dec: Tensor::zeros([4], &device),
        };
        let x = Tensor::from_floats([[1.0, 2.0, 3.0, 4.0], [-1.0, 0.0, 0.0, 0.0]], &device);
        assert_eq!(sae.codes(x).unwrap(), [0, -1], "{name}");
    }
}

#[test]
#[ignore = "needs a GPU, or Mesa's software Vulkan"]
fn gpu_methods_that_change_or_differentiate_the_model() {
    let settings =
        MethodSettings::default().with_patching(PatchingSettings::default().with_ig_steps(2));
    let shape = Shape {
        pairs: 2,
        tokens: 6,
        ..SMALL
    };
    let scores = |name: &str, device: &DispatchDevice| -> Vec<f32> {
        let evidence = shape.causal_evidence::<Dispatch>(device);
        let autodiff = DispatchDevice::autodiff(device.clone());
        let method = method::<Dispatch>(name, &settings, &autodiff).unwrap();
        let scores = method.scores(&evidence, Seed::new(0), &NoProgress).unwrap();
        scores.nodes.into_iter().map(|score| score as f32).collect()
    };
    for name in [
        "activation-patching",
        "eap-ig",
        "hisp",
        "cd-t",
        "mean-difference",
    ] {
        let expected = scores(name, &flex());
        for (backend, device) in others() {
            let what = format!("{backend} {name}");
            assert_close(&what, &scores(name, &device), &expected, 1e-3);
        }
    }
}
