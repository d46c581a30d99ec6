use std::collections::BTreeSet;

use circuitscope_measures::compare::Comparison;
use circuitscope_report::{ComparisonPage, Error, Report, render_comparison};
use serde_json::{Value, json};

/// One side: a model of 2 layers of 2 heads, what it says of each head of its circuit.
fn side(method: &str, scores: &[f64], effects: Option<&[f64]>, circuit: &[(&str, usize)]) -> Value {
    let circuit = circuit.iter().map(|(head, rank)| json!({
        "head": head, "rank": rank, "score": scores[0], "does": "from the last token to <IO> (82 %, chance 9 %)"
    }));
    let mut side = json!({
        "examples": "ioi <&>", "model": "tiny", "method": method, "rule": "otsu", "metric": "logit-difference",
        "ablation": "negative", "pairs": 50, "n_layers": 2, "n_heads": 2,
        "circuit": circuit.collect::<Vec<_>>(), "scores": scores
    });
    if let Some(effects) = effects {
        side["effects"] = json!(effects);
    }
    side
}

fn kept(share: f64) -> Value {
    json!({
        "kept": share, "without": 0.07, "random": 0.04, "random_as_good": 1, "randoms": 37, "weak": false,
        "metric": "logit-difference", "pairs": 23
    })
}

fn matched(effects: Option<[&[f64]; 2]>) -> Value {
    let of = |at: usize| effects.map(|effects| effects[at]);
    let head = |head: &str, place: &str, ranks: [usize; 2]| {
        json!({
            "head": head, "place": place, "moved_rank": place == "both", "moved_effect": false,
            "a": { "rank": ranks[0], "score": 7.125, "effect": 0.846, "does": "from the last token to <IO> (82 %)" },
            "b": { "rank": ranks[1], "score": 3.5, "effect": -0.108 }
        })
    };
    json!({
        "schema": 1,
        "a": side("recommended", &[7.125, 3.0, 2.0, 1.0], of(0), &[("L0H0", 1), ("L0H1", 2)]),
        "b": side("nap", &[3.5, 1.0, 2.5, 0.5], of(1), &[("L0H0", 1), ("L1H0", 2)]),
        "agreement": {
            "both": 1, "only_a": 1, "only_b": 1, "both_by_chance": 1.0, "as_many_by_chance": 0.83,
            "jaccard": 0.3333, "jaccard_by_chance": 0.4, "spearman": 0.61, "spearman_effects": 0.52,
            "top": [{ "k": 1, "both": 1.0, "by_chance": 0.25 }, { "k": 2, "both": 1.5, "by_chance": 1.0 }]
        },
        "heads": [
            head("L0H0", "both", [1, 1]), head("L0H1", "only-a", [2, 3]), head("L1H0", "only-b", [3, 2])
        ],
        "roles": [{ "role": "slot:<script>", "a": ["L0H0"], "b": ["L0H0", "L1H0"] }],
        "kept": { "a_in_a": kept(0.78), "a_in_b": kept(0.75), "b_in_a": null, "b_in_b": kept(0.81) },
        "made": [
            { "name": "model", "a": "tiny", "b": "tiny" }, { "name": "method", "a": "recommended", "b": "nap" }
        ]
    })
}

fn page(comparison: Value) -> ComparisonPage {
    ComparisonPage {
        title: "A <b> & B".to_owned(),
        lead: "Two runs of <one> model".to_owned(),
        facts: vec![("A is in".to_owned(), "runs/<a>".to_owned())],
        comparison: serde_json::from_value::<Comparison>(comparison).unwrap(),
        provenance: json!({ "note": "</pre><script>" }),
    }
}

fn rendered(comparison: Value) -> Report {
    render_comparison(&page(comparison)).unwrap()
}

fn effects() -> Value {
    matched(Some([&[0.846, 0.2, 0.0, -0.1], &[-0.108, 0.1, 0.3, 0.0]]))
}

fn whole(html: &str) {
    for outside in [
        "http://", "https://", "src=", "@import", "url(", "<script", "NaN", "inf",
    ] {
        let found = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(outside), "{outside}");
    }
    let ids = html
        .split(" id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    let ids: Vec<&str> = ids.collect();
    let unique: BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    let labelled = html.split("aria-labelledby=\"").skip(1);
    for label in labelled.map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.contains(&label), "{label}");
    }
}

#[test]
fn page_has_every_number_and_no_text_unescaped() {
    let report = rendered(effects());
    let html = &report.html;
    whole(html);
    for text in [
        "A &lt;b&gt; &amp; B",
        "Two runs of &lt;one&gt; model",
        "runs/&lt;a&gt;",
        "method recommended on ioi &lt;&amp;&gt;, model tiny (2 layers of 2 heads), 50 pairs, circuit of 2 heads",
        "1 of 2 heads of A's circuit is among the 2 of B's (Jaccard 0.33; two random circuits of these sizes 0.40)",
        "as many heads in common in 83 % of draws",
        "78 % (without it 7 %; random 4 %, 1 of 37 as good; 23 pairs)",
        "75 % (without it 7 %",
        "81 % (without it 7 %",
        "0.61",
        "0.52",
        "Heads in both circuits (1)",
        "Heads only in A’s circuit (1)",
        "Heads only in B’s circuit (1)",
        "84.6 %",
        "-10.8 %",
        "7.125",
        "3.500",
        "from the last token to &lt;IO&gt; (82 %)",
        "&lt;script&gt;",
        "L0H0, L1H0",
        "nap",
        "&lt;/pre&gt;&lt;script&gt;",
    ] {
        assert!(html.contains(text), "{text}");
    }
    // Conclusions come before everything that they rest on.
    let at = |text: &str| html.find(text).unwrap();
    assert!(at("Jaccard 0.33") < at("<h2"));
    assert_eq!(html.matches("<figure").count(), 3);
}

#[test]
fn pictures_stand_alone_and_tell_places_by_shape() {
    let report = rendered(effects());
    let names: Vec<&str> = report
        .pictures
        .iter()
        .map(|picture| picture.file_name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "heads-a-against-b.svg",
            "heads-a-recommended.svg",
            "heads-b-nap.svg"
        ]
    );
    let scatter = &report.pictures[0].svg;
    assert!(scatter.contains("<title>effect of heads in A against B</title>"));
    assert!(scatter.contains(
        "<desc>effect of 4 heads in A to the right and in B upwards; 1 in both circuits"
    ));
    assert!(scatter.contains("prefers-color-scheme:dark"));
    assert!(scatter.contains(
        "L0H0, in both circuits: rank 1 in A, effect 84.6 %, rank 1 in B, effect -10.8 %"
    ));
    // A disc in both, a triangle for each other, all of them in the legend, too.
    assert_eq!(scatter.matches("class=\"f-l0\"").count(), 2);
    assert_eq!(scatter.matches("class=\"s-l2\"").count(), 2);
    assert_eq!(scatter.matches("class=\"s-l4\"").count(), 2);
    for name in ["L0H0", "L0H1", "L1H0"] {
        assert!(scatter.contains(&format!(">{name}</text>")), "{name}");
    }
    assert!(!scatter.contains(">L1H1</text>"));
    for attribute in ["fill=\"#", "stroke=\"#"] {
        for at in scatter.match_indices(attribute).map(|(at, _)| at) {
            let following = scatter[at..].split('>').next().unwrap();
            assert!(following.contains("class="), "{following}");
        }
    }
}

#[test]
fn without_effects_ranks_are_drawn() {
    let report = rendered(matched(None));
    whole(&report.html);
    assert!(
        report.pictures[0]
            .svg
            .contains("<title>rank of heads in A against B</title>")
    );
    // Nothing measured at all, and all scores alike.
    let mut bare = matched(Some([&[0.0; 4], &[0.0; 4]]));
    bare["kept"] = json!({});
    bare["heads"] = json!([]);
    bare["agreement"] = json!({
        "both": 0, "only_a": 0, "only_b": 0, "both_by_chance": 0.0, "as_many_by_chance": 1.0, "jaccard": 1.0,
        "jaccard_by_chance": 1.0, "top": []
    });
    (bare["a"]["circuit"], bare["b"]["circuit"]) = (json!([]), json!([]));
    let report = rendered(bare);
    whole(&report.html);
    assert!(report.html.contains("neither circuit has any heads"));
    assert!(report.html.contains("Heads in both circuits (0)"));
}

#[test]
fn other_shapes_have_a_table_each() {
    let mut other = effects();
    other["agreement"] = Value::Null;
    other["heads"] = json!([]);
    (other["b"]["n_layers"], other["b"]["n_heads"]) = (json!(4), json!(1));
    let report = rendered(other);
    whole(&report.html);
    assert!(report.html.contains("the models have other shapes"));
    assert!(report.html.contains("Heads of A’s circuit (2)"));
    assert!(report.html.contains("id=\"circuit-b\""));
    assert_eq!(report.pictures.len(), 2);
}

#[test]
fn numbers_that_are_missing_are_an_error() {
    let mut wrong = effects();
    wrong["b"]["effects"] = json!([0.5]);
    let error = render_comparison(&page(wrong)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Scores {
                found: 1,
                expected: 4,
                ..
            }
        ),
        "{error}"
    );
}
