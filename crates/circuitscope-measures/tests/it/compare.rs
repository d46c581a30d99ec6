use circuitscope_core::HeadId;
use circuitscope_measures::compare::{Comparison, KeptIn, Place};
use circuitscope_measures::{CircuitFigures, DiscoveryFile, Error};
use serde_json::{Value, json};

/// A file of a model of 2 layers of 4 heads: scores by head, and the heads of the circuit.
fn file(scores: [f64; 8], circuit: &[usize]) -> Value {
    let heads = scores.iter().enumerate().map(|(at, score)| {
        json!({
            "head": format!("L{}H{}", at / 4, at % 4),
            "score": score,
            "selected": circuit.contains(&at),
            "differs": 0.5,
        })
    });
    json!({
        "examples": "ioi",
        "metric": { "metric": "logit-difference", "why": "the metric of task `ioi`" },
        "ablation": "negative",
        "method": "recommended",
        "n_layers": 2,
        "n_heads": 4,
        "positives": 50,
        "negatives": 50,
        "heads": heads.collect::<Vec<_>>(),
        "selection": "otsu",
        "quality": {
            "metric": "logit-difference", "ablation": "negative", "pairs": 20, "size": circuit.len(),
            "full": 4.0, "empty": 0.0, "circuit": 3.0, "without": 0.4,
            "random": [0.0, 0.4], "marginal": [], "head_share": 0.75
        },
        "model": {
            "name": "tiny", "family": "GPT-2", "processing": "folded", "dtype": "f32",
            "files": [
                { "name": "config.json", "bytes": 3, "sha256": "c0".repeat(32) },
                { "name": "model.safetensors", "bytes": 3, "sha256": "ab".repeat(32) }
            ]
        },
        "settings": { "methods": { "patching": { "ig_steps": 5 } }, "seed": 0 },
        "provenance": { "program": "circuitscope 0.1.0", "command": [], "device": "CPU" },
        "something new": [1, 2, 3]
    })
}

/// Effects of all heads, and one card for each head of a circuit: its interval and the pattern that is its role.
fn cards(effects: [f64; 8], members: &[(&str, [f64; 2], &str)]) -> Value {
    let heads = members.iter().enumerate().map(|(at, (head, [low, high], role))| {
        json!({
            "head": head, "rank": at + 1,
            "effect": {
                "reference": "differs", "mean": f64::midpoint(*low, *high), "low": low, "high": high, "same_sign": 1.0
            },
            "patched": { "reference": "differs", "mean": 0.1, "pairs": 8 },
            "matters_at": [["last token", 0.9]],
            "patterns": [{
                "pattern": role, "attention": 0.6, "weighted": 0.8, "shuffled": 0.1, "joined": 0.4, "idle": 0.1,
                "role": true
            }],
            "attention": [],
            "writes": {
                "promotes": [], "suppresses": [],
                "copying": { "copied": 0.0, "others": 0.0, "lowered": 0.0, "top": 10 }
            },
            "codes": [], "why": []
        })
    });
    json!({
        "schema": 1, "pairs": 50, "divergence": 5.0, "prompts": [], "heads": heads.collect::<Vec<_>>(),
        "effects": effects, "patterns": [], "links": [], "link_pairs": 0, "repeated": []
    })
}

fn read(value: &Value) -> Result<DiscoveryFile, Error> {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("discovery.json"), value.to_string()).unwrap();
    DiscoveryFile::read(folder.path())
}

fn compared(a: &Value, b: &Value) -> Comparison {
    Comparison::of(&read(a).unwrap(), &read(b).unwrap())
}

fn names<'a>(heads: impl Iterator<Item = &'a HeadId>) -> Vec<String> {
    heads.map(ToString::to_string).collect()
}

const A: [f64; 8] = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0];

#[test]
fn identical_runs_are_alike_in_everything() {
    let one = file(A, &[0, 1, 2]);
    let same = compared(&one, &one);
    let agreement = same.agreement.as_ref().unwrap();
    assert_eq!((agreement.jaccard, agreement.spearman), (1.0, Some(1.0)));
    assert_eq!(
        (agreement.both, agreement.only_a, agreement.only_b),
        (3, 0, 0)
    );
    assert!(agreement.top.iter().all(|top| top.both == top.k as f64));
    assert_eq!(agreement.top.len(), 8);
    assert!(same.heads.iter().all(|head| !head.moved()));
    assert_eq!(same.differences().count(), 0);
    assert_eq!(same.kept.a_in_a, same.kept.b_in_b);
    let said = same.sentences();
    assert!(
        said[0].starts_with("3 of 3 heads of A's circuit are among the 3 of B's (Jaccard 1.00;")
    );
    assert!(
        said.iter()
            .any(|said| said.starts_with("the files name the same model"))
    );
    assert!(!said.iter().any(|said| said.ends_with('.')), "{said:?}");
}

/// By hand: circuits {0, 1, 2} and {1, 2, 3, 7} have two of five heads in common; ranks are 1 … 8 and those of the second
/// order, `ρ = 1 − 6 Σ d² / (8 · 63)`.
#[test]
fn circuits_that_overlap_by_hand() {
    let b = [1.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 8.0];
    let comparison = compared(&file(A, &[0, 1, 2]), &file(b, &[1, 2, 3, 7]));
    let agreement = comparison.agreement.as_ref().unwrap();
    assert_eq!(
        (agreement.both, agreement.only_a, agreement.only_b),
        (2, 1, 2)
    );
    assert_eq!((agreement.jaccard, agreement.both_by_chance), (0.4, 1.5));
    // Of C(8, 3) = 56 sets of three, C(4, 2) · 4 + C(4, 3) = 28 have two or more of four.
    assert!((agreement.as_many_by_chance - 0.5).abs() < 1e-12);
    let rho = 1.0 - 6.0 * (49.0 + 49.0) / (8.0 * 63.0);
    assert!((agreement.spearman.unwrap() - rho).abs() < 1e-12);
    let tops: Vec<f64> = agreement.top.iter().map(|top| top.both).collect();
    assert_eq!(tops, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]);
    assert_eq!(agreement.top[1].by_chance, 0.5);

    let place = |place| names(comparison.heads_in(place).map(|head| &head.head));
    assert_eq!(place(Place::Both), ["L0H1", "L0H2"]);
    assert_eq!(place(Place::OnlyA), ["L0H0"]);
    assert_eq!(place(Place::OnlyB), ["L1H3", "L0H3"]);
    let first = comparison.heads_in(Place::OnlyA).next().unwrap();
    assert_eq!((first.a.rank, first.b.rank), (1, 8));
    assert_eq!((first.a.score, first.b.score), (8.0, 1.0));
    // Only heads in both can have moved.
    assert!(!first.moved_rank);
    let said = comparison.sentences();
    assert_eq!(
        said[0],
        format!(
            "2 of 3 heads of A's circuit are among the 4 of B's (Jaccard 0.40; two random circuits of these sizes {:.2})",
            agreement.jaccard_by_chance
        )
    );
    assert!(said[1].starts_with(
        "warning: two random circuits of these sizes have as many heads in common in 50 % of draws"
    ));
    let has = |text: &str| {
        assert!(
            said.iter().any(|said| said.contains(text)),
            "{text}: {said:#?}"
        );
    };
    has("only in A's circuit: L0H0");
    has("only in B's circuit: L1H3, L0H3");
    has("of the 4 ranked first 3 are the same (by chance 2)");
    has("A's circuit keeps 75 % in A (random 5 %), of what all heads do for the logit difference");
    has("was not measured");
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!(json["heads"][0]["place"], "both");
    assert_eq!(
        serde_json::from_value::<Comparison>(json).unwrap(),
        comparison
    );
}

#[test]
fn heads_in_both_may_have_moved() {
    let (a, mut b) = (
        file(A, &[0, 1]),
        file([7.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], &[0, 1]),
    );
    let ranks = compared(&a, &b);
    assert!(
        ranks
            .heads
            .iter()
            .all(|head| head.moved_rank && !head.moved_effect)
    );
    assert!(
        ranks
            .sentences()
            .iter()
            .any(|said| said.ends_with(": L0H0 (1 to 2), L0H1 (2 to 1)"))
    );
    // Equal scores are not apart, whatever their place in the file.
    b["heads"] = file([7.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], &[0, 1])["heads"].clone();
    assert!(compared(&a, &b).heads.iter().all(|head| !head.moved_rank));
    // Intervals that touch have something in common.
    let effects = [0.4, 0.3, 0.0, 0.0, 0.1, 0.0, 0.0, -0.1];
    let mut a = a;
    a["cards"] = cards(
        effects,
        &[
            ("L0H0", [0.3, 0.5], "slot:IO"),
            ("L0H1", [0.2, 0.4], "induction-1"),
        ],
    );
    b["cards"] = cards(
        effects,
        &[
            ("L0H0", [0.5, 0.7], "slot:S"),
            ("L0H1", [0.1, 0.15], "induction-2"),
        ],
    );
    let effects = compared(&a, &b);
    let moved: Vec<bool> = effects.heads.iter().map(|head| head.moved_effect).collect();
    assert_eq!(moved, [false, true]);
    assert_eq!(
        effects.agreement.as_ref().unwrap().spearman_effects,
        Some(1.0)
    );
    assert_eq!(effects.heads[0].a.effect, Some(0.4));
    let same: Vec<_> = effects
        .heads
        .iter()
        .map(circuitscope_measures::compare::HeadInBoth::same_role)
        .collect();
    assert_eq!(same, [Some(false), Some(true)]);
    let said = effects.sentences();
    let has = |text: &str| {
        assert!(
            said.iter().any(|said| said.contains(text)),
            "{text}: {said:#?}"
        );
    };
    has("have nothing in common (A to B): L0H1 (30.0 % to 12.5 %)");
    has(
        "of the 2 heads in both circuits with roles on both sides 1 has a role in common; none in common: L0H0",
    );
    // Against another reference intervals cannot be compared.
    b["cards"]["heads"][1]["effect"]["reference"] = json!("used");
    assert!(!compared(&a, &b).heads[1].moved_effect);
    let (columns, rows) = effects.heads_table(Place::Both, 9);
    assert_eq!(columns.last().unwrap(), "moved");
    assert_eq!(rows[1][5], "30.0 % (20.0 % to 40.0 %)");
    let (_, roles) = effects.roles_table();
    assert_eq!(roles.len(), 4);
}

#[test]
fn orders_without_order_have_no_correlation() {
    let comparison = compared(&file([1.0; 8], &[]), &file(A, &[]));
    let agreement = comparison.agreement.as_ref().unwrap();
    assert_eq!(agreement.spearman, None);
    assert_eq!((agreement.jaccard, agreement.jaccard_by_chance), (1.0, 1.0));
    // By chance as many as chance gives.
    assert_eq!(agreement.top[3].both, agreement.top[3].by_chance);
    let said = comparison.sentences();
    assert!(said[0].starts_with("neither circuit has any heads"));
    let one = compared(&file(A, &[]), &file(A, &[3]));
    assert!(one.sentences()[0].starts_with("A's circuit has no heads to compare with the 1"));
    assert_eq!(one.agreement.unwrap().jaccard, 0.0);
}

#[test]
fn other_shapes_are_not_matched() {
    let a = file(A, &[0, 1]);
    let mut b = file(A, &[0, 1]);
    (b["n_layers"], b["n_heads"]) = (json!(4), json!(2));
    for at in 0..8 {
        b["heads"][at]["head"] = json!(format!("L{}H{}", at / 2, at % 2));
    }
    let mut first = a.clone();
    first["cards"] = cards([0.0; 8], &[("L0H0", [0.3, 0.5], "previous-token")]);
    b["cards"] = cards([0.0; 8], &[("L0H0", [0.3, 0.5], "previous-token")]);
    let comparison = compared(&first, &b);
    assert!(!comparison.is_matched() && comparison.heads.is_empty());
    assert!(comparison.kept.a_in_a.is_some());
    let said = comparison.sentences();
    assert!(said[0].starts_with(
        "the models have other shapes (A 2 layers of 4 heads, B 4 layers of 2 heads)"
    ));
    assert_eq!(said[1], "A's circuit has 2 of 8 heads, B's 2 of 8 heads");
    assert_eq!(
        said[2],
        "what heads of both circuits attend to: the token before (1 in A, 1 in B)"
    );
    assert!(comparison.top_table().1.is_empty());
    assert_eq!(comparison.a.circuit_table(9).1.len(), 2);
}

fn kept(circuit: f64, random: &[f64]) -> Option<KeptIn> {
    KeptIn::of(&CircuitFigures {
        metric: "logit-difference".to_owned(),
        pairs: 20,
        full: 4.0,
        empty: 0.0,
        circuit,
        without: 0.0,
        random: random.to_vec(),
    })
}

#[test]
fn what_circuits_keep_in_the_other_run_is_concluded_from() {
    let random = [0.2; 20];
    let mut comparison = compared(&file(A, &[0, 1]), &file(A, &[2, 3]));
    let mut says = |a_in_b, b_in_a, text: &str| {
        let own = kept(3.0, &random);
        (comparison.kept.a_in_a, comparison.kept.b_in_b) = (own.clone(), own);
        (comparison.kept.a_in_b, comparison.kept.b_in_a) = (a_in_b, b_in_a);
        let said = comparison.sentences();
        assert!(
            said.iter().any(|said| said.contains(text)),
            "{text}: {said:#?}"
        );
    };
    let as_much = kept(2.8, &random);
    says(
        as_much.clone(),
        as_much.clone(),
        "other heads can do the same work, and neither circuit is the only one",
    );
    says(
        kept(0.2, &random),
        kept(0.1, &random),
        "neither circuit does the other's work",
    );
    says(
        as_much.clone(),
        kept(1.5, &random),
        "A's circuit does in B what B's own does; B's circuit does in A part of",
    );
    says(
        as_much.clone(),
        None,
        "A's circuit does in B what B's own does",
    );
    says(
        as_much.clone(),
        None,
        "A's circuit keeps 75 % in A (random 5 %) and 70 % in B (random 5 %), of what all heads",
    );
    // What as many random circuits keep is no work of the circuit.
    says(
        kept(2.8, &[3.0; 20]),
        None,
        "A's circuit does not do in B what B's own does",
    );
    says(
        kept(2.8, &[3.0; 20]),
        None,
        "warning: 20 of 20 random circuits keep at least as much in B as A's circuit",
    );
    let (_, rows) = comparison.kept_table();
    assert_eq!(
        rows[0][2],
        "70 % (without it 0 %; random 75 %, 20 of 20 as good; 20 pairs)"
    );
    assert_eq!(rows[1][1], "–");
}

#[test]
fn shares_of_little_are_warned_of_and_not_said() {
    let mut weak = file(A, &[0, 1]);
    weak["quality"]["empty"] = json!(3.9);
    let comparison = compared(&weak, &file(A, &[0, 1]));
    assert!(comparison.kept.a_in_a.as_ref().unwrap().weak);
    let said = comparison.sentences();
    assert!(
        said.iter()
            .any(|said| said
                .starts_with("warning: in A ablating all heads hardly lowers the metric"))
    );
    assert!(
        !said
            .iter()
            .any(|said| said.starts_with("A's circuit keeps"))
    );
    assert_eq!(
        comparison.kept_table().1[0][1],
        "says little: all heads hardly matter (20 pairs)"
    );
    weak["quality"]["empty"] = json!(4.0);
    assert_eq!(compared(&weak, &weak).kept.a_in_a, None);
    weak["quality"] = Value::Null;
    assert_eq!(compared(&weak, &weak).kept.a_in_a, None);
}

#[test]
fn differences_are_named_and_weighed() {
    let a = file(A, &[0, 1]);
    let differing = |change: &dyn Fn(&mut Value)| {
        let mut b = a.clone();
        change(&mut b);
        let comparison = compared(&a, &b);
        let names: Vec<String> = comparison
            .differences()
            .map(|made| made.name.clone())
            .collect();
        (names, comparison.sentences())
    };
    let has = |said: &[String], text: &str| {
        assert!(
            said.iter().any(|said| said.contains(text)),
            "{text}: {said:#?}"
        );
    };
    let (names, said) = differing(&|b| b["settings"]["seed"] = json!(7));
    assert_eq!(names, ["seed"]);
    has(&said, "only the seed differs");
    let (names, said) = differing(&|b| {
        b["model"]["files"][1]["sha256"] = json!("ef".repeat(32));
        b["model"]["name"] = json!("tuned");
    });
    assert_eq!(names, ["model", "weights"]);
    has(&said, "the runs differ in the model:");
    has(
        &said,
        "warning: the models are not the same: heads are matched by their place",
    );
    // A copy of the same weights is the same model.
    let (names, said) = differing(&|b| b["model"]["name"] = json!("copy"));
    assert_eq!(names, ["model"]);
    has(&said, "the files name the same model");
    let (names, said) = differing(&|b| {
        b["method"] = json!("nap");
        b["selection"] = json!({ "top": 5 });
        b["examples"] = json!("induction");
        b["settings"]["methods"]["patching"]["ig_steps"] = json!(10);
        b["positives"] = json!(8);
    });
    assert_eq!(
        names,
        [
            "prompts",
            "positive prompts",
            "method",
            "rule",
            "methods.patching.ig_steps"
        ]
    );
    has(
        &said,
        "warning: they differ in the prompts and in how heads were scored and chosen at once",
    );
    has(
        &said,
        "warning: the circuits were found by other methods (recommended, nap), rules (otsu, top:5)",
    );
    has(&said, "warning: B rests on 8 pairs");
    let (names, said) = differing(&|b| b["cards"] = json!({ "schema": 99 }));
    assert!(names.is_empty());
    has(&said, "warning: what heads do in B is written in form 99");
}

/// A change of a file.
type Change = dyn Fn(&mut Value);

/// Errors name the file, the field, what is there and what should be.
#[test]
fn files_that_cannot_be_compared_say_why() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut wrong = file(A, &[0]);
        change(&mut wrong);
        let error = read(&wrong).unwrap_err().to_string();
        assert!(error.contains("discovery.json: "), "{error}");
        error
    };
    let cases: [(&Change, &str); 9] = [
        (
            &|file| drop(file.as_object_mut().unwrap().remove("heads")),
            "missing field `heads`",
        ),
        (&|file| file["method"] = json!(3), "method: invalid type"),
        (
            &|file| file["heads"][2]["score"] = Value::Null,
            "heads[2].score: found null",
        ),
        (
            &|file| file["heads"][1]["head"] = json!("L9H0"),
            "heads[1].head: found L9H0, expected a head of 2 layers of 4",
        ),
        (
            &|file| file["heads"][1]["head"] = json!("L0H0"),
            "heads[1].head: found L0H0 twice",
        ),
        (
            &|file| file["heads"].as_array_mut().unwrap().truncate(7),
            "heads: found 7, expected 8",
        ),
        (
            &|file| file["n_heads"] = json!(u64::MAX),
            "n_heads: found 2 layers of",
        ),
        (
            &|file| file["cards"] = cards([0.0; 8], &[("L7H0", [0.0, 0.1], "slot:S")]),
            "cards.heads[0].head: found L7H0",
        ),
        (&|file| file["cards"] = json!({ "schema": 1 }), "cards."),
    ];
    for (change, expected) in cases {
        let error = refused(change);
        assert!(error.contains(expected), "{error}");
    }

    let folder = tempfile::tempdir().unwrap();
    let said = || DiscoveryFile::read(folder.path()).unwrap_err().to_string();
    assert!(said().contains("found no discovery.json, expected the folder that `discover` wrote"));
    fs_err::write(folder.path().join("settings.json"), "{}").unwrap();
    assert!(said().contains("found results of `eval`"), "{}", said());
    fs_err::write(folder.path().join("discovery.json"), "{ \"heads\": [NaN").unwrap();
    assert!(said().contains("discovery.json: "), "{}", said());
    let missing = folder.path().join("nothing.json");
    let missing = DiscoveryFile::read(&missing).unwrap_err().to_string();
    assert!(missing.contains("nothing.json"), "{missing}");
}
