//! Compiled programs: their MLPs are transcoders of themselves, and which of them read which is known from their weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use circuitscope_core::{HeadGrid, HeadId, NoProgress};
use circuitscope_features::{
    AttributionGraph, Frozen, GraphSettings, NodeKind, Targets, Transcoders,
};
use circuitscope_model::{Decoder, Processing};
use circuitscope_sae::Encoder;
use serde_json::Value;

use crate::models::{B, Small, device, load};

fn fixture(program: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/tracr");
    let folder = folder.join(program);
    assert!(folder.is_dir(), "needs ../shared/fixtures/tracr/{program}");
    folder
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs_err::read(folder.join(name)).unwrap()).unwrap()
}

/// What reads or writes, without positions.
type Name = String;

fn name(kind: NodeKind) -> Name {
    match kind {
        NodeKind::Feature { layer, .. } => format!("L{layer}M"),
        NodeKind::Token { .. } => "embed".to_owned(),
        NodeKind::Position { .. } => "pos_embed".to_owned(),
        NodeKind::Logit { .. } => "unembed".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The edges of the program that pass on values: to an MLP, to the output or to the values of a head.
fn values(folder: &Path) -> BTreeMap<Name, BTreeSet<Name>> {
    let mut edges: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
    for edge in json(folder, "ground_truth.json")["edges"]
        .as_array()
        .unwrap()
    {
        let text = |key: &str| edge[key].as_str().unwrap().to_owned();
        if ["v", "in"].contains(&text("port").as_str()) {
            edges.entry(text("from")).or_default().insert(text("to"));
        }
    }
    edges
}

fn is_head(name: &str) -> bool {
    name.contains('H')
}

/// Pairs of nodes that are no heads, joined by an edge or through heads.
fn joined(edges: &BTreeMap<Name, BTreeSet<Name>>) -> BTreeSet<(Name, Name)> {
    let mut pairs = BTreeSet::new();
    for from in edges.keys().filter(|from| !is_head(from)) {
        let mut open: Vec<&Name> = edges[from].iter().collect();
        while let Some(to) = open.pop() {
            if is_head(to) {
                open.extend(edges.get(to).into_iter().flatten());
            } else {
                pairs.insert((from.clone(), to.clone()));
            }
        }
    }
    pairs
}

/// The MLP itself as a transcoder: exact, as it is a ReLU between two matrices.
fn itself(model: &Decoder<B>, layer: usize) -> Small {
    let parts = model.mlp_parts(layer).unwrap();
    assert!(parts.gate.is_none());
    Small {
        w_enc: parts.w_in,
        b_enc: parts.b_in,
        w_dec: parts.w_out,
        b_dec: parts.b_out,
        skip: None,
    }
}

fn check(program: &str) {
    let folder = fixture(program);
    let model = load(&folder, Processing::Raw);
    let layers = model.config().n_layers;
    let coders: Vec<Small> = (0..layers).map(|layer| itself(&model, layer)).collect();
    let coders: Transcoders<'_, B> = coders
        .iter()
        .enumerate()
        .map(|(layer, coder)| (layer, coder as &dyn Encoder<B>))
        .collect();
    let edges = values(&folder);
    let expected = joined(&edges);
    let outputs = model.config().d_vocab_out as u32;
    let grid = HeadGrid::new(layers, model.config().n_heads);
    let program_heads: BTreeSet<&Name> = edges.keys().filter(|name| is_head(name)).collect();
    let (mut found, mut heads) = (BTreeSet::new(), BTreeSet::new());
    let (mut worst, mut graphs, mut features) = (0.0f64, 0, 0);
    let tests = json(&folder, "io_tests.json");
    for test in tests.as_array().unwrap() {
        let ids = test["ids"].as_array().unwrap().iter();
        let ids: Vec<u32> = ids.map(|id| id.as_u64().unwrap() as u32).collect();
        let frozen = Frozen::new(&model, &ids, &device()).unwrap();
        // Every output at every position but the first, which is no output.
        for position in 1..ids.len() {
            let settings = GraphSettings::new()
                .with_targets(Targets::Tokens((0..outputs).collect()))
                .with_position(Some(position));
            let graph = AttributionGraph::new(&frozen, &coders, &settings, &NoProgress).unwrap();
            graphs += 1;
            features += graph.active_features();
            let influence = graph.influence();
            for node in graph.nodes() {
                if let NodeKind::Error { .. } = node.kind {
                    assert!(node.value < 1e-4, "{program}: {node:?}");
                }
            }
            for target in graph.target_nodes() {
                let node = graph.nodes()[target];
                let all: Vec<f64> = graph.edges_into(target).unwrap().collect();
                let size: f64 = all.iter().map(|edge| edge.abs()).sum();
                let off = (all.iter().sum::<f64>() - node.value).abs() / size.max(1.0);
                worst = worst.max(off);
                for (source, edge) in all.iter().enumerate() {
                    let from = graph.nodes()[source].kind;
                    let constant = matches!(from, NodeKind::Bias | NodeKind::Error { .. });
                    if edge.abs() > 1e-4 && !constant {
                        found.insert((name(from), name(node.kind)));
                    }
                }
                for (head, through) in graph.through_heads(target).unwrap().iter().enumerate() {
                    if through.abs() > 1e-4 {
                        let HeadId { layer, head } = grid.head(head);
                        heads.insert(format!("L{layer}H{head}"));
                    }
                }
                assert!(influence[target] >= 0.0);
            }
            let scores = graph.scores();
            assert!(
                scores.replacement > 0.9999 && scores.completeness > 0.9999,
                "{program}: {scores:?}"
            );
        }
    }
    println!(
        "{program}: {graphs} graphs, {features} features in all; pairs {} of {} of the program, {} others; heads {} of {}; sums off by at \
         most {worst:.1e}",
        found.intersection(&expected).count(),
        expected.len(),
        found.difference(&expected).count(),
        heads.len(),
        program_heads.len(),
    );
    assert!(worst < 1e-5, "{program}: {worst}");
    assert_eq!(found, expected, "{program}");
    assert!(
        heads.iter().all(|head| program_heads.contains(head)),
        "{program}: {heads:?}"
    );
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn hist() {
    check("hist");
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn shift_twice() {
    check("shift_twice");
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn dyck1() {
    check("dyck1");
}
