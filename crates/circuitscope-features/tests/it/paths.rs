//! Features of z by head and source, and what paths lead to them.

use circuitscope_features::{
    Frozen, PathNode, PathSettings, PathStep, PathTree, Paths, Transcoders, Writer,
};
use circuitscope_hooks::Site;
use circuitscope_model::{Decoder, Processing};
use circuitscope_sae::Encoder;

use crate::models::{B, Small, TOKENS, captured, device, model, models};

fn of_z(model: &Decoder<B>) -> Small {
    let width = model.config().n_heads * model.config().d_head;
    Small::random(width, 10, width, 3)
}

#[test]
fn shares_of_heads_and_sources_sum_to_the_pre_activation() {
    for (name, model) in models() {
        let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
        let (coder, config) = (of_z(&model), model.config());
        let width = coder.d_in();
        let reads = coder.reads().unwrap();
        let weight: Vec<f32> = reads.weight.into_data().iter::<f32>().collect();
        let bias: Vec<f32> = reads.bias.into_data().iter::<f32>().collect();
        for layer in 0..config.n_layers {
            let z = captured(&model, &TOKENS, Site::Z(layer));
            for (position, feature) in [(6, 0), (2, 7)] {
                let found = frozen
                    .attribute_z(layer, &coder, feature, position)
                    .unwrap();
                let z = &z[position * width..(position + 1) * width];
                let terms = z.iter().enumerate();
                let terms = terms.map(|(at, z)| f64::from(z * weight[at * 10 + feature]));
                let terms: Vec<f64> = terms.collect();
                let size: f64 = terms.iter().map(|term| term.abs()).sum();
                let expected = terms.iter().sum::<f64>() + f64::from(bias[feature]);
                let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * size;
                assert!(
                    close(found.pre_activation(), expected),
                    "{name}, layer {layer}"
                );
                assert_eq!(found.by_source.len(), config.n_heads * TOKENS.len());
                let heads = found.by_source.chunks_exact(TOKENS.len());
                for (head, (sources, by_head)) in heads.zip(&found.by_head).enumerate() {
                    let own = &terms[head * config.d_head..(head + 1) * config.d_head];
                    assert!(close(*by_head, own.iter().sum()), "{name}, layer {layer}");
                    let sum: f64 = sources.iter().sum();
                    assert!(close(sum, *by_head), "{name}, layer {layer}, head {head}");
                    assert!(sources[position + 1..].iter().all(|later| *later == 0.0));
                }
                let (head, source) = found.largest();
                let largest = found.by_source[head.head * TOKENS.len() + source];
                assert!(found.by_source.iter().all(|share| *share <= largest));
            }
        }
    }
}

/// The parts of every followed node sum to it, and leaves to the root, within 1e-5 of the sizes of the root's parts.
fn check(name: &str, tree: &PathTree) {
    let sum = |of: &dyn Fn(&PathNode) -> bool| -> f64 {
        tree.nodes
            .iter()
            .filter(|node| of(node))
            .map(|node| node.value)
            .sum()
    };
    let roots = tree.nodes.iter().filter(|node| node.parent.is_none());
    let size: f64 = roots.map(|node| node.value.abs()).sum();
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * size;
    for (at, node) in tree.nodes.iter().enumerate() {
        if node.followed {
            let parts = sum(&|part| part.parent == Some(at));
            assert!(close(parts, node.value), "{name}, {node:?}: {parts}");
        }
        assert_eq!(tree.path(at).len(), node.depth + 1);
    }
    let leaves: f64 = tree.leaves().map(|node| node.value).sum();
    assert!(
        close(leaves, tree.value),
        "{name}: {leaves} of {}",
        tree.value
    );
}

#[test]
fn parts_along_paths_sum() {
    for name in ["gpt2", "llama_biases", "gptj", "gemma2", "gpt_neox"] {
        let model = model(name, Processing::Raw);
        let (config, coder) = (model.config(), of_z(&model));
        let d = config.d_model;
        let coders = [
            Small::random(d, 12, d, 1).with_skip(5),
            Small::random(d, 20, d, 2),
        ];
        let coders: Transcoders<'_, B> = coders
            .iter()
            .enumerate()
            .map(|(layer, coder)| (layer, coder as &dyn Encoder<B>))
            .collect();
        let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
        let paths = Paths::new(&frozen, &coders).unwrap();
        let settings = PathSettings::default()
            .with_expansions(300)
            .with_least(1e-4);
        let last = config.n_layers - 1;
        let tree = paths.of_z_feature(last, &coder, 1, 6, &settings).unwrap();
        check(&format!("{name}, z"), &tree);
        let dfa = frozen.attribute_z(last, &coder, 1, 6).unwrap();
        assert!((tree.value - dfa.pre_activation()).abs() < 1e-5);
        let kinds = |of: fn(&PathStep) -> bool| tree.nodes.iter().any(|node| of(&node.step));
        assert!(kinds(|step| matches!(
            step,
            PathStep::Wrote(Writer::Token { .. })
        )));
        assert!(
            kinds(|step| matches!(step, PathStep::Feature { .. })),
            "{name}"
        );
        assert!(
            kinds(|step| matches!(step, PathStep::PassedOn { .. })),
            "{name}"
        );

        // An active feature of the second transcoder.
        let input = captured(&model, &TOKENS, Site::MlpHookIn(1));
        let input = burn::tensor::TensorData::new(input, [TOKENS.len(), d]);
        let input = burn::tensor::Tensor::<B, 2>::from_data(input, &device());
        let features: Vec<f32> = coders[&1].encode(input).into_data().iter::<f32>().collect();
        let at = (6 * 20..7 * 20).find(|at| features[*at] > 0.1).unwrap();
        let tree = paths.of_feature(1, at % 20, 6, &settings).unwrap();
        check(&format!("{name}, feature"), &tree);
        assert!(
            (tree.value - f64::from(features[at])).abs() < 1e-5,
            "{name}"
        );
        let silent = (6 * 20..7 * 20).find(|at| features[*at] == 0.0).unwrap();
        assert!(paths.of_feature(1, silent % 20, 6, &settings).is_err());
        assert!(paths.of_feature(9, 0, 6, &settings).is_err());
    }
}

/// The largest open node is followed first, and no more than asked for.
#[test]
fn the_largest_is_followed_first() {
    let model = model("llama", Processing::Folded);
    let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
    let paths = Paths::new(&frozen, &Transcoders::new()).unwrap();
    let coder = of_z(&model);
    let last = model.config().n_layers - 1;
    let settings = PathSettings::default().with_expansions(1);
    let tree = paths.of_z_feature(last, &coder, 1, 6, &settings).unwrap();
    let head = |node: &&PathNode| matches!(node.step, PathStep::Wrote(Writer::Head { .. }));
    let roots = tree
        .nodes
        .iter()
        .filter(|node| node.parent.is_none())
        .filter(head);
    let largest = roots.map(|node| node.value.abs()).fold(0.0, f64::max);
    let followed: Vec<&PathNode> = tree.nodes.iter().filter(|node| node.followed).collect();
    assert_eq!(followed.len(), 1);
    assert_eq!(followed[0].value.abs(), largest);
    assert_eq!(
        tree,
        paths.of_z_feature(last, &coder, 1, 6, &settings).unwrap()
    );
}

/// The direct effect of an atom on the logits is that of its heads' outputs on the stream.
#[test]
fn atoms_reach_the_logits() {
    for (name, model) in models() {
        let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
        let config = model.config();
        let layer = config.n_layers - 1;
        // What z itself writes directly is what all heads of the layer write.
        let z = captured(&model, &TOKENS, Site::Z(layer));
        let width = config.n_heads * config.d_head;
        let z = burn::tensor::TensorData::new(z[6 * width..7 * width].to_vec(), [width]);
        let z = burn::tensor::Tensor::<B, 1>::from_data(z, &device());
        let found = frozen.z_atom_logits(layer, z, 6).unwrap();
        assert_eq!(found.dims(), [config.n_heads, config.d_vocab_out]);
        let token = 4;
        let found: Vec<f32> = found
            .slice_dim(1, token..token + 1)
            .into_data()
            .iter()
            .collect();
        let column = model.w_u().slice_dim(1, token..token + 1).squeeze_dim(1);
        let pull = frozen
            .pull(circuitscope_features::Reader::Final, 6, column)
            .unwrap();
        let parts = frozen.parts(&pull).unwrap();
        let size: f64 = parts.iter().map(|part| part.value.abs()).sum();
        for (head, found) in found.iter().enumerate() {
            let written = parts.iter().filter(|part| match part.writer {
                Writer::Head { head: of, .. } => (of.layer, of.head) == (layer, head),
                _ => false,
            });
            let written: f64 = written.map(|part| part.value).sum();
            let off = (f64::from(*found) - written).abs() / size;
            assert!(off < 1e-5, "{name}, head {head}: {found} {written}");
        }
    }
}
