//! Scores of resamples, and scores made of a graph's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{Graph, HeadId, NoProgress, Node, Port, Seed};
use circuitscope_eval::methods::{about, method};
use circuitscope_eval::{ActivationSource, Error, Evidence};
use circuitscope_measures::{GraphScores, Scores};
use circuitscope_score::stats::{Resample, half_samples, relabellings};

use crate::methods::{names, planted, settings};

type B = Autodiff<Flex>;

#[test]
fn the_examples_themselves_are_a_resample_that_changes_nothing() {
    let evidence = planted(0);
    let rows: Vec<usize> = (0..evidence.labels().len()).collect();
    for name in names().filter(|name| *name != "random") {
        let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
        let measured = method
            .measure(&evidence, Seed::new(1), &NoProgress)
            .unwrap();
        let all = measured.scores(None).unwrap();
        let same = measured.scores(Some(&rows)).unwrap();
        if about(name).unwrap().needs.reads_once || name == "linear-probe" {
            assert_eq!(same, all, "{name}");
        }
        // Sums over examples in another order.
        close(&same.nodes, &all.nodes, name);
        // Five of the eight things that planted heads tell apart.
        let few: Vec<usize> = (0..10).flat_map(|at| [at / 2, 40 + at / 2]).collect();
        let fewer = measured.scores(Some(&few)).unwrap();
        if name == "sae" {
            assert_eq!(fewer.ranking()[0].1, 5.0);
        }
    }
}

fn close(found: &[f64], expected: &[f64], name: &str) {
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(
            off <= 1e-5 * expected.abs().max(1.0),
            "{name}: {found} {expected}"
        );
    }
}

/// Reads a tensor group by group, last examples first, and counts the examples read.
#[derive(Debug)]
struct Counted(Tensor<Flex, 3>, AtomicUsize);

impl ActivationSource<Flex> for Counted {
    fn shape(&self) -> [usize; 3] {
        self.0.dims()
    }

    fn device(&self) -> FlexDevice {
        FlexDevice
    }

    fn blocks(&self) -> Vec<Vec<usize>> {
        let backwards: Vec<usize> = (0..self.0.dims()[0]).rev().collect();
        backwards.chunks(7).map(<[usize]>::to_vec).collect()
    }

    fn read(&self, examples: &[usize]) -> Result<Tensor<Flex, 3>, Error> {
        self.1.fetch_add(examples.len(), Ordering::Relaxed);
        let parts = examples
            .iter()
            .map(|&at| self.0.clone().slice_dim(0, at..=at));
        Ok(Tensor::cat(parts.collect(), 0))
    }
}

#[test]
fn activations_that_are_not_held_give_the_same_scores() {
    let held = planted(0);
    let source = Arc::new(Counted(held.activations().unwrap(), AtomicUsize::new(0)));
    let stream = || {
        let (labels, pairs) = (held.labels().to_vec(), held.pairs().to_vec());
        Evidence::streamed(held.grid(), source.clone(), labels, pairs).unwrap()
    };
    let examples = held.labels().len();
    for name in names() {
        // New evidence for each: none finds the codes of another.
        let streamed = stream().with_last(stream()).unwrap();
        let fresh = held.sampled(None).unwrap();
        let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
        let scores = |evidence| method.scores(evidence, Seed::new(1), &NoProgress).unwrap();
        source.1.store(0, Ordering::Relaxed);
        let (found, expected) = (scores(&streamed), scores(&fresh));
        // Sums over examples in another order.
        close(&found.nodes, &expected.nodes, name);
        let read = source.1.load(Ordering::Relaxed);
        if about(name).unwrap().needs.reads_once {
            assert!(read < 2 * examples, "{name} read {read} of {examples}");
        } else if name != "random" {
            assert!(read >= examples, "{name} read {read} of {examples}");
        }
    }
}

/// A hundred halves of the prompts, and fifty labellings, are one pass over activations that are not held: two where
/// the spread within classes is asked for, which is measured about their means.
#[test]
fn many_samples_are_one_pass() {
    let held = planted(0);
    let source = Arc::new(Counted(held.activations().unwrap(), AtomicUsize::new(0)));
    let (labels, pairs) = (held.labels().to_vec(), held.pairs().to_vec());
    let streamed = Evidence::streamed(held.grid(), source.clone(), labels, pairs).unwrap();
    let examples = held.labels().len();
    let halves = half_samples(held.labels(), held.pairs(), 100, Seed::new(3)).unwrap();
    let others = relabellings(held.labels(), held.pairs(), 50, Seed::new(3)).unwrap();
    for (name, passes) in [
        ("mean-difference", 1),
        ("relative-difference", 1),
        ("standardised-difference", 3),
        ("activation-norm", 1),
        ("activation-variance", 3),
        ("activation-variance-all", 3),
        ("linear-probe", 1),
    ] {
        let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
        let of = |evidence| method.measure(evidence, Seed::new(1), &NoProgress).unwrap();
        let (found, expected) = (of(&streamed), of(&held));
        let count = if name == "linear-probe" { 3 } else { 100 };
        let rows: Vec<&[usize]> = halves[..count].iter().map(Resample::rows).collect();
        let mut all = Vec::new();
        source.1.store(0, Ordering::Relaxed);
        let each = found.each(&rows, &mut |scores| {
            all.push(scores);
            Ok(())
        });
        each.unwrap();
        let read = source.1.load(Ordering::Relaxed);
        assert_eq!(read, passes * examples, "{name}");
        // What is scored is what the sample's own examples give.
        for (scores, rows) in all.iter().zip(&rows).step_by(9) {
            let alone = held.sampled(Some(rows)).unwrap();
            if name == "linear-probe" {
                let one = expected.scores(Some(rows)).unwrap();
                close(&scores.nodes, &one.nodes, name);
                continue;
            }
            let one = method.scores(&alone, Seed::new(1), &NoProgress).unwrap();
            close(&scores.nodes, &one.nodes, name);
            let [edges, one] = [scores, &one].map(|scores| scores.edges.clone().unwrap());
            close(&edges, &one, name);
        }
        source.1.store(0, Ordering::Relaxed);
        let Some(under) = found.relabelled(&others) else {
            assert_eq!(name, "linear-probe");
            continue;
        };
        let read = source.1.load(Ordering::Relaxed);
        assert_eq!(read, passes * examples, "{name}");
        for (scores, labels) in under.unwrap().iter().zip(&others).step_by(9) {
            let activations = held.activations().unwrap();
            let other = Evidence::new(held.grid(), activations, labels.clone(), Vec::new());
            let one = method.scores(&other.unwrap(), Seed::new(1), &NoProgress);
            close(scores, &one.unwrap().nodes, name);
        }
    }
}

#[test]
fn copies_of_a_pair_are_pairs() {
    let evidence = planted(0);
    let rows = [3, 43, 5, 3, 43, 7];
    assert_eq!(evidence.sampled_pairs(&rows), [(3, 43), (3, 43)]);
    let sampled = evidence.sampled(Some(&rows)).unwrap();
    assert_eq!(sampled.pairs(), [(0, 1), (3, 4)]);
    assert_eq!(sampled.labels()[5], evidence.labels()[7]);
    let copied: Vec<f32> = sampled.rows(&[4]).unwrap().into_data().to_vec().unwrap();
    let original: Vec<f32> = evidence.rows(&[43]).unwrap().into_data().to_vec().unwrap();
    assert_eq!(copied, original);
    assert!(evidence.sampled(Some(&[0, 1])).is_err(), "one class only");
}

#[test]
fn graph_scores_rank_by_size_and_pairs_by_their_largest_port() {
    let graph = Graph {
        n_layers: 2,
        n_heads: 2,
        n_key_value_heads: 1,
        mlps: true,
        parallel: false,
    };
    let reader = |head: HeadId, port| graph.port_reader(head, port);
    let (writer, late) = (HeadId::new(0, 1), HeadId::new(1, 0));
    let mut edges = vec![0.0; graph.writers() * graph.readers()];
    let mut set = |w: usize, r: usize, value: f64| edges[w * graph.readers() + r] = value;
    let from = graph.writer_index(writer.into()).unwrap();
    set(from, reader(late, Port::Q), 0.5);
    // Both heads of the second layer share one key reader.
    set(from, reader(late, Port::K), -2.0);
    set(from, graph.logits(), 1.0);
    set(
        graph.writer_index(Node::Mlp(0)).unwrap(),
        graph.logits(),
        9.0,
    );
    let edges_only = GraphScores {
        graph,
        nodes: None,
        edges: Some(edges.clone()),
    };
    let scores = Scores::of_graph(edges_only);
    assert_eq!(scores.nodes, [0.0, 2.0, 0.0, 0.0]);
    let pairs = scores.edges.unwrap();
    assert_eq!((pairs[4 + 2], pairs[4 + 3]), (2.0, 2.0));
    assert_eq!(pairs.iter().filter(|score| **score != 0.0).count(), 2);

    let nodes = vec![7.0, -1.0, 2.0, 8.0, -3.0, 0.0, 5.0];
    let both = GraphScores {
        graph,
        nodes: Some(nodes),
        edges: Some(edges),
    };
    assert_eq!(Scores::of_graph(both).nodes, [1.0, 2.0, 3.0, 0.0]);
}
