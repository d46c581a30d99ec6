//! Models that normalise what attention and MLPs write, against hooks on the modules of transformers
//! (`golden/norm_after.py`).

use std::path::Path;

use circuitscope_model::{Processing, load_dir};
use serde_json::Value;

use super::*;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/norm_after.json")).unwrap()
}

fn tokens(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap().iter();
    list.map(|token| token.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap().iter();
    // An edge that is not there has no effect.
    list.map(|x| x.as_f64().unwrap_or_default()).collect()
}

fn matrix(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().flat_map(numbers).collect()
}

fn load(family: &str, processing: Processing) -> Decoder<Flex> {
    let families = "../circuitscope-model/tests/it/golden/families";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(families)
        .join(family);
    let loaded = load_dir(&folder, processing, &FlexDevice, &NoProgress);
    loaded.unwrap().model.with_exec(Exec::all_cores())
}

fn evidence_of(golden: &Value, model: &Decoder<Flex>, ablation: Ablation) -> Evidence<Flex> {
    let given = golden["pairs"].as_array().unwrap();
    let count = given.len();
    let pairs = given.iter().enumerate().map(|(at, pair)| {
        TokenPair::new(
            (at, count + at),
            tokens(&pair["clean"]),
            tokens(&pair["corrupt"]),
        )
        .with_right(vec![pair["right"].as_u64().unwrap() as u32])
        .with_wrong(vec![pair["wrong"].as_u64().unwrap() as u32])
    });
    let metric = Metric::LogitDifference;
    let pairs = pairs.collect();
    let causal =
        CausalEvidence::new(model.clone(), pairs, metric, ablation, 1 << 30, &FlexDevice).unwrap();
    let grid = causal.graph().grid();
    let labels = [Polarity::Positive, Polarity::Negative].map(|label| vec![label; count]);
    let activations = Tensor::zeros([2 * count, grid.len(), 16], &FlexDevice);
    let rows = (0..count).map(|at| (at, count + at)).collect();
    let evidence = Evidence::new(grid, activations, labels.concat(), rows).unwrap();
    evidence.with_causal(causal)
}

/// Each family, as stored and with its norms folded.
fn each(mut check: impl FnMut(&str, &Value, &Value, &Decoder<Flex>)) {
    let golden = golden();
    for family in ["gemma2", "gemma3_text"] {
        for processing in [Processing::Raw, Processing::Folded] {
            let what = format!("{family} {processing}");
            check(&what, &golden, &golden[family], &load(family, processing));
        }
    }
}

#[test]
fn nodes_and_edges_equal_hooks_in_transformers() {
    each(|what, golden, expected, model| {
        let evidence = evidence_of(golden, model, Ablation::Negative);
        let exact = graph_of("activation-patching", &evidence, 5);
        let patched = numbers(&expected["nodes.patching"]);
        close(what, exact.nodes.as_ref().unwrap(), &patched);
        let edges = matrix(&expected["edges"]);
        close(what, exact.edges.as_ref().unwrap(), &edges);
        let eap = graph_of("eap", &evidence, 5).edges.unwrap();
        close(what, &eap, &matrix(&expected["eap"]));
        for (name, key) in [
            ("nap", "nap"),
            ("hisp", "hisp"),
            ("direct-logit-attribution", "direct"),
        ] {
            let found = graph_of(name, &evidence, 5).nodes.unwrap();
            close(&format!("{what} {name}"), &found, &numbers(&expected[key]));
        }
    });
}

#[test]
fn ablated_nodes_equal_hooks_in_transformers() {
    each(|what, golden, expected, model| {
        for ablation in [Ablation::Zero, Ablation::Mean] {
            let evidence = evidence_of(golden, model, ablation);
            let found = graph_of("activation-patching", &evidence, 5).nodes.unwrap();
            let key = format!("nodes.{ablation}");
            close(&format!("{what} {key}"), &found, &numbers(&expected[&key]));
        }
    });
}

/// Heads outside a circuit are replaced in all that reads them, with the scale of the norm as it is.
#[test]
fn a_circuit_keeps_what_transformers_says() {
    each(|what, golden, expected, model| {
        let evidence = evidence_of(golden, model, Ablation::Negative);
        let causal = evidence.causal("test").unwrap();
        let graph = causal.graph();
        let kept: Vec<Vec<u32>> = golden["kept"]
            .as_array()
            .unwrap()
            .iter()
            .map(tokens)
            .collect();
        let mut set = vec![1.0; graph.readers() * graph.writers()];
        for head in graph.grid().heads() {
            if kept.contains(&vec![head.layer as u32, head.head as u32]) {
                continue;
            }
            for reader in 0..graph.readers() {
                set[reader * graph.writers() + graph.head_writer(head)] = 0.0;
            }
        }
        let runs = PatchedRuns::new(causal, 3).unwrap();
        let mean = |of: &str| expected[of].as_f64().unwrap();
        let found = runs.mean_of(&set, 0, Metric::LogitDifference).unwrap();
        assert!((found - mean("circuit")).abs() < 1e-5, "{what}: {found}");
        // All edges on is the model itself.
        let all = vec![1.0; set.len()];
        let found = runs.mean_of(&all, 0, Metric::LogitDifference).unwrap();
        assert!((found - mean("metric")).abs() < 1e-5, "{what}: {found}");
    });
}

/// Integrated over one point it is the plain gradient, and the masks' gradient is that of the edges.
#[test]
fn gradients_agree_among_each_other() {
    each(|what, golden, _, model| {
        let evidence = evidence_of(golden, model, Ablation::Negative);
        let eap = graph_of("eap", &evidence, 1).edges.unwrap();
        for name in ["eap-ig", "eap-ig-activations"] {
            let found = graph_of(name, &evidence, 1).edges.unwrap();
            close(&format!("{what} {name}"), &found, &eap);
        }
        let nap = graph_of("nap", &evidence, 1).nodes.unwrap();
        let found = graph_of("nap-ig", &evidence, 1).nodes.unwrap();
        close(&format!("{what} nap-ig"), &found, &nap);
    });
}

/// Every method that runs the model gives finite scores that are not all alike.
#[test]
fn every_causal_method_runs() {
    each(|what, golden, _, model| {
        let evidence = evidence_of(golden, model, Ablation::Negative);
        let methods = ALL.iter().filter(|about| about.needs.model);
        let methods = methods.map(|about| about.name.as_ref());
        let mut ran = 0;
        for name in methods {
            let scores = scores_of(name, &evidence, 2).nodes;
            assert!(
                scores.iter().all(|score| score.is_finite()),
                "{what} {name}"
            );
            let first = scores[0];
            let alike = scores.iter().all(|score| *score == first);
            assert!(!alike, "{what} {name}: {scores:?}");
            ran += 1;
        }
        assert!(ran >= 12, "{ran} methods");
    });
}
