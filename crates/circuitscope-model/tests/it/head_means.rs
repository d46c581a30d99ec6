//! The means that the method starts from.

use circuitscope_core::{NoProgress, Progress};
use circuitscope_hooks::{Capture, Reduce, Site};
use circuitscope_model::{Error, Processing, capture_head_means, capture_head_means_and_last};
use circuitscope_testkit::{Values, assert_close_named, device};

use crate::{PADDING, golden_folder, load, right_padded};

fn prompts() -> Vec<Vec<u32>> {
    vec![
        vec![8, 7, 6, 5, 4, 3],
        vec![1],
        vec![2, 3, 2, 3],
        vec![5, 6],
    ]
}

/// Averaging z and then multiplying by `W_O` equals averaging the outputs themselves.
#[test]
fn equal_the_averaged_outputs_of_heads() {
    for name in ["gpt2_tiny", "attn_only_shortformer", "bidirectional"] {
        for processing in [Processing::Raw, Processing::Folded] {
            let model = load(&golden_folder(name), processing);
            let (layers, heads) = (model.config().n_layers, model.config().n_heads);
            let means = capture_head_means(&model, &prompts(), 7, &device(), &NoProgress).unwrap();
            let means = Values::from(means);
            assert_eq!(means.shape, [4, layers * heads, model.config().d_model]);
            let both = capture_head_means_and_last(&model, &prompts(), 7, &device(), &NoProgress);
            let [again, last] = both.unwrap().map(Values::from);
            assert_eq!(means.data, again.data);
            for (reduce, found) in [(Reduce::Mean, means), (Reduce::Last, last)] {
                let sites = (0..layers).map(Site::Result);
                let mut capture = Capture::new(sites).with_reduce(reduce);
                model.forward(&right_padded(&prompts()), &mut capture);
                // [examples, heads, d_model] for each layer
                for (site, result) in capture.finish().unwrap() {
                    let layer = site.layer().unwrap();
                    let found = found.slice(1, layer * heads, (layer + 1) * heads);
                    let name = format!("{name} {processing} {reduce:?} layer {layer}");
                    assert_close_named(&name, &found, &result.into_data().into(), PADDING);
                }
            }
        }
    }
}

#[test]
fn no_prompts_give_no_examples() {
    let model = load(&golden_folder("gpt2_tiny"), Processing::Raw);
    let none: [Vec<u32>; 0] = [];
    let means = capture_head_means(&model, &none, 7, &device(), &NoProgress).unwrap();
    assert_eq!(means.dims(), [0, 4, 12]);
}

#[test]
fn prompts_are_checked_and_cancelling_works() {
    struct Stop;
    impl Progress for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }

    let model = load(&golden_folder("gpt2_tiny"), Processing::Raw);
    let run = |prompts: &[Vec<u32>], progress: &dyn Progress| {
        capture_head_means(&model, prompts, 7, &device(), progress)
    };
    assert!(matches!(run(&prompts(), &Stop), Err(Error::Cancelled)));
    let long = run(&[vec![1], vec![0; 10]], &NoProgress);
    assert!(matches!(long, Err(Error::PromptTooLong { prompt: 1, .. })));
    let unknown = run(&[vec![29]], &NoProgress);
    assert!(matches!(
        unknown,
        Err(Error::TokenOutOfRange { token: 29, .. })
    ));
}
