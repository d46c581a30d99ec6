use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::{HeadId, Node};
use circuitscope_tasks::{
    AcdcEdge, DOCSTRING, GREATER_THAN, GroundTruth, INDUCTION, IOI, TaskSpec, ground_truths,
};

fn truth(task: &TaskSpec, model: &str, variant: &str) -> GroundTruth {
    let mut all = ground_truths(task, model).unwrap();
    let at = all
        .iter()
        .position(|truth| truth.variant == variant)
        .unwrap();
    all.swap_remove(at)
}

/// How many edges join which kinds of nodes.
fn kinds(truth: &GroundTruth) -> BTreeMap<String, usize> {
    let kind = |node: Node| match node {
        Node::Input => "input",
        Node::Head(_) => "head",
        Node::Mlp(_) => "mlp",
        Node::Logits => "logits",
    };
    let mut counts = BTreeMap::new();
    for edge in &truth.acdc_edges {
        let name = match edge {
            AcdcEdge::Residual(edge) => {
                format!("{}->{}", kind(edge.source), kind(edge.destination))
            }
            AcdcEdge::PortInput(..) => "port input".to_owned(),
            AcdcEdge::HeadOutput(..) => "head output".to_owned(),
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

fn expect(truth: &GroundTruth, heads: usize, edges: &[(&str, usize)], pairs: usize) {
    let expected: BTreeMap<_, _> = edges.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
    let name = format!("{} {}", truth.task, truth.variant);
    assert_eq!(kinds(truth), expected, "{name}");
    assert_eq!(truth.circuit.heads().count(), heads, "{name}");
    assert_eq!(truth.circuit.head_pairs().len(), pairs, "{name}");
    let residual: BTreeSet<_> = truth
        .acdc_edges
        .iter()
        .filter_map(|e| e.residual())
        .collect();
    assert_eq!(truth.circuit.edges, residual, "{name}");
    assert!(
        residual
            .iter()
            .all(|edge| edge.source.precedes(edge.destination))
    );
}

/// 1041 edges (ACDC, figure 14) and 88 pairs of heads.
#[test]
fn ioi_has_the_published_counts() {
    let truth = truth(&IOI, "gpt2-small", "acdc");
    assert_eq!(truth.acdc_edges.len(), 1041);
    // prev->ind 16, ind->S 32, dup->S 24, S->neg 8, S->NM 12, S->backup 32.
    let between_heads = 16 + 32 + 24 + 8 + 12 + 32;
    expect(
        &truth,
        26,
        &[
            ("head output", 78),
            ("mlp->head", 567),
            ("head->mlp", 123),
            ("mlp->mlp", 66),
            ("input->mlp", 12),
            ("mlp->logits", 12),
            ("input->logits", 1),
            ("input->head", 45),
            ("head->head", between_heads),
            ("head->logits", 13),
        ],
        88,
    );
}

/// 262 edges (ACDC, figure 17) and 18 pairs of heads.
#[test]
fn greater_than_has_the_published_counts() {
    let truth = truth(&GREATER_THAN, "gpt2-small", "acdc");
    assert_eq!(truth.acdc_edges.len(), 262);
    expect(
        &truth,
        9,
        &[
            ("input->head", 9),
            ("input->mlp", 4),
            ("head->logits", 6),
            ("mlp->logits", 4),
            // 01->MEARLY 4, AMID->MLATE 23.
            ("head->mlp", 27),
            ("head->head", 54),
            // MEARLY->AMID 72, further MLPs below an AMID head 17.
            ("mlp->head", 89),
            // MEARLY 6, MLATE 6, further pairs among MLPs 0 to 8 30.
            ("mlp->mlp", 42),
            ("head output", 27),
        ],
        18,
    );
}

/// 37 edges (ACDC, docstring) and 12 pairs of heads.
#[test]
fn docstring_has_the_published_counts() {
    let truth = truth(&DOCSTRING, "attn-only-4l", "acdc");
    assert_eq!(truth.acdc_edges.len(), 37);
    expect(
        &truth,
        6,
        &[
            ("input->head", 8),
            ("head->head", 14),
            ("head->logits", 2),
            ("port input", 13),
        ],
        12,
    );
    let edges: BTreeSet<_> = truth.acdc_edges.iter().map(ToString::to_string).collect();
    assert!(edges.contains("a2.h0->a3.h6<k>") && edges.contains("a1.h4<v_input>->a1.h4<v>"));
}

#[test]
fn variants_differ_in_the_heads_that_are_disputed() {
    let heads = |truth: &GroundTruth| truth.circuit.heads().collect::<BTreeSet<_>>();
    let differ = |task, model, other| {
        let a = heads(&truth(task, model, "acdc"));
        let b = heads(&truth(task, model, other));
        let only = |x: &BTreeSet<HeadId>, y: &BTreeSet<HeadId>| {
            x.difference(y).map(ToString::to_string).collect::<Vec<_>>()
        };
        (only(&a, &b), only(&b, &a))
    };
    assert_eq!(
        differ(&IOI, "gpt2-small", "authors"),
        (vec!["L9H0".into()], vec!["L11H3".into()])
    );
    assert_eq!(
        differ(&DOCSTRING, "attn-only-4l", "authors"),
        (vec!["L1H2".into()], vec!["L1H0".into()])
    );
    assert_eq!(
        differ(&DOCSTRING, "attn-only-4l", "hj-8"),
        (vec![], vec!["L0H2".into(), "L0H4".into()])
    );
    let eleven = truth(&DOCSTRING, "attn-only-4l", "hj-11");
    assert_eq!(eleven.circuit.heads().count(), 11);
    let authors = truth(&IOI, "gpt2-small", "authors");
    // A later backup head: 6 further MLP->q,k,v edges, 2 fewer head->MLP edges.
    assert_eq!(authors.acdc_edges.len(), 1041 + 6 - 2);
    assert_eq!(authors.circuit.head_pairs().len(), 88);
}

#[test]
fn every_file_reads_and_names_its_source() {
    for (task, model, variants) in [
        (&IOI, "gpt2-small", vec!["acdc", "authors"]),
        (&GREATER_THAN, "gpt2-small", vec!["acdc", "cd-t"]),
        (
            &DOCSTRING,
            "attn-only-4l",
            vec!["acdc", "authors", "hj-8", "hj-11"],
        ),
        (&DOCSTRING, "gpt2-small", vec![]),
        (&INDUCTION, "gpt2-small", vec![]),
    ] {
        let truths = ground_truths(task, model).unwrap();
        let names: Vec<_> = truths.iter().map(|truth| truth.variant.as_str()).collect();
        assert_eq!(names, variants, "{task} in {model}");
        for truth in &truths {
            assert_eq!(
                (truth.task.as_str(), truth.model.as_str()),
                (task.name.as_ref(), model)
            );
            let json = serde_json::to_string(truth).unwrap();
            assert_eq!(&serde_json::from_str::<GroundTruth>(&json).unwrap(), truth);
            assert!(truth.source.contains("20"), "a year of publication");
            let grouped: BTreeSet<_> = truth.groups.values().flatten().copied().collect();
            assert_eq!(grouped, truth.circuit.heads().collect());
        }
    }
    let wang = ground_truths(&IOI, "gpt2-small").unwrap();
    assert!(
        wang.iter()
            .all(|truth| truth.source.starts_with("Wang et al. 2022"))
    );
}

#[test]
fn unknown_models_are_answered_with_the_nearest() {
    let message = ground_truths(&IOI, "gpt2_small").unwrap_err().to_string();
    assert_eq!(
        message,
        "no circuit is known for model \"gpt2_small\" (did you mean `gpt2-small`?): expected \
         \"gpt2-small\", \"attn-only-4l\" or \"reference\""
    );
}
