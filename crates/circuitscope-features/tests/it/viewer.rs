//! The file of Neuronpedia's viewer.

use std::collections::BTreeSet;

use circuitscope_core::NoProgress;
use circuitscope_features::{
    AttributionGraph, Frozen, GraphSettings, PruneSettings, Targets, Transcoders, ViewerPrompt,
};
use circuitscope_model::Processing;
use circuitscope_sae::Encoder;
use serde_json::Value;

use crate::models::{B, Small, TOKENS, device, model};

/// The fields that the published schema requires, with their types.
const REQUIRED: [(&str, &[(&str, &str)]); 4] = [
    (
        "/metadata",
        &[
            ("slug", "string"),
            ("scan", "string"),
            ("prompt_tokens", "array"),
            ("prompt", "string"),
        ],
    ),
    ("/qParams", &[]),
    (
        "/nodes",
        &[
            ("node_id", "string"),
            ("feature", "integer"),
            ("layer", "string"),
            ("ctx_idx", "integer"),
            ("feature_type", "string"),
            ("jsNodeId", "string"),
            ("clerp", "string"),
        ],
    ),
    (
        "/links",
        &[
            ("source", "string"),
            ("target", "string"),
            ("weight", "number"),
        ],
    ),
];

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => value.is_array(),
    }
}

#[test]
fn features_in_the_viewers_file() {
    let model = model("gpt2", Processing::Folded);
    let d = model.config().d_model;
    let coder = Small::random(d, 20, d, 2);
    let coders = Transcoders::from([(1, &coder as &dyn Encoder<B>)]);
    let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
    let settings = GraphSettings::new().with_targets(Targets::Top(3));
    let graph = AttributionGraph::new(&frozen, &coders, &settings, &NoProgress).unwrap();
    let whole = PruneSettings::default().with_nodes(1.0).with_edges(1.0);
    let pruned = graph.prune(&whole).unwrap();
    let prompt = ViewerPrompt {
        slug: "a-graph".to_owned(),
        scan: "tiny".to_owned(),
        prompt: "a \"b\"".to_owned(),
        prompt_tokens: TOKENS.iter().map(|token| format!("<{token}>")).collect(),
        targets: vec!["x".to_owned(), "y".to_owned(), "z".to_owned()],
        ..ViewerPrompt::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph.json");
    pruned.write_viewer(&graph, &prompt, &file).unwrap();
    let json: Value = serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap();
    for (place, fields) in REQUIRED {
        let part = json.pointer(place).unwrap();
        let all = part.as_array().cloned().unwrap_or(vec![part.clone()]);
        assert!(!all.is_empty(), "{place}");
        for (entry, (field, kind)) in all.iter().flat_map(|e| fields.iter().map(move |f| (e, f))) {
            assert!(is(&entry[field], kind), "{place}: {field} of {entry}");
        }
    }
    let nodes = json["nodes"].as_array().unwrap();
    let text = |node: &Value, key: &str| node[key].as_str().unwrap().to_owned();
    let ids: BTreeSet<String> = nodes.iter().map(|node| text(node, "node_id")).collect();
    let js: BTreeSet<String> = nodes.iter().map(|node| text(node, "jsNodeId")).collect();
    assert_eq!((ids.len(), js.len()), (nodes.len(), nodes.len()));
    for link in json["links"].as_array().unwrap() {
        for end in ["source", "target"] {
            assert!(ids.contains(link[end].as_str().unwrap()), "{link}");
        }
    }
    let kinds: BTreeSet<String> = nodes
        .iter()
        .map(|node| text(node, "feature_type"))
        .collect();
    let expected = [
        "cross layer transcoder",
        "embedding",
        "logit",
        "mlp reconstruction error",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into());
    for node in nodes {
        let position = node["ctx_idx"].as_u64().unwrap() as usize;
        assert!(position < TOKENS.len());
        if node["feature_type"] != "cross layer transcoder" {
            continue;
        }
        // The viewer takes the number of the feature from the pairing.
        let paired = node["feature"].as_i64().unwrap() as f64;
        let w = (((8.0 * paired + 1.0).sqrt() - 1.0) / 2.0).floor();
        let feature = paired - w * (w + 1.0) / 2.0;
        let expected = format!("{}_{feature}_{position}", node["layer"].as_str().unwrap());
        assert_eq!(text(node, "node_id"), expected);
        assert!(node["activation"].as_f64().unwrap() > 0.0);
        assert!(node["influence"].as_f64().unwrap() <= 1.0);
    }
    let wrong = ViewerPrompt {
        targets: Vec::new(),
        ..prompt
    };
    assert!(pruned.to_viewer_json(&graph, &wrong).is_err());
}
