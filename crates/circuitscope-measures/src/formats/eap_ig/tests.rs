use circuitscope_core::HeadId;

use super::*;

fn graph() -> Graph {
    Graph {
        n_layers: 2,
        n_heads: 2,
        n_key_value_heads: 1,
        mlps: true,
        parallel: false,
    }
}

fn written(file: &GraphFile) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("importances.json");
    file.write(&path).unwrap();
    (folder, path)
}

#[test]
fn what_is_written_is_read_back() {
    let graph = graph();
    let nodes: Vec<f64> = (0..graph.writers())
        .map(|at| at as f64 / 3.0 - 1.0)
        .collect();
    let count = graph.writers() * graph.readers();
    let edges: Vec<f64> = (0..count).map(|at| (at as f64).sin()).collect();
    let head = HeadId::new(1, 1);
    let mut circuit = Circuit::from_heads(graph.grid(), [head]);
    let file = GraphFile::of_scores(&graph, 8, Some(&nodes), Some(&edges), Some(&circuit));
    let (_folder, path) = written(&file);
    assert_eq!(GraphFile::read(&path).unwrap(), file);
    let held = |file: &GraphFile| -> Vec<String> {
        let held = file.edges.iter().filter(|(_, entry)| entry.in_graph);
        held.map(|(edge, _)| edge.to_string()).collect()
    };
    // Nodes alone: every edge among them, through every port.
    assert!(held(&file).contains(&"input->a1.h1<k>".to_owned()));
    assert!(!held(&file).contains(&"input->a1.h0<k>".to_owned()));
    // Both heads of a group read one key.
    let keys = file.edges.iter().filter(|(edge, _)| {
        let name = edge.to_string();
        name == "a0.h0->a1.h0<k>" || name == "a0.h0->a1.h1<k>"
    });
    let keys: Vec<f64> = keys.map(|(_, entry)| entry.score).collect();
    assert_eq!((keys.len(), keys[0]), (2, keys[1]));

    circuit.edges.insert(Edge::new(Node::Mlp(0), head));
    let file = GraphFile::of_scores(&graph, 8, None, Some(&edges), Some(&circuit));
    let ports = ["m0->a1.h1<q>", "m0->a1.h1<k>", "m0->a1.h1<v>"];
    assert_eq!(held(&file), ports, "an open port means all three");
}

#[test]
fn scores_come_back_to_the_graph() {
    let graph = graph();
    let mut edges = vec![0.0; graph.writers() * graph.readers()];
    for (at, (writer, reader)) in graph.edges().enumerate() {
        edges[writer * graph.readers() + reader] = at as f64 - 7.5;
    }
    let nodes: Vec<f64> = (0..graph.writers()).map(|at| at as f64).collect();
    let path = Path::new("f.json");
    let file = GraphFile::of_scores(&graph, 8, Some(&nodes), Some(&edges), None);
    let read = file.scores(path, &graph).unwrap();
    assert_eq!(read.edges.as_ref(), Some(&edges));
    assert_eq!(read.nodes.as_ref(), Some(&nodes));

    // Heads alone, as MIB takes them.
    let file = GraphFile::of_heads(&graph, 8, &[1.0, 2.0, 3.0, 4.0], None);
    let read = file.scores(path, &graph).unwrap();
    assert_eq!(
        read.nodes.unwrap()[graph.head_writer(HeadId::new(1, 0))],
        3.0
    );
    assert_eq!(read.edges, None);

    let other = Graph {
        n_heads: 4,
        ..graph
    };
    assert_eq!(
        file.scores(path, &other).unwrap_err().to_string(),
        "f.json: cfg.n_heads: found 2, expected 4, as the model has"
    );
    let mut partial = file.clone();
    partial.nodes[1].1.score = None;
    assert_eq!(
        partial.scores(path, &graph).unwrap_err().to_string(),
        "f.json: nodes.a0.h0: found no score, expected a score, as other nodes have"
    );
    let mut none = GraphFile::of_heads(&graph, 8, &[0.0; 4], None);
    for (_, entry) in &mut none.nodes {
        entry.score = None;
    }
    assert!(none.scores(path, &graph).is_err());
    let without_mlps = Graph {
        mlps: false,
        ..graph
    };
    assert!(
        file.scores(path, &without_mlps)
            .unwrap_err()
            .to_string()
            .contains("found m0")
    );
}

#[test]
fn files_of_python_have_other_numbers_and_bare_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("older.json");
    let text = r#"{"cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": false, "d_model": 4},
        "nodes": {"input": true, "a0.h0": false, "a0.h1": true, "m0": true, "logits": true},
        "edges": {"input->a0.h0<q>": {"score": NaN, "in_graph": false},
                  "a0.h0->logits": {"score": -3.0, "in_graph": false},
                  "a0.h1->m0": {"score": null, "in_graph": true},
                  "a0.h1->logits": {"score": Infinity, "in_graph": true}}}"#;
    fs_err::write(&path, text).unwrap();
    let file = GraphFile::read(&path).unwrap();
    let of = |name: &str| {
        let node: Node = name.parse().unwrap();
        file.nodes
            .iter()
            .find(|(found, _)| *found == node)
            .unwrap()
            .1
    };
    assert!(of("a0.h1").in_graph && !of("a0.h0").in_graph);
    assert_eq!(of("a0.h1").score, None);
    assert_eq!(
        file.notes,
        [
            "edges without a score count 0: 2",
            "infinite scores count as beyond every finite one: 1"
        ]
    );
    let graph = Graph {
        n_layers: 1,
        n_heads: 2,
        n_key_value_heads: 2,
        ..graph()
    };
    let scores = file.scores(&path, &graph).unwrap();
    assert_eq!(scores.nodes, None);
    let edges = scores.edges.unwrap();
    let at = |head| graph.head_writer(HeadId::new(0, head)) * graph.readers() + graph.logits();
    assert_eq!((edges[at(0)], edges[at(1)]), (-3.0, 6.0));
    assert!(edges.iter().all(|score| score.is_finite()));

    let nodes = text.replace(
        r#""a0.h0": false"#,
        r#""a0.h0": {"in_graph": true, "score": NaN}"#,
    );
    let nodes = nodes.replace(
        r#""a0.h1": true"#,
        r#""a0.h1": {"in_graph": true, "score": 2}"#,
    );
    fs_err::write(&path, nodes).unwrap();
    let error = GraphFile::read(&path)
        .unwrap()
        .scores(&path, &graph)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("found no score, expected a score, as other nodes have")
    );
    fs_err::write(&path, text.replace("NaN", "\"NaN\"")).unwrap();
    let error = GraphFile::read(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("found \"NaN\", expected a number"),
        "{error}"
    );
}

#[test]
fn faults_name_file_field_and_form() {
    let file = GraphFile::of_heads(&graph(), 8, &[0.0; 4], None);
    let fault = |change: &dyn Fn(&mut Value)| {
        let mut value = file.to_json();
        change(&mut value);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.json");
        fs_err::write(&path, value.to_string()).unwrap();
        let message = GraphFile::read(&path).unwrap_err().to_string();
        message[message.find("f.json").unwrap()..].to_owned()
    };
    let found = fault(&|value| {
        let cfg = value["cfg"].as_object_mut().unwrap();
        let size = cfg.remove("n_heads").unwrap();
        cfg.insert("n_head".to_owned(), size);
    });
    assert_eq!(
        found,
        "f.json: cfg.n_heads: found nothing, but `n_head`, expected `n_heads`"
    );
    let found = fault(&|value| value["nodes"]["m0"]["in_graph"] = json!("yes"));
    assert_eq!(
        found,
        "f.json: nodes.m0.in_graph: found \"yes\", expected true or false"
    );
    let found = fault(&|value| value["nodes"]["x9"] = json!({ "in_graph": true }));
    assert!(found.starts_with("f.json: nodes: found \"x9\""), "{found}");
    let found = fault(&|value| value["edges"]["a0.h0->a1.h1"] = json!({}));
    assert!(
        found.contains("a port, such as `a0.h0->a1.h1<q>`"),
        "{found}"
    );
    let found = fault(&|value| value["edges"] = json!([]));
    assert_eq!(found, "f.json: edges: found [], expected an object");
    let found = fault(&|value| *value = json!({ "heads": [1] }));
    assert_eq!(
        found,
        "f.json: the file: found {\"heads\":[1]}, expected an object of `cfg`, `nodes` and `edges`, as EAP-IG writes"
    );
    let found = fault(&|value| *value = json!([1, 2]));
    assert_eq!(
        found,
        "f.json: the file: found [1,2], expected an object of `cfg`, `nodes` and `edges`, as EAP-IG writes"
    );
    for (field, wrong, expected) in [
        ("n_layers", json!(-1), "-1, expected a whole number"),
        ("n_layers", json!(1.5), "1.5, expected a whole number"),
        ("d_model", json!("8"), "\"8\", expected a whole number"),
        ("parallel_attn_mlp", json!(0), "0, expected true or false"),
    ] {
        let found = fault(&|value| value["cfg"][field] = wrong.clone());
        assert_eq!(found, format!("f.json: cfg.{field}: found {expected}"));
    }
    let found = fault(&|value| value["nodes"]["a0.h1"] = json!({ "score": 1.0 }));
    assert_eq!(
        found,
        "f.json: nodes.a0.h1.in_graph: found nothing, expected `in_graph`"
    );
    let found = fault(&|value| value["nodes"]["a0.h1"] = json!(3));
    assert_eq!(found, "f.json: nodes.a0.h1: found 3, expected an object");
    let found =
        fault(&|value| value["edges"]["m0->logits"] = json!({ "scor": 1.0, "in_graph": true }));
    assert_eq!(
        found,
        "f.json: edges.m0->logits.score: found nothing, but `scor`, expected `score`"
    );
}
