//! Attribution graphs of golden models with random transcoders.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use circuitscope_core::NoProgress;
use circuitscope_features::{
    AttributionGraph, Error, Frozen, GraphSettings, NodeKind, PathSettings, PathStep, Paths,
    PruneSettings, Reader, Replacement, Splice, Targets, Transcoders, Writer,
};
use circuitscope_hooks::Site;
use circuitscope_model::{Decoder, Processing};
use circuitscope_sae::Encoder;

use crate::models::{B, Small, TOKENS, captured, device, model, models, spliced};

/// A transcoder with a pass-through for layer 0, a plain one for layer 1, none for others.
fn coders(model: &Decoder<B>) -> Vec<Small> {
    let d = model.config().d_model;
    vec![
        Small::random(d, 12, d, 1).with_skip(5),
        Small::random(d, 20, d, 2),
    ]
}

fn by_layer(coders: &[Small]) -> Transcoders<'_, B> {
    let coders = coders.iter().enumerate();
    coders
        .map(|(layer, coder)| (layer, coder as &dyn Encoder<B>))
        .collect()
}

fn graph(model: &Decoder<B>, coders: &[Small], settings: &GraphSettings) -> AttributionGraph {
    let frozen = Frozen::new(model, &TOKENS, &device()).unwrap();
    AttributionGraph::new(&frozen, &by_layer(coders), settings, &NoProgress).unwrap()
}

/// Edges into each node sum to its value, within 1e-5 of the sum of their sizes. Returns the largest share that is off.
fn check_sums(name: &str, graph: &AttributionGraph) -> f64 {
    check_sums_within(name, graph, |_| 0.0)
}

/// The same within 1e-5 of a size that may be larger.
fn check_sums_within(name: &str, graph: &AttributionGraph, at_least: impl Fn(usize) -> f64) -> f64 {
    let mut worst = 0.0f64;
    for target in graph.target_nodes() {
        let edges: Vec<f64> = graph.edges_into(target).unwrap().collect();
        let sum: f64 = edges.iter().sum();
        let size: f64 = edges.iter().map(|edge| edge.abs()).sum();
        let size = size.max(at_least(target));
        let node = graph.nodes()[target];
        let off = (sum - node.value).abs() / size;
        assert!(
            off < 1e-5,
            "{name}, {node:?}: edges sum to {sum}, off by {off}"
        );
        worst = worst.max(off);
    }
    worst
}

#[test]
fn edges_sum_to_values_in_every_family() {
    for (name, model) in models() {
        let coders = coders(&model);
        let settings = GraphSettings::new().with_batch(7);
        let made = graph(&model, &coders, &settings);
        let features = made.target_nodes().count() - made.targets().len();
        assert!(features > 40, "{name}: {features} features");
        assert_eq!(features, made.active_features());
        let worst = check_sums(&name, &made);
        println!("{name}: {features} features, sums off by at most {worst:.1e}");

        let neurons = graph(&model, &[], &settings.with_neurons(true));
        // A pre-activation near 0 is a difference of large terms inside a single token embedding: rounding is that of the largest
        // neuron of the layer.
        let layer = |at: usize| match neurons.nodes()[at].kind {
            NodeKind::Feature { layer, .. } => Some(layer),
            _ => None,
        };
        let mut largest: BTreeMap<Option<usize>, f64> = BTreeMap::new();
        for target in neurons.target_nodes() {
            let size: f64 = neurons.edges_into(target).unwrap().map(f64::abs).sum();
            let known = largest.entry(layer(target)).or_default();
            *known = known.max(size);
        }
        check_sums_within(&format!("{name}, neurons"), &neurons, |at| {
            largest[&layer(at)]
        });
        for node in neurons.nodes() {
            if let NodeKind::Error { .. } = node.kind {
                assert!(
                    node.value < 1e-5,
                    "{name}: neurons leave nothing over, {node:?}"
                );
            }
        }
    }
}

/// Values are not only what edges sum to: they are what encoders make of the pass, and the model's logits.
#[test]
fn values_are_those_of_the_pass() {
    let model = model("llama", Processing::Folded);
    let coders = coders(&model);
    let made = graph(&model, &coders, &GraphSettings::new());
    let d = model.config().d_model;
    let mut active = 0;
    for (layer, coder) in coders.iter().enumerate() {
        let x = captured(&model, &TOKENS, Site::MlpHookIn(layer));
        let x = Tensor::<B, 2>::from_data(TensorData::new(x, [TOKENS.len(), d]), &device());
        let features: Vec<f32> = coder.encode(x).into_data().iter::<f32>().collect();
        for (at, value) in features
            .iter()
            .enumerate()
            .filter(|(_, value)| **value > 0.0)
        {
            let kind = NodeKind::Feature {
                layer,
                feature: at % coder.n_codes(),
                position: at / coder.n_codes(),
            };
            let node = made.nodes().iter().find(|node| node.kind == kind).unwrap();
            assert!((node.value - f64::from(*value)).abs() < 1e-6, "{node:?}");
            active += 1;
        }
    }
    assert_eq!(active, made.active_features());
    let logits = captured(&model, &TOKENS, Site::Logits);
    let last = &logits[logits.len() - model.config().d_vocab_out..];
    let mean = last.iter().sum::<f32>() / last.len() as f32;
    let largest = last.iter().copied().fold(f32::MIN, f32::max);
    let first = made
        .nodes()
        .iter()
        .find(|node| matches!(node.kind, NodeKind::Logit { .. }));
    assert!((first.unwrap().value - f64::from(largest - mean)).abs() < 1e-5);
}

/// Without transcoders, all paths of one logit difference followed to their ends, gathered by where they end, are the edges.
#[test]
fn edges_are_the_sums_over_paths() {
    for name in ["gpt2", "qwen2", "gptj", "gemma2"] {
        let model = model(name, Processing::Raw);
        let targets = Targets::Difference(vec![3], vec![4]);
        let made = graph(&model, &[], &GraphSettings::new().with_targets(targets));
        let logit = made.nodes().len() - 1;
        let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
        let column = |at: usize| model.w_u().slice_dim(1, at..at + 1).squeeze_dim::<1>(1);
        let pull = frozen
            .pull(Reader::Final, 6, column(3) - column(4))
            .unwrap();
        let all = PathSettings::default()
            .with_expansions(usize::MAX)
            .with_least(0.0);
        let paths = Paths::new(&frozen, &Transcoders::new()).unwrap();
        let tree = paths.of_pull(&pull, &all).unwrap();
        let mut ends: BTreeMap<NodeKind, f64> = BTreeMap::new();
        for leaf in tree.leaves() {
            let PathStep::Wrote(writer) = leaf.step else {
                panic!("{leaf:?} without a transcoder");
            };
            let kind = match writer {
                Writer::Token { position } => NodeKind::Token {
                    position,
                    token: TOKENS[position],
                },
                Writer::Position { position } => NodeKind::Position { position },
                Writer::Mlp { layer, position } => NodeKind::Error { layer, position },
                Writer::AttentionBias { .. } | Writer::Constant => NodeKind::Bias,
                Writer::Head { .. } => panic!("a head that was not followed"),
            };
            *ends.entry(kind).or_default() += leaf.value;
        }
        let size: f64 = made.edges_into(logit).unwrap().map(f64::abs).sum();
        for (at, node) in made.nodes().iter().enumerate().take(logit) {
            let mut expected = ends.get(&node.kind).copied().unwrap_or_default();
            if node.kind == NodeKind::Bias
                && let Some(b) = model.b_u()
            {
                let b: Vec<f32> = b.into_data().iter::<f32>().collect();
                expected += f64::from(b[3] - b[4]);
            }
            let off = (made.edge(at, logit) - expected).abs() / size;
            assert!(
                off < 1e-5,
                "{name}, {node:?}: {} {expected}",
                made.edge(at, logit)
            );
        }
        let nonzero = ends
            .values()
            .filter(|value| value.abs() > 1e-3 * size)
            .count();
        assert!(nonzero > 10, "{name}: {nonzero} ends");
    }
}

/// What goes through the heads of the last layer is what they write.
#[test]
fn heads_of_the_last_layer_carry_what_they_write() {
    let model = model("qwen3", Processing::Raw);
    let targets = Targets::Difference(vec![3], vec![4]);
    let made = graph(
        &model,
        &coders(&model),
        &GraphSettings::new().with_targets(targets),
    );
    let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
    let column = |at: usize| model.w_u().slice_dim(1, at..at + 1).squeeze_dim::<1>(1);
    let pull = frozen
        .pull(Reader::Final, 6, column(3) - column(4))
        .unwrap();
    let parts = frozen.parts(&pull).unwrap();
    let grid = model.config().grid();
    let through = made.through_heads(made.nodes().len() - 1).unwrap();
    let last = model.config().n_layers - 1;
    let mut largest = 0.0f64;
    for head in 0..model.config().n_heads {
        let head = circuitscope_core::HeadId::new(last, head);
        let written = parts.iter().filter(|part| match part.writer {
            Writer::Head { head: of, .. } => of == head,
            _ => false,
        });
        let written: f64 = written.map(|part| part.value).sum();
        let found = f64::from(through[grid.index(head).unwrap()]);
        assert!((found - written).abs() < 1e-6, "{head}: {found} {written}");
        largest = largest.max(written.abs());
    }
    assert!(largest > 1e-3);
    let table = made.head_influence();
    assert_eq!(table.len(), grid.len());
    assert!(
        table
            .windows(2)
            .all(|pair| pair[0].influence >= pair[1].influence)
    );
}

/// What heads of the last layer move because of a token is what the difference of their `z` adds to the logits, where no feature is
/// between; against the prompt itself no head moves anything, whatever is between.
#[test]
fn contrast_is_what_the_difference_adds() {
    let model = model("qwen2", Processing::Raw);
    let config = model.config();
    let targets = Targets::Difference(vec![3], vec![4]);
    let settings = GraphSettings::new().with_targets(targets);
    let coders = coders(&model);
    let mut others = TOKENS;
    others[2] = 8;
    let [frozen, other] = [&TOKENS, &others].map(|t| Frozen::new(&model, t, &device()).unwrap());
    let by_layer = by_layer(&coders);
    let against = |other| {
        AttributionGraph::against(&frozen, other, &by_layer, &settings, &NoProgress).unwrap()
    };
    for head in against(&frozen).head_influence() {
        assert_eq!(head.contrast, Some(0.0));
    }
    let through_features = against(&other).head_influence();
    assert!(
        through_features
            .iter()
            .any(|head| head.contrast.unwrap().abs() > 1e-3)
    );
    let layer = config.n_layers - 1;
    let width = config.n_heads * config.d_head;
    let z = |tokens: &[u32]| {
        let z = captured(&model, tokens, Site::Z(layer));
        let z = TensorData::new(z[6 * width..7 * width].to_vec(), [width]);
        Tensor::<B, 1>::from_data(z, &device())
    };
    let effect = frozen
        .z_atom_logits(layer, z(&TOKENS) - z(&others), 6)
        .unwrap();
    let effect: Vec<f32> = effect.into_data().iter::<f32>().collect();
    let none = Transcoders::new();
    let found = AttributionGraph::against(&frozen, &other, &none, &settings, &NoProgress).unwrap();
    let found = found.head_influence();
    let mut largest = 0.0f64;
    for head in found.iter().filter(|found| found.head.layer == layer) {
        let row = head.head.head * config.d_vocab_out;
        let expected = f64::from(effect[row + 3] - effect[row + 4]);
        let contrast = head.contrast.unwrap();
        assert!((contrast - expected).abs() < 1e-6, "{head:?}: {expected}");
        largest = largest.max(expected.abs());
    }
    assert!(largest > 1e-3, "{largest}");
    let short = Frozen::new(&model, &TOKENS[..4], &device()).unwrap();
    assert!(AttributionGraph::against(&frozen, &short, &by_layer, &settings, &NoProgress).is_err());
    // Without another prompt there is no contrast.
    let alone = graph(&model, &coders, &settings);
    assert!(
        alone
            .head_influence()
            .iter()
            .all(|head| head.contrast.is_none())
    );
}

/// `w (A + A² + …)` with whole matrices, until a power is 0.
fn power_series(graph: &AttributionGraph) -> Vec<f64> {
    let n = graph.nodes().len();
    let bias = graph
        .nodes()
        .iter()
        .position(|node| node.kind == NodeKind::Bias);
    let bias = bias.unwrap();
    let mut shares = vec![vec![0.0; n]; n];
    for target in graph.target_nodes() {
        let edge = |source: usize| {
            let shown = source != bias;
            if shown {
                graph.edge(source, target).abs()
            } else {
                0.0
            }
        };
        let total: f64 = (0..n).map(edge).sum();
        shares[target] = (0..n).map(|source| edge(source) / total).collect();
    }
    let mut power: Vec<f64> = vec![0.0; n];
    for (at, node) in graph.nodes().iter().enumerate() {
        if let NodeKind::Logit { target } = node.kind {
            power[at] = graph.targets()[target].weight;
        }
    }
    let mut sum = vec![0.0; n];
    while power.iter().any(|x| *x > 0.0) {
        let next = (0..n).map(|source| {
            (0..n)
                .map(|target| power[target] * shares[target][source])
                .sum()
        });
        power = next.collect();
        for (sum, x) in sum.iter_mut().zip(&power) {
            *sum += x;
        }
    }
    sum
}

#[test]
fn influence_is_the_sum_over_all_powers() {
    let model = model("llama", Processing::Folded);
    let made = graph(&model, &coders(&model), &GraphSettings::new());
    let influence = made.influence();
    let expected = power_series(&made);
    for (at, (found, expected)) in influence.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < 1e-9, "{:?}", made.nodes()[at]);
    }
    // All influence starts in the prompt or in errors.
    let weights: f64 = made.targets().iter().map(|target| target.weight).sum();
    let mut starts = [0.0; 2];
    for (node, influence) in made.nodes().iter().zip(&influence) {
        match node.kind {
            NodeKind::Token { .. } | NodeKind::Position { .. } => starts[0] += influence,
            NodeKind::Error { .. } => starts[1] += influence,
            _ => {}
        }
    }
    assert!((starts[0] + starts[1] - weights).abs() < 1e-9);
    let scores = made.scores();
    assert!((scores.replacement - starts[0] / weights).abs() < 1e-9);
    assert!(
        scores.replacement > 0.05 && scores.replacement < 0.95,
        "{scores:?}"
    );
    assert!(
        scores.completeness > scores.replacement && scores.completeness < 1.0,
        "{scores:?}"
    );
    // With the MLPs' own neurons nothing breaks off.
    let neurons = graph(&model, &[], &GraphSettings::new().with_neurons(true));
    assert!(
        neurons.scores().replacement > 0.999,
        "{:?}",
        neurons.scores()
    );
}

#[test]
fn pruning_keeps_what_carries_most() {
    let model = model("gpt2", Processing::Folded);
    let made = graph(&model, &coders(&model), &GraphSettings::new());
    let all = PruneSettings::default().with_nodes(1.0).with_edges(1.0);
    let whole = made.prune(&all).unwrap();
    let some = made.prune(&PruneSettings::default()).unwrap();
    assert!(some.nodes.len() < whole.nodes.len() && some.edges.len() < whole.edges.len() / 2);
    assert!(some.nodes.iter().all(|node| whole.nodes.contains(node)));
    let influence = made.influence();
    let total: f64 = influence.iter().sum();
    let kept: f64 = some.nodes.iter().map(|node| influence[*node]).sum();
    assert!(kept / total > 0.75, "{}", kept / total);
    for (source, target, effect) in &some.edges {
        assert!(some.nodes.contains(source) && some.nodes.contains(target));
        assert_eq!(*effect, made.edge(*source, *target));
    }
    for node in &some.nodes {
        let kind = made.nodes()[*node].kind;
        let (from, to) = (
            some.edges.iter().any(|edge| edge.0 == *node),
            some.edges.iter().any(|edge| edge.1 == *node),
        );
        match kind {
            NodeKind::Feature { .. } => assert!(from && to, "{kind:?}"),
            NodeKind::Error { .. } => assert!(from, "{kind:?}"),
            NodeKind::Bias => panic!("biases are not shown"),
            _ => {}
        }
    }
    let again = graph(&model, &coders(&model), &GraphSettings::new());
    assert_eq!(again.prune(&PruneSettings::default()).unwrap(), some);
    assert!(made.prune(&all.with_nodes(1.5)).is_err());
}

/// Features without a node count as error, and the sums hold.
#[test]
fn fewer_features_than_are_active() {
    let model = model("llama", Processing::Folded);
    let coders = coders(&model);
    let whole = graph(&model, &coders, &GraphSettings::new());
    let settings = GraphSettings::new().with_max_features(25).with_batch(10);
    let made = graph(&model, &coders, &settings);
    assert_eq!(made.target_nodes().count(), 25 + made.targets().len());
    assert_eq!(made.active_features(), whole.active_features());
    check_sums("25 features", &made);
    // The first ten are those with the largest effect on the targets.
    let at = |kind: NodeKind, graph: &AttributionGraph| {
        graph.nodes().iter().position(|node| node.kind == kind)
    };
    let mut largest = (0.0, 0);
    let logit = whole.nodes().len() - whole.targets().len();
    for source in 0..whole.active_features() {
        let effect = whole.edge(source, logit).abs();
        if effect > largest.0 {
            largest = (effect, source);
        }
    }
    assert!(at(whole.nodes()[largest.1].kind, &made).is_some());
    // Edges between what both have are the same.
    let logit_of_made = made.nodes().len() - made.targets().len();
    for (source, node) in made.nodes().iter().enumerate().take(25) {
        let before = at(node.kind, &whole).unwrap();
        let (found, expected) = (made.edge(source, logit_of_made), whole.edge(before, logit));
        assert!((found - expected).abs() < 1e-6, "{node:?}");
    }
}

/// Where one neuron of all is a node, the others are errors: of what MLPs write, through the norm after them where there is one.
#[test]
fn neurons_that_are_no_nodes_are_errors() {
    for name in ["gemma2", "llama"] {
        let model = model(name, Processing::Raw);
        let settings = GraphSettings::new().with_neurons(true).with_max_features(1);
        let made = graph(&model, &[], &settings);
        let NodeKind::Feature {
            layer: kept_layer,
            position: kept,
            ..
        } = made.nodes()[0].kind
        else {
            panic!("{:?}", made.nodes()[0]);
        };
        let d = model.config().d_model;
        let mut compared = 0;
        for layer in 0..model.config().n_layers {
            let output = captured(&model, &TOKENS, Site::MlpOut(layer));
            for (position, output) in output.chunks_exact(d).enumerate() {
                let expected = output
                    .iter()
                    .map(|x| f64::from(*x).powi(2))
                    .sum::<f64>()
                    .sqrt();
                let kind = NodeKind::Error { layer, position };
                let node = made.nodes().iter().find(|node| node.kind == kind).unwrap();
                // These families have no biases of MLPs.
                let same = (node.value - expected).abs() < 1e-5 * expected;
                assert_eq!(
                    same,
                    (layer, position) != (kept_layer, kept),
                    "{name}, {node:?}"
                );
                compared += 1;
            }
        }
        assert_eq!(compared, TOKENS.len() * model.config().n_layers);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model("llama", Processing::Folded);
    let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
    let narrow = Small::random(3, 4, 3, 0);
    let fits = coders(&model);
    let no_such_layer = Transcoders::from([(99, &fits[0] as &dyn Encoder<B>)]);
    let too_narrow = Transcoders::from([(0, &narrow as &dyn Encoder<B>)]);
    let none = Transcoders::new();
    let settings = GraphSettings::new();
    let no_token = settings
        .clone()
        .with_targets(Targets::Tokens(vec![9_999_999]));
    let nothing = settings
        .clone()
        .with_targets(Targets::Difference(vec![1], vec![]));
    let cases = [
        (&no_such_layer, &settings, "layer"),
        (&too_narrow, &settings, "transcoder of layer 0"),
        (&none, &no_token, "target token"),
        (&none, &nothing, "targets"),
        (&none, &settings.clone().with_position(Some(7)), "position"),
        (&none, &settings.clone().with_batch(0), "settings"),
    ];
    for (transcoders, settings, named) in cases {
        let error = AttributionGraph::new(&frozen, transcoders, settings, &NoProgress).unwrap_err();
        assert!(
            matches!(&error, Error::Unfit { what, .. } if what.starts_with(named)),
            "{named}: {error}"
        );
    }
}

/// What starts a path, taken together, is all that the targets are.
#[test]
fn attributions_of_what_starts_paths_sum_to_the_targets() {
    for (name, model) in models() {
        let coders = coders(&model);
        for settings in [
            GraphSettings::new(),
            GraphSettings::new().with_neurons(true),
            GraphSettings::new().with_max_features(25),
        ] {
            let made = graph(&model, &coders, &settings);
            let attributed = made.attributions();
            let value = |starts: bool| -> f64 {
                let nodes = made.nodes().iter().zip(&attributed);
                let own = nodes.filter(|(node, _)| match node.kind {
                    NodeKind::Logit { .. } => !starts,
                    NodeKind::Feature { .. } => false,
                    _ => starts,
                });
                own.map(|(_, value)| value).sum()
            };
            let size: f64 = attributed.iter().map(|value| value.abs()).sum();
            let off = (value(true) - value(false)).abs();
            assert!(off < 1e-5 * size, "{name}: off by {off} of {size}");
        }
    }
}

/// A feature that is active at one position alone, against the same ablation by a dictionary in the pass.
#[test]
fn ablations_are_those_of_a_splice() {
    let model = model("llama", Processing::Folded);
    let coders = coders(&model);
    let settings = GraphSettings::new().with_targets(Targets::Difference(vec![1, 2], vec![5]));
    let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
    let by_layer = by_layer(&coders);
    let made = AttributionGraph::new(&frozen, &by_layer, &settings, &NoProgress).unwrap();
    let of = |layer: usize, feature: usize| {
        let nodes = made.nodes().iter().enumerate();
        let own = nodes.filter(move |(_, node)| {
            matches!(node.kind, NodeKind::Feature { layer: l, feature: f, .. } if (l, f) == (layer, feature))
        });
        own.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let alone: Vec<(usize, usize, usize)> = (0..2)
        .flat_map(|layer| (0..coders[layer].n_codes()).map(move |feature| (layer, feature)))
        .filter_map(|(layer, feature)| match of(layer, feature)[..] {
            [one] => Some((layer, feature, one)),
            _ => None,
        })
        .collect();
    assert!(alone.len() > 2, "{} features", alone.len());
    let nodes: Vec<usize> = alone.iter().map(|one| one.2).collect();
    let exact = made
        .ablate(&frozen, &by_layer, &nodes, 20, &NoProgress)
        .unwrap();
    let difference = |logits: &[f32]| {
        let last = &logits[logits.len() - model.config().d_vocab_out..];
        f64::from(last[1] + last[2]) / 2.0 - f64::from(last[5])
    };
    let before = difference(&captured(&model, &TOKENS, Site::Logits));
    let mut changed = 0;
    for ((layer, feature, _), exact) in alone.into_iter().zip(exact) {
        let without = [feature];
        let replacement = Replacement::Dictionary {
            encoder: &coders[layer],
            keep_error: true,
            without: &without,
        };
        let sites = (Site::MlpHookIn(layer), Site::MlpOut(layer));
        let mut splice = Splice::new(sites.0, sites.1, replacement, false);
        let after = difference(&spliced(&model, &TOKENS, &mut splice));
        assert!(
            (before - after - exact).abs() < 1e-5,
            "layer {layer}, feature {feature}: {} by a splice, {exact}",
            before - after
        );
        changed += usize::from(exact.abs() > 1e-3);
    }
    assert!(changed > 2, "{changed} matter");
    let token = made
        .nodes()
        .iter()
        .position(|node| matches!(node.kind, NodeKind::Token { .. }));
    let refused = made.ablate(&frozen, &by_layer, &[token.unwrap()], 20, &NoProgress);
    assert!(refused.unwrap_err().to_string().contains("no feature"));
}
