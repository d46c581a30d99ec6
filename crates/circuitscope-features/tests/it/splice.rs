//! Dictionaries in the place of activations.

use burn::tensor::Tensor;
use circuitscope_core::{NoProgress, Seed};
use circuitscope_features::{Directions, Replacement, Splice, fidelity, next_token_loss};
use circuitscope_hooks::{NoTap, Site, Tap};
use circuitscope_model::Processing;
use circuitscope_sae::Encoder;

use crate::models::{B, Small, device, model};

fn some() -> Vec<Vec<u32>> {
    (0..6u32)
        .map(|at| {
            (0..4 + at % 3)
                .map(|step| (at * 5 + step * 3) % 20)
                .collect()
        })
        .collect()
}

/// The coordinates are a perfect dictionary: nothing is lost; 0 in the activation's place is what an ablation of all heads is.
#[test]
fn a_perfect_dictionary_loses_nothing() {
    for (name, site) in [
        ("gpt2", Site::Z(1)),
        ("llama", Site::Z(0)),
        ("gpt_neox", Site::MlpOut(1)),
        ("gemma2", Site::ResidPost(0)),
    ] {
        let model = model(name, Processing::Folded);
        let width = match site {
            Site::Z(_) => model.config().n_heads * model.config().d_head,
            _ => model.config().d_model,
        };
        let basis = Directions::<B>::basis(width, &device());
        let untrained = Directions::<B>::untrained(width, 9, 2, Seed::new(0), &device());
        let dictionaries: [&dyn Encoder<B>; 2] = [&basis, &untrained];
        let table = fidelity(
            &model,
            &some(),
            &dictionaries,
            [site; 2],
            false,
            16,
            &device(),
            &NoProgress,
        )
        .unwrap();
        let [perfect, poor] = table.dictionaries.as_slice() else {
            panic!("two")
        };
        assert!(
            perfect.fvu.abs() < 1e-5 && (perfect.loss - table.clean).abs() < 1e-5,
            "{name}: {table:?}"
        );
        assert!(
            perfect
                .recovered_of_zero
                .is_none_or(|share| (share - 1.0).abs() < 1e-2),
            "{name}: {table:?}"
        );
        assert!(poor.fvu > 0.1 && poor.l0 <= 2.0, "{name}: {table:?}");
        assert_eq!(
            table.predicted,
            some()
                .iter()
                .map(|context| context.len() - 1)
                .sum::<usize>()
        );
        // By other means: the mean over contexts of one loss each, with the site set to 0.
        let zero = Zero(site);
        let mut sum = 0.0;
        for context in some() {
            let mut tap = zero;
            let one = std::slice::from_ref(&context);
            sum += next_token_loss(&model, one, &mut tap, &device()).unwrap()
                * (context.len() - 1) as f64;
        }
        let by_hand = sum / table.predicted as f64;
        assert!(
            (table.zero - by_hand).abs() < 1e-5,
            "{name}: {} {by_hand}",
            table.zero
        );
    }
}

/// Sets a site to 0.
#[derive(Clone, Copy)]
struct Zero(Site);

impl Tap<B> for Zero {
    fn wants(&self, site: Site) -> bool {
        site == self.0
    }

    fn tap<const D: usize>(&mut self, _: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        x.zeros_like()
    }
}

/// With the error kept nothing changes; without a feature the activation changes by what it writes, and only there.
#[test]
fn a_feature_is_ablated_with_the_error_kept() {
    let model = model("gpt2", Processing::Folded);
    let site = Site::Z(1);
    let width = model.config().n_heads * model.config().d_head;
    let small = Small::random(width, 10, width, 4);
    let loss = |tap: &mut Splice<'_, B>| next_token_loss(&model, &some(), tap, &device()).unwrap();
    let clean = next_token_loss(&model, &some(), &mut NoTap, &device()).unwrap();
    let with = |keep_error, without, skip_first| {
        let replacement = Replacement::Dictionary {
            encoder: &small,
            keep_error,
            without,
        };
        loss(&mut Splice::new(site, site, replacement, skip_first))
    };
    assert!((with(true, &[], false) - clean).abs() < 1e-6);
    assert!((with(false, &[], false) - clean).abs() > 1e-4);
    let all: Vec<usize> = (0..10).collect();
    let (some_of, all_of) = (with(true, &[3], false), with(true, &all, false));
    assert!((some_of - clean).abs() > 1e-6 && (all_of - some_of).abs() > 1e-6);
    // Two features after each other are as both at once.
    assert!((with(true, &[3, 5], false) - with(true, &[5, 3], false)).abs() < 1e-9);
    assert!((with(false, &[], true) - with(false, &[], false)).abs() > 1e-6);
}

#[test]
fn what_does_not_fit_is_said() {
    let model = model("gpt2", Processing::Folded);
    let wide = Directions::<B>::basis(5, &device());
    let run = |sites| {
        fidelity(
            &model,
            &some(),
            &[&wide as &dyn Encoder<B>],
            sites,
            false,
            16,
            &device(),
            &NoProgress,
        )
    };
    let error = run([Site::Z(0); 2]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the dictionary: found vectors of width 5 in and 5 out, expected 12 in and 12 out, as its sites have in this model"
    );
    let error = run([Site::Z(9); 2]).unwrap_err().to_string();
    assert!(
        error.starts_with("the site of a dictionary: found blocks.9.attn.hook_z"),
        "{error}"
    );
}
