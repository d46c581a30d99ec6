//! Whole heads ablated where they write, against edge-patched passes, which split every input.

use circuitscope_core::{Exec, Graph, HeadGrid, Seed, draw};
use circuitscope_eval::causal::{Ablation, CausalEvidence, Metric, PatchedRuns, TokenPair};
use circuitscope_eval::methods::PatchedEdges;
use circuitscope_model::{
    Activation, Decoder, DecoderConfig, Direction, Mlp, Norm, Positions, Rotary, RotaryPairs,
};

use super::*;

/// Sequential and parallel blocks, shared keys with rotation and a gated MLP, no MLPs, no causal mask.
fn models() -> Vec<Decoder<Flex>> {
    let gpt2 = DecoderConfig::gpt2(3, 4, 16, 8, D_VOCAB);
    let llama = gpt2
        .clone()
        .with_norm(Norm::Rms)
        .with_n_key_value_heads(2)
        .with_positions(Positions::Rotary(Rotary::new(
            4,
            100.0,
            RotaryPairs::Halves,
        )))
        .with_mlp(Some(Mlp::new(24, Activation::Silu).with_gated(true)));
    let configs = [
        gpt2.clone(),
        llama.clone(),
        gpt2.clone().with_parallel_attn_mlp(true),
        gpt2.with_mlp(None),
        llama.with_direction(Direction::Bidirectional),
    ];
    let seeds = (20..).map(Seed::new);
    let models = configs.iter().zip(seeds);
    models
        .map(|(config, seed)| config.init(seed, &FlexDevice).with_exec(Exec::all_cores()))
        .collect()
}

/// Pairs that differ from different positions on; one is read before its end.
fn some_pairs() -> Vec<TokenPair> {
    let mut pairs = pairs();
    pairs[2].position = Some(3);
    pairs.push(
        TokenPair::new((8, 9), vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 11])
            .with_right(vec![2])
            .with_wrong(vec![3, 4]),
    );
    pairs
}

fn evidence_of(model: &Decoder<Flex>, ablation: Ablation) -> CausalEvidence<Flex> {
    let metric = Metric::LogitDifference;
    CausalEvidence::new(
        model.clone(),
        some_pairs(),
        metric,
        ablation,
        1 << 30,
        &FlexDevice,
    )
    .unwrap()
}

/// All heads, none, one less, and random ones.
fn sets(grid: HeadGrid) -> Vec<Vec<bool>> {
    let mut rng = Seed::new(7).stream("test/heads").rng();
    let mut sets = vec![vec![true; grid.len()], vec![false; grid.len()]];
    sets.push((0..grid.len()).map(|head| head != grid.len() - 2).collect());
    for _ in 0..3 {
        sets.push(
            (0..grid.len())
                .map(|_| draw::unit(&mut rng) < 0.6)
                .collect(),
        );
    }
    sets
}

fn edges(graph: &Graph, kept: &[bool]) -> Vec<f32> {
    let mut set = vec![1.0; graph.readers() * graph.writers()];
    for (head, _) in graph.grid().heads().zip(kept).filter(|(_, kept)| !**kept) {
        for reader in 0..graph.readers() {
            set[reader * graph.writers() + graph.head_writer(head)] = 0.0;
        }
    }
    set
}

#[test]
fn heads_are_ablated_as_all_their_edges() {
    for (at, model) in models().iter().enumerate() {
        for ablation in ON_ANY_PAIRS {
            let causal = evidence_of(model, ablation);
            let graph = causal.graph();
            let runs = PatchedRuns::new(&causal, 5).unwrap();
            let metrics = [Metric::LogitDifference, Metric::Kl];
            let heads = sets(graph.grid());
            let slow: Vec<Vec<f32>> = heads.iter().map(|kept| edges(&graph, kept)).collect();
            let slow: Vec<&[f32]> = slow.iter().map(Vec::as_slice).collect();
            let expected = runs.from_layer(0).unwrap().run(&slow, &metrics).unwrap();
            let heads: Vec<&[bool]> = heads.iter().map(Vec::as_slice).collect();
            let found = runs.with_heads(&heads, &metrics).unwrap();
            let flat = |values: &[Vec<Vec<f64>>]| values.concat().concat();
            close(
                &format!("{at}, {ablation}"),
                &flat(&found),
                &flat(&expected),
            );
            // Sets of edges that are whole heads take the same way.
            assert_eq!(runs.run(&slow, 0, &metrics).unwrap(), found);
            let clean = runs.clean(Metric::LogitDifference).unwrap();
            close("everything kept", &found[0][0], &clean);

            let circuitscope_measures::Baseline { full, empty } =
                runs.baseline(Metric::LogitDifference).unwrap();
            let none = vec![0.0; graph.readers() * graph.writers()];
            let none = runs.mean_of(&none, 0, Metric::LogitDifference).unwrap();
            let mean = clean.iter().sum::<f64>() / 5.0;
            close("full and empty", &[full, empty], &[mean, none]);
        }
    }
}

#[test]
fn single_writers_are_ablated_as_all_their_edges() {
    for (at, model) in models().iter().enumerate() {
        for ablation in ON_ANY_PAIRS {
            let causal = evidence_of(model, ablation);
            let graph = causal.graph();
            let (writers, readers) = (graph.writers(), graph.readers());
            let sets = (0..writers).map(|writer| {
                let mut set = vec![1.0; writers * readers];
                (0..readers).for_each(|reader| set[reader * writers + writer] = 0.0);
                set
            });
            let sets: Vec<Vec<f32>> = sets.collect();
            let sets: Vec<&[f32]> = sets.iter().map(Vec::as_slice).collect();
            let runs = PatchedRuns::new(&causal, 5).unwrap();
            let metric = Metric::LogitDifference;
            let clean: f64 = runs.clean(metric).unwrap().iter().sum();
            let values = runs.from_layer(0).unwrap().run(&sets, &[metric]).unwrap();
            let expected = values[0]
                .iter()
                .map(|value| (clean - value.iter().sum::<f64>()) / 5.0);
            let expected: Vec<f64> = expected.collect();
            drop(runs);
            let found = nodes_and_edges(causal, PatchedEdges::None);
            close(
                &format!("{at}, {ablation}"),
                &found.nodes.unwrap(),
                &expected,
            );
            assert_eq!(found.edges, None);
        }
    }
}

/// Scores of the graph of a model of any shape.
fn nodes_and_edges(causal: CausalEvidence<Flex>, edges: PatchedEdges) -> GraphScores {
    let grid = causal.graph().grid();
    let labels = [[Polarity::Positive; 5], [Polarity::Negative; 5]].concat();
    let activations = Tensor::zeros([10, grid.len(), 1], &FlexDevice);
    let pairs = (0..5).map(|at| (at, at + 5)).collect();
    let evidence = Evidence::new(grid, activations, labels, pairs).unwrap();
    let evidence = evidence.with_causal(causal);
    let mut settings = settings(1);
    settings.patching.edges = edges;
    let method = method::<B>("activation-patching", &settings, &FlexDevice).unwrap();
    let scores = method.scores(&evidence, Seed::new(0), &NoProgress);
    scores.unwrap().graph.unwrap()
}

#[test]
fn edges_among_the_best_heads_are_those_of_all() {
    let model = &models()[1];
    let all = nodes_and_edges(evidence_of(model, Ablation::Negative), PatchedEdges::All);
    let some = nodes_and_edges(
        evidence_of(model, Ablation::Negative),
        PatchedEdges::Among(3),
    );
    let graph = all.graph;
    assert_eq!(all.nodes, some.nodes);
    let best = Scores::of_graph(GraphScores {
        edges: None,
        ..all.clone()
    });
    let best: Vec<Node> = best.ranking()[..3]
        .iter()
        .map(|(head, _)| Node::Head(*head))
        .collect();
    let mut kept = 0;
    for (writer, reader) in graph.edges() {
        let edge = graph.edges_between(writer, reader);
        let asked = best.contains(&graph.writer(writer))
            && edge
                .iter()
                .any(|edge| edge.destination == Node::Logits || best.contains(&edge.destination));
        let (found, expected) = (
            some.edge(writer, reader).unwrap(),
            all.edge(writer, reader).unwrap(),
        );
        if asked {
            kept += 1;
            assert!(
                (found - expected).abs() < 1e-5,
                "{edge:?}: {found} {expected}"
            );
        } else {
            assert_eq!(found, 0.0, "{edge:?}");
        }
    }
    assert!(kept >= 3, "each of them at least writes to the logits");
}

#[test]
fn choices_of_edges_are_written_by_name() {
    for (text, edges) in [
        ("none", PatchedEdges::None),
        ("all", PatchedEdges::All),
        ("12", PatchedEdges::Among(12)),
    ] {
        assert_eq!(text.parse::<PatchedEdges>().unwrap(), edges);
        assert_eq!(edges.to_string(), text);
    }
    for wrong in ["al", "0", "-1", ""] {
        let error = wrong.parse::<PatchedEdges>().unwrap_err().to_string();
        assert!(error.contains("a number of heads"), "{error}");
    }
}
