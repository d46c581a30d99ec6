//! Methods that go from prompt to prompt: `nap-eg` and `eap-eg` against the gradients that they are a draw of, and `ceap`.

use circuitscope_eval::Discover;
use circuitscope_eval::methods::Attribution;

use super::*;

fn scored(method: &Attribution<B>, evidence: &Evidence<Flex>, seed: u64) -> GraphScores {
    let scores = method.scores(evidence, Seed::new(seed), &NoProgress);
    scores.unwrap().graph.unwrap()
}

fn both(ig_steps: usize) -> [Attribution<B>; 2] {
    let settings = settings(ig_steps).patching;
    [
        Attribution::nap_eg(settings, FlexDevice),
        Attribution::eap_eg(settings, FlexDevice),
    ]
}

/// What nodes or edges score, whichever there are.
fn values(scores: &GraphScores) -> &[f64] {
    let edges = scores.edges.as_deref();
    edges.or(scores.nodes.as_deref()).unwrap()
}

/// At the clean end of the way there is nothing to draw.
#[test]
fn at_the_prompts_they_are_attribution_patching() {
    for ablation in [Ablation::Negative, Ablation::Mean] {
        let causal = causal(&decoder(3), Metric::LogitDifference, ablation);
        let evidence = evidence(causal);
        for (method, name) in both(1).into_iter().zip(["nap", "eap"]) {
            let found = scored(&method.at(1.0), &evidence, 0);
            let expected = graph_of(name, &evidence, 1);
            close(name, values(&found), values(&expected));
        }
    }
}

/// Their mean over many draws is the integral that `nap-ig` and `eap-ig` sum up.
#[test]
fn their_mean_is_the_integral() {
    const DRAWS: u64 = 400;
    let causal = causal(&decoder(5), Metric::LogitDifference, Ablation::Negative);
    let evidence = evidence(causal);
    for (method, name) in both(1).into_iter().zip(["nap-ig", "eap-ig"]) {
        let expected = graph_of(name, &evidence, 200);
        let expected = values(&expected);
        let (mut sum, mut squares) = (vec![0.0; expected.len()], vec![0.0; expected.len()]);
        for seed in 0..DRAWS {
            for (at, value) in values(&scored(&method, &evidence, seed)).iter().enumerate() {
                sum[at] += value;
                squares[at] += value * value;
            }
        }
        let n = DRAWS as f64;
        let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        for (at, expected) in expected.iter().enumerate() {
            let mean = sum[at] / n;
            let spread = ((squares[at] / n - mean * mean).max(0.0) / n).sqrt();
            // Steps at the far ends of intervals are off by half of one.
            let bound = 5.0 * spread + 0.01 * largest;
            assert!(
                (mean - expected).abs() < bound,
                "{name} {at}: {mean} {expected} {bound}"
            );
            assert!(spread < 0.1 * largest, "{name} {at}: {spread} {largest}");
        }
    }
}

/// One seed, one draw; each pair has its own.
#[test]
fn draws_come_from_the_seed() {
    let causal = causal(&decoder(3), Metric::LogitDifference, Ablation::Negative);
    let evidence = evidence(causal);
    for method in both(1) {
        let of = |seed| scored(&method, &evidence, seed);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}

/// What all writers bring to the logits, step by step, is what the metric differs by between the prompts.
#[test]
fn steps_add_up_to_the_whole() {
    let causal = causal(&decoder(7), Metric::LogitDifference, Ablation::Negative);
    let evidence = evidence(causal);
    // With the input ablated everything is as on the negative prompt.
    let expected = graph_of("activation-patching", &evidence, 1).nodes.unwrap()[0];
    let found = graph_of("ceap", &evidence, 200);
    let graph = found.graph;
    let into_logits = 0..graph.visible(graph.logits());
    let sum: f64 = into_logits
        .map(|writer| found.edge(writer, graph.logits()).unwrap())
        .sum();
    assert!(
        (sum - expected).abs() < 0.02 * expected.abs(),
        "{sum} {expected}"
    );
    // With one step the gradient is that at the negative prompt; `eap-ig` with one takes it at the positive.
    let (few, many) = (
        graph_of("ceap", &evidence, 1),
        graph_of("eap-ig", &evidence, 1),
    );
    assert_ne!(
        few.edges, many.edges,
        "one takes the gradient at the negative prompt, one at the positive"
    );
}
