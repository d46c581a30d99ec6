//! Causal methods against limit cases and slower ways to the same numbers, on a small random model.

mod aligned;
mod cards;
mod contrast_metric;
mod matryoshka;
mod norm_after;
mod paths;
mod removal;
mod resample;
mod whole_heads;
mod z_features;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{Exec, Graph, HeadGrid, HeadId, NoProgress, Node, Polarity, Port, Seed};
use circuitscope_eval::causal::{
    Ablation, Between, CausalEvidence, Metric, PatchedRuns, Receiver, TokenPair, last_logits,
    path_patching,
};
use circuitscope_eval::methods::{ALL, MethodSettings, PatchedEdges, PatchingSettings, method};
use circuitscope_eval::{Error, Evidence};
use circuitscope_hooks::{Capture, EdgePatch, Intervene, Intervention, Op, Site, StreamOutputs};
use circuitscope_measures::{GraphScores, Scores};
use circuitscope_model::{Decoder, DecoderConfig};

type B = Autodiff<Flex>;

const D_VOCAB: usize = 13;

pub(crate) fn decoder(seed: u64) -> Decoder<Flex> {
    DecoderConfig::gpt2(2, 3, 12, 8, D_VOCAB)
        .init(Seed::new(seed), &FlexDevice)
        .with_exec(Exec::all_cores())
}

/// What asks nothing of the pairs: `resample` needs another pair of as many tokens.
pub(crate) const ON_ANY_PAIRS: [Ablation; 4] = [
    Ablation::Negative,
    Ablation::Mean,
    Ablation::PositionMean,
    Ablation::Zero,
];

/// Pairs of three lengths.
pub(crate) fn pairs() -> Vec<TokenPair> {
    let prompts: [(&[u32], &[u32]); 4] = [
        (&[1, 2, 3, 4, 5], &[1, 7, 3, 9, 5]),
        (&[6, 7, 8], &[6, 2, 8]),
        (&[2, 4, 6, 8, 10], &[2, 4, 5, 8, 1]),
        (&[9, 3, 1, 12], &[9, 3, 2, 11]),
    ];
    let pair = |(at, (clean, corrupt)): (usize, (&[u32], &[u32]))| {
        TokenPair::new((at, 4 + at), clean.to_vec(), corrupt.to_vec())
            .with_right(vec![at as u32, at as u32 + 1])
            .with_wrong(vec![at as u32 + 5])
    };
    prompts.into_iter().enumerate().map(pair).collect()
}

fn causal(model: &Decoder<Flex>, metric: Metric, ablation: Ablation) -> CausalEvidence<Flex> {
    CausalEvidence::new(
        model.clone(),
        pairs(),
        metric,
        ablation,
        1 << 30,
        &FlexDevice,
    )
    .unwrap()
}

pub(crate) fn evidence(causal: CausalEvidence<Flex>) -> Evidence<Flex> {
    let grid = HeadGrid::new(2, 3);
    let labels = [[Polarity::Positive; 4], [Polarity::Negative; 4]].concat();
    let activations = Tensor::zeros([8, grid.len(), 12], &FlexDevice);
    let pairs = (0..4).map(|at| (at, at + 4)).collect();
    let evidence = Evidence::new(grid, activations, labels, pairs).unwrap();
    evidence.with_causal(causal)
}

fn settings(ig_steps: usize) -> MethodSettings {
    MethodSettings::default().with_patching(
        PatchingSettings::default()
            .with_ig_steps(ig_steps)
            .with_node_ig_steps(ig_steps)
            .with_edges(PatchedEdges::All),
    )
}

fn scores_of(name: &str, evidence: &Evidence<Flex>, ig_steps: usize) -> Scores {
    let method = method::<B>(name, &settings(ig_steps), &FlexDevice).unwrap();
    let scores = method.scores(evidence, Seed::new(0), &NoProgress);
    scores.unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn graph_of(name: &str, evidence: &Evidence<Flex>, ig_steps: usize) -> GraphScores {
    scores_of(name, evidence, ig_steps).graph.unwrap()
}

fn close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    assert!(largest > 1e-4, "{what}: nothing to compare, {largest}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= 2e-4 * largest,
            "{what}, entry {at}: {a} against {b}, largest {largest}"
        );
    }
}

/// `d m / d mask` of the edge-patched forward with all edges on, as `[writers * readers]`.
fn mask_gradient(causal: &CausalEvidence<Flex>, graph: Graph) -> Vec<f64> {
    let model = Decoder::<B>::from_inner(causal.model().clone());
    let (writers, readers) = (graph.writers(), graph.readers());
    let mut sum = vec![0.0; writers * readers];
    for pair in 0..4 {
        let batch = causal.batch::<B>(vec![pair], &FlexDevice);
        let mut capture = Capture::new(StreamOutputs::<B>::sites(&graph));
        model.forward(&batch.corrupt, &mut capture);
        let other = StreamOutputs::take(&graph, capture).unwrap();
        let mask = Tensor::<B, 3>::ones([1, readers, writers], &FlexDevice).require_grad();
        let mut run = (
            EdgePatch::new(graph, other, mask.clone()),
            Capture::new([Site::ResidPost(1)]),
        );
        model.forward(&batch.clean, &mut run);
        let stream = run.1.take(Site::ResidPost(1)).unwrap().get().unwrap();
        let logits = last_logits(&model, &batch.clean, stream);
        let value = batch.targets.values(causal.metric(), logits, None);
        let gradient = mask.grad(&value.sum().backward()).unwrap();
        let gradient: Vec<f32> = gradient.into_data().to_vec().unwrap();
        for reader in 0..readers {
            for writer in 0..graph.visible(reader) {
                sum[writer * readers + reader] +=
                    f64::from(gradient[reader * writers + writer]) / 4.0;
            }
        }
    }
    sum
}

#[test]
fn eap_is_the_gradient_of_the_edge_masks() {
    let model = decoder(1);
    for metric in [Metric::LogitDifference, Metric::ProbabilityDifference] {
        let causal = causal(&model, metric, Ablation::Negative);
        let expected = mask_gradient(&causal, causal.graph());
        let found = graph_of("eap", &evidence(causal), 5).edges.unwrap();
        close(metric.name(), &found, &expected);
    }
}

#[test]
fn a_node_is_the_sum_of_its_edges_to_first_order() {
    let evidence = evidence(causal(
        &decoder(2),
        Metric::LogitDifference,
        Ablation::Negative,
    ));
    for (nodes, edges) in [("nap", "eap"), ("nap-ig", "eap-ig")] {
        let of_edges = graph_of(edges, &evidence, 3);
        let readers = of_edges.graph.readers();
        let edges = of_edges.edges.unwrap();
        let sums: Vec<f64> = edges.chunks(readers).map(|row| row.iter().sum()).collect();
        close(nodes, &graph_of(nodes, &evidence, 3).nodes.unwrap(), &sums);
    }
}

#[test]
fn integration_over_one_point_is_the_clean_gradient() {
    let evidence = evidence(causal(
        &decoder(3),
        Metric::LogitDifference,
        Ablation::Negative,
    ));
    let eap = graph_of("eap", &evidence, 1).edges.unwrap();
    for name in ["eap-ig", "eap-ig-activations"] {
        close(name, &graph_of(name, &evidence, 1).edges.unwrap(), &eap);
    }
    let more = graph_of("eap-ig", &evidence, 4).edges.unwrap();
    assert_ne!(more, eap, "more points are another gradient");
}

/// Many points integrate a node's effect exactly: `Σ Δ · ∫ ∂m` over the path is the whole fall.
#[test]
fn integrated_gradients_of_the_input_add_up_to_the_fall() {
    let causal = causal(&decoder(4), Metric::LogitDifference, Ablation::Negative);
    let runs = PatchedRuns::new(&causal, 4).unwrap();
    let graph = causal.graph();
    let clean: f64 = runs.clean(Metric::LogitDifference).unwrap().iter().sum();
    let none = vec![0.0; graph.readers() * graph.writers()];
    let none: f64 = runs.run(&[&none], 0, &[Metric::LogitDifference]).unwrap()[0][0]
        .iter()
        .sum();
    let input = graph_of("nap-ig", &evidence(causal), 200).nodes.unwrap()[0];
    let fall = (clean - none) / 4.0;
    assert!(
        (input - fall).abs() < 0.01 * fall.abs().max(0.1),
        "{input} against {fall}"
    );
}

#[test]
fn exact_patching_equals_one_set_of_edges_at_a_time() {
    for ablation in ON_ANY_PAIRS {
        let causal = causal(&decoder(5), Metric::LogProbability, ablation);
        let graph = causal.graph();
        let (writers, readers) = (graph.writers(), graph.readers());
        let full = vec![1.0; writers * readers];
        let mut sets = Vec::new();
        for writer in 0..writers {
            let mut set = full.clone();
            (0..readers).for_each(|reader| set[reader * writers + writer] = 0.0);
            sets.push(set);
        }
        let edges: Vec<(usize, usize)> = graph.edges().collect();
        for &(writer, reader) in &edges {
            let mut set = full.clone();
            set[reader * writers + writer] = 0.0;
            sets.push(set);
        }
        let runs = PatchedRuns::new(&causal, 4).unwrap();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / 4.0;
        let clean = mean(&runs.clean(Metric::LogProbability).unwrap());
        let sets: Vec<&[f32]> = sets.iter().map(Vec::as_slice).collect();
        let values = runs.run(&sets, 0, &[Metric::LogProbability]).unwrap();
        let effects: Vec<f64> = values[0].iter().map(|value| clean - mean(value)).collect();
        drop(runs);

        let found = graph_of("activation-patching", &evidence(causal), 5);
        close("nodes", &found.nodes.unwrap(), &effects[..writers]);
        let mut expected = vec![0.0; writers * readers];
        for (&(writer, reader), effect) in edges.iter().zip(&effects[writers..]) {
            expected[writer * readers + reader] = *effect;
        }
        close("edges", &found.edges.unwrap(), &expected);
    }
}

#[test]
fn hisp_is_attribution_to_nothing_prompt_by_prompt() {
    let model = decoder(6);
    let zero = evidence(causal(&model, Metric::LogitDifference, Ablation::Zero));
    let nap = method::<B>("nap", &settings(5), &FlexDevice).unwrap();
    let nap = nap.measure(&zero, Seed::new(0), &NoProgress).unwrap();
    let mut expected = vec![0.0; 6];
    for pair in 0..4 {
        let one = nap.scores(Some(&[pair, pair + 4])).unwrap();
        for (sum, score) in expected.iter_mut().zip(one.nodes) {
            *sum += score / 4.0;
        }
    }
    close("hisp", &scores_of("hisp", &zero, 5).nodes, &expected);
}

#[test]
fn direct_attribution_is_what_is_missing_without_the_writer() {
    let model = decoder(7);
    let causal = causal(&model, Metric::LogitDifference, Ablation::Negative);
    let graph = causal.graph();
    let mut expected = vec![0.0; graph.writers()];
    for pair in 0..4 {
        let batch = causal.batch::<Flex>(vec![pair], &FlexDevice);
        let here = causal.outputs(&model, &batch.clean).unwrap();
        let mut capture = Capture::new([Site::LnFinalScale, Site::Logits]);
        model.forward(&batch.clean, &mut capture);
        let scale = capture.take(Site::LnFinalScale).unwrap();
        let read = |logits: Tensor<Flex, 3>| {
            let logits = batch.clean.last(logits);
            let value = batch.targets.values(Metric::LogitDifference, logits, None);
            f64::from(value.into_scalar())
        };
        let clean = read(capture.take(Site::Logits).unwrap().get().unwrap());
        for (writer, sum) in expected.iter_mut().enumerate() {
            let [_, pos, d_model] = here.input.dims();
            let part = here.writers().narrow(1, writer, 1);
            let part = part.reshape([1, pos, d_model]).neg();
            let changes = [
                Intervention::new(Site::ResidPost(1), Op::Add(part.into())),
                Intervention::new(Site::LnFinalScale, Op::Replace(scale.clone())),
            ];
            let mut run = (Intervene::new(changes), Capture::new([Site::Logits]));
            model.forward(&batch.clean, &mut run);
            let without = read(run.1.take(Site::Logits).unwrap().get().unwrap());
            *sum += (clean - without) / 4.0;
        }
    }
    let found = graph_of("direct-logit-attribution", &evidence(causal), 5);
    close("direct", &found.nodes.unwrap(), &expected);
}

#[test]
fn shares_of_a_reader_add_up_to_one() {
    let evidence = evidence(causal(&decoder(8), Metric::Kl, Ablation::Negative));
    let found = graph_of("information-flow-routes", &evidence, 5);
    let graph = found.graph;
    for reader in 0..graph.readers() {
        let shares: Vec<f64> = (0..graph.visible(reader))
            .map(|writer| found.edge(writer, reader).unwrap())
            .collect();
        let sum: f64 = shares.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "reader {reader}: {sum}");
        assert!(
            shares
                .iter()
                .all(|share| (0.0..=1.0 + 1e-6).contains(share))
        );
    }
    // The first layer reads the input and biases.
    assert!((found.edge(0, 0).unwrap() - 1.0).abs() < 1e-6);
}

/// In the last layer of a model without MLPs nothing lies between a head and the logits.
#[test]
fn decomposition_of_the_last_layer_is_direct() {
    let config = DecoderConfig::gpt2(2, 3, 12, 8, D_VOCAB).with_mlp(None);
    let model: Decoder<Flex> = config
        .init(Seed::new(9), &FlexDevice)
        .with_exec(Exec::all_cores());
    let causal = causal(&model, Metric::LogitDifference, Ablation::Zero);
    let graph = causal.graph();
    let evidence = evidence(causal);
    let direct = graph_of("direct-logit-attribution", &evidence, 5)
        .nodes
        .unwrap();
    let decomposed = graph_of("cd-t", &evidence, 5).nodes.unwrap();
    let last = graph.head_writers(1);
    close("last layer", &decomposed[last.clone()], &direct[last]);
    let first = graph.head_writers(0);
    let through_heads = first
        .clone()
        .any(|w| (decomposed[w] - direct[w]).abs() > 1e-4);
    assert!(through_heads, "earlier heads also work through later ones");
}

/// With patterns and scales of the whole and no MLPs, the pass is linear: two heads of one layer
/// ablated together are the sum of both alone, which is what CD-T follows.
#[test]
fn decomposition_is_the_frozen_pass() {
    let model = decoder(10);
    let causal = causal(&model, Metric::LogitDifference, Ablation::Negative);
    let graph = causal.graph();
    // The MLP of the last layer goes to the logits directly.
    let mlp = graph.mlp_writer(1);
    let mut expected = 0.0;
    for pair in 0..4 {
        let batch = causal.batch::<Flex>(vec![pair], &FlexDevice);
        let (here, other) = (
            causal.outputs(&model, &batch.clean).unwrap(),
            causal.outputs(&model, &batch.corrupt).unwrap(),
        );
        let difference = here.mlps[1].clone() - other.mlps[1].clone();
        let part = batch.clean.last(difference).unsqueeze_dim::<3>(1);
        let stream = batch.clean.last(here.last);
        let weights = vec![0.5f32, 0.5, 1.0];
        let tokens = [pair, pair + 1, pair + 5];
        let mut row = vec![0.0f32; D_VOCAB];
        for (token, weight) in tokens.into_iter().zip(weights) {
            row[token] += if token == pair + 5 { -weight } else { weight };
        }
        let row = Tensor::from_data(TensorData::new(row, [1, D_VOCAB]), &FlexDevice);
        let added = model.direct_logits(stream, part, row);
        expected += f64::from(added.into_scalar()) / 4.0;
    }
    let found = graph_of("cd-t", &evidence(causal), 5).nodes.unwrap()[mlp];
    close("mlp", &[found], &[expected]);
}

#[test]
fn a_resample_is_the_mean_of_its_pairs() {
    let evidence = evidence(causal(
        &decoder(13),
        Metric::LogitDifference,
        Ablation::Negative,
    ));
    let method = method::<B>("eap", &settings(5), &FlexDevice).unwrap();
    let measured = method
        .measure(&evidence, Seed::new(0), &NoProgress)
        .unwrap();
    let edges = |rows: &[usize]| {
        let scores = measured.scores(Some(rows)).unwrap();
        scores.graph.unwrap().edges.unwrap()
    };
    let (first, second) = (edges(&[0, 4]), edges(&[2, 6]));
    let mixed = edges(&[0, 4, 2, 6, 0, 4]);
    let expected: Vec<f64> = first
        .iter()
        .zip(&second)
        .map(|(a, b)| (2.0 * a + b) / 3.0)
        .collect();
    close("mixture", &mixed, &expected);
}

#[test]
fn faults_have_names() {
    let model = decoder(14);
    let kl = evidence(causal(&model, Metric::Kl, Ablation::Negative));
    let eap = method::<B>("eap", &settings(5), &FlexDevice).unwrap();
    let error = eap.scores(&kl, Seed::new(0), &NoProgress).unwrap_err();
    assert!(
        matches!(&error, Error::FlatMetric { method } if method == "eap"),
        "{error}"
    );

    let grid = HeadGrid::new(1, 1);
    let labels = vec![Polarity::Positive, Polarity::Negative];
    let plain = Evidence::new(
        grid,
        Tensor::<Flex, 3>::zeros([2, 1, 3], &FlexDevice),
        labels,
        vec![(0, 1)],
    )
    .unwrap();
    let error = eap.scores(&plain, Seed::new(0), &NoProgress).unwrap_err();
    assert!(
        error.to_string().contains("method `eap` runs the model"),
        "{error}"
    );

    let build = |pairs: Vec<TokenPair>, metric| {
        CausalEvidence::new(
            model.clone(),
            pairs,
            metric,
            Ablation::Negative,
            1 << 30,
            &FlexDevice,
        )
        .unwrap_err()
        .to_string()
    };
    let mut unequal = pairs();
    unequal[1].corrupt.push(3);
    let error = build(unequal, Metric::Kl);
    let expected = "pair 2: prompts of 3 and 4 tokens that cannot be aligned: expected as many, or an alignment";
    assert!(error.starts_with(expected), "{error}");
    let mut unanswered = pairs();
    unanswered[2].wrong.clear();
    assert_eq!(
        build(unanswered, Metric::LogitDifference),
        "pair 3: found no wrong answers, which the metric `logit-difference` reads"
    );
    assert!(build(Vec::new(), Metric::Kl).contains("found 0"));
}

/// One edge at a time, path patching is exact edge patching; a head of the last layer reaches the logits
/// by MLPs and directly, so that all its paths together are its node.
#[test]
fn path_patching_is_edge_and_node_patching() {
    let model = decoder(11);
    let causal = causal(&model, Metric::LogitDifference, Ablation::Negative);
    let graph = causal.graph();
    let exact = graph_of("activation-patching", &evidence(causal.clone()), 5);
    let mean = |effects: Vec<f64>| effects.iter().sum::<f64>() / effects.len() as f64;
    let path = |sender: Node, receiver, between| {
        mean(path_patching(&causal, &[sender], &[receiver], between, 4).unwrap())
    };
    let (sender, reader) = (HeadId::new(0, 2), HeadId::new(1, 1));
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for port in Port::ALL {
        let receiver = Receiver::Port(reader, port);
        for node in [Node::Input, sender.into(), Node::Mlp(0)] {
            found.push(path(node, receiver, Between::Nothing));
            let writer = graph.writer_index(node).unwrap();
            expected.push(exact.edge(writer, graph.port_reader(reader, port)).unwrap());
        }
    }
    let writer = graph.head_writer(sender);
    found.push(path(sender.into(), Receiver::Mlp(1), Between::Nothing));
    expected.push(exact.edge(writer, graph.mlp_reader(1)).unwrap());
    found.push(path(sender.into(), Receiver::Logits, Between::Nothing));
    expected.push(exact.edge(writer, graph.logits()).unwrap());
    found.push(path(reader.into(), Receiver::Logits, Between::Mlps));
    expected.push(exact.nodes.as_ref().unwrap()[graph.head_writer(reader)]);
    close("paths", &found, &expected);

    // Through the MLP, more arrives than along the edge alone.
    let receiver = Receiver::Port(reader, Port::V);
    let edge = path(sender.into(), receiver, Between::Nothing);
    assert!((path(sender.into(), receiver, Between::Mlps) - edge).abs() > 1e-6);

    let nowhere = path_patching(&causal, &[Node::Logits], &[receiver], Between::Mlps, 4);
    assert!(matches!(
        nowhere,
        Err(Error::NoSuchNode { node: Node::Logits })
    ));
    let nowhere = Receiver::Port(HeadId::new(1, 3), Port::Q);
    assert!(path_patching(&causal, &[Node::Input], &[nowhere], Between::Mlps, 4).is_err());
}

/// A mean for each position is the mean of equal prompts at that position; where all prompts have one
/// output at a position, ablation changes nothing there.
#[test]
fn positional_means() {
    let model = decoder(12);
    let pair = |at: usize, corrupt: [u32; 3]| {
        TokenPair::new((at, 2 + at), vec![1, 2, 3], corrupt.to_vec())
            .with_right(vec![4])
            .with_wrong(vec![5])
    };
    // Causal attention: outputs at the first position are alike.
    let pairs = vec![pair(0, [1, 5, 6]), pair(1, [1, 7, 8])];
    let metric = Metric::LogitDifference;
    let ablation = Ablation::PositionMean;
    let causal =
        CausalEvidence::new(model.clone(), pairs, metric, ablation, 1 << 30, &FlexDevice).unwrap();
    let batch = causal.batch::<Flex>(vec![0, 1], &FlexDevice);
    let outputs = causal.outputs(&model, &batch.corrupt).unwrap().writers();
    let ablated = causal.ablated(&batch).unwrap().writers();
    let expected = outputs.mean_dim(0).expand(ablated.dims());
    let gap = (ablated - expected).abs().max().into_scalar();
    assert!(gap < 1e-6, "{gap}");
}

/// Read at another position, a pair says what its prefix says: attention looks back only.
#[test]
fn the_output_is_read_where_a_pair_says() {
    let model = decoder(13);
    let read = |position: Option<usize>, length: usize| {
        let mut pairs = pairs();
        pairs.truncate(1);
        pairs[0].position = position;
        pairs[0].clean.truncate(length);
        pairs[0].corrupt.truncate(length);
        let metric = Metric::LogitDifference;
        let causal = CausalEvidence::new(
            model.clone(),
            pairs,
            metric,
            Ablation::Negative,
            1 << 30,
            &FlexDevice,
        );
        let causal = causal.unwrap();
        let sender = [Node::Head(HeadId::new(0, 1))];
        let to = [Receiver::Logits];
        path_patching(&causal, &sender, &to, Between::Mlps, 1).unwrap()
    };
    close("position", &read(Some(2), 5), &read(None, 3));
    assert_ne!(read(Some(2), 5), read(None, 5));
    let mut beyond = pairs();
    beyond[1].position = Some(3);
    let metric = Metric::LogitDifference;
    let error = CausalEvidence::new(model, beyond, metric, Ablation::Zero, 1 << 30, &FlexDevice);
    assert_eq!(
        error.unwrap_err().to_string(),
        "pair 2: position 3 of a prompt of 3 tokens, expected at most 2"
    );
}
