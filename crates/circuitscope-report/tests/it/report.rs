use circuitscope_core::{Graph, HeadGrid, HeadId, Metric, Seed};
use circuitscope_measures::{
    Baseline, Curve, Faithfulness, GraphScores, MIB_SIZES, Point, Ranking, Spread, SummaryRow,
    circuit_size, mean_roc, mean_std,
};
use circuitscope_report::{Error, MethodReport, Passage, Report, ReportInput, TaskReport, render};
use rand::Rng as _;

const METHODS: [(&str, bool, f64); 6] = [
    ("sae", false, 0.35),
    ("sae-corrected", false, 0.4),
    ("untrained", true, 0.5),
    ("mean-difference", true, 0.7),
    ("paired-flip-rate", true, 0.3),
    ("random", true, 0.0),
];

fn spread(values: &[f64]) -> Spread {
    let (mean, std) = mean_std(values);
    Spread { mean, std }
}

/// A task with invented scores: `seeds` draws a method, measured against `truth`.
fn task(name: &str, grid: HeadGrid, truth: &[HeadId], seed: u64) -> TaskReport {
    let mut rng = Seed::new(seed).rng();
    let mask: Vec<bool> = grid.heads().map(|head| truth.contains(&head)).collect();
    let mut methods: Vec<MethodReport> = Vec::new();
    for (method, control, signal) in METHODS {
        let draws: Vec<Vec<f64>> = (0..5)
            .map(|_| {
                let draw = |on: &bool| {
                    let noise = (rng.next_u32() >> 8) as f64 / f64::from(1 << 24);
                    (100.0 * (noise * (1.0 - signal) + if *on { signal } else { 0.0 })).floor()
                };
                mask.iter().map(draw).collect()
            })
            .collect();
        let rankings: Vec<Ranking> = draws
            .iter()
            .map(|scores| Ranking::new(&mask, scores).unwrap())
            .collect();
        let of =
            |value: fn(&Ranking) -> f64| spread(&rankings.iter().map(value).collect::<Vec<_>>());
        let edges = (method != "random").then(|| of(Ranking::auc_pessimistic));
        let curves: Vec<_> = rankings.iter().map(Ranking::roc).collect();
        methods.push(MethodReport {
            method: method.to_owned(),
            summary: format!("what {method} scores"),
            control,
            scores: (0..grid.len())
                .map(|head| draws.iter().map(|draw| draw[head]).sum::<f64>() / 5.0)
                .collect(),
            curve: mean_roc(&curves),
            row: Some(SummaryRow {
                task: name.to_owned(),
                method: method.to_owned(),
                control,
                seeds: 5,
                node_auc: of(Ranking::auc),
                node_auc_pessimistic: of(Ranking::auc_pessimistic),
                node_average_precision: of(Ranking::average_precision),
                precision_at_size: of(Ranking::precision_at_size),
                edge_auc: edges,
                paper_edge_auc: edges,
                best_f1: of(|ranking| ranking.best_f1().f1),
                paper_f1: of(Ranking::best_paper_f1),
                seconds: Spread {
                    mean: 0.8123,
                    std: 0.1,
                },
                node_interval: None,
                edge_interval: None,
                jaccard: None,
                jaccard_by_chance: None,
                node_cpr: None,
                node_cmd: None,
                node_accuracy_area: None,
                against: Vec::new(),
                not_above: Vec::new(),
            }),
            faithfulness: None,
            graph: None,
            pairs: None,
        });
    }
    let beaten: Vec<(String, f64)> = methods
        .iter()
        .filter(|method| method.control)
        .map(|method| {
            (
                method.method.clone(),
                method.row.as_ref().unwrap().node_auc.mean,
            )
        })
        .collect();
    for row in methods
        .iter_mut()
        .filter(|method| !method.control)
        .filter_map(|m| m.row.as_mut())
    {
        row.not_above = beaten
            .iter()
            .filter(|(_, mean)| *mean >= row.node_auc.mean)
            .map(|(name, _)| name.clone())
            .collect();
    }
    TaskReport {
        task: name.to_owned(),
        grid,
        truth: Some(truth.to_vec()),
        truth_name: "planted".to_owned(),
        marked: "in the circuit".to_owned(),
        chosen: Vec::new(),
        passages: Vec::new(),
        methods,
    }
}

/// Every curve has a stroke of its own, colour and dashes together, however many there are.
#[test]
fn many_curves_are_told_apart() {
    let grid = HeadGrid::new(4, 8);
    let mut task = task("crowded", grid, &heads(&[(0, 1), (2, 5)]), 1);
    let six = task.methods.clone();
    for copy in 1..4 {
        task.methods.extend(six.iter().cloned().map(|mut method| {
            method.method = format!("{}-{copy}", method.method);
            method
        }));
    }
    assert_eq!(task.methods.len(), 24);
    let mut input = sample();
    input.tasks = vec![task];
    let report = render(&input).unwrap();
    let roc = report
        .pictures
        .iter()
        .find(|picture| picture.file_name.starts_with("roc"))
        .unwrap();
    let attribute = |line: &str, name: &str| {
        let start = line.split_once(&format!(" {name}=\""))?.1;
        Some(start.split_once('"')?.0.to_owned())
    };
    let strokes: Vec<_> = roc
        .svg
        .lines()
        .filter(|line| line.starts_with("<polyline") && line.contains("class=\"s-l"))
        .map(|line| {
            (
                attribute(line, "stroke").unwrap(),
                attribute(line, "stroke-dasharray"),
            )
        })
        .collect();
    assert_eq!(
        strokes.len(),
        2 * 24,
        "a curve and a line of the legend each"
    );
    let different: std::collections::BTreeSet<_> = strokes.iter().collect();
    assert_eq!(different.len(), 24);
}

fn heads(list: &[(usize, usize)]) -> Vec<HeadId> {
    list.iter()
        .map(|&(layer, head)| HeadId::new(layer, head))
        .collect()
}

fn sample() -> ReportInput {
    let small = HeadGrid::new(4, 8);
    let gpt2 = HeadGrid::new(12, 12);
    let name_movers = heads(&[
        (9, 9),
        (10, 0),
        (9, 6),
        (7, 3),
        (7, 9),
        (8, 6),
        (8, 10),
        (5, 5),
    ]);
    ReportInput {
        title: "Circuits of four tasks <in> a reference model".to_owned(),
        lead: "Discrete codes of a sparse autoencoder, judged by known circuits beside controls."
            .to_owned(),
        facts: [
            ("model", "reference"),
            ("seeds", "5"),
            ("examples", "500 per task"),
            ("device", "cpu"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        tasks: vec![
            task(
                "ioi",
                small,
                &heads(&[(0, 1), (0, 4), (1, 2), (1, 6), (3, 0), (3, 5)]),
                1,
            ),
            task("greater-than", small, &heads(&[(1, 1), (1, 4), (2, 2)]), 2),
            task("ioi-gpt2", gpt2, &name_movers, 3),
        ],
        provenance: serde_json::json!({ "command": "circuitscope eval", "note": "</pre><script>" }),
    }
}

fn rendered() -> Report {
    render(&sample()).unwrap()
}

/// Tags open and close in order: enough of a parser for what the report writes.
pub(crate) fn assert_well_formed(text: &str, void: &[&str]) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag
            .trim_start_matches('/')
            .split([' ', '\n'])
            .next()
            .unwrap()
            .trim_end_matches('/');
        if tag.starts_with('!') || tag.ends_with('/') || void.contains(&name) {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(
                open.pop(),
                Some(name),
                "before {:?}",
                &rest[..rest.len().min(80)]
            );
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn page_is_whole_and_refers_to_nothing_outside() {
    let report = rendered();
    assert_well_formed(&report.html, &["meta"]);
    for outside in ["http://", "https://", "src=", "@import", "url(", "<script"] {
        let found = report.html.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(outside), "{outside}");
    }
    assert!(
        report
            .html
            .contains("Circuits of four tasks &lt;in&gt; a reference model")
    );
    assert_eq!(report.html.matches("<figure").count(), 3 * 7);
}

#[test]
fn pictures_are_documents_with_classes_and_hints() {
    let report = rendered();
    let names: Vec<&str> = report
        .pictures
        .iter()
        .map(|picture| picture.file_name.as_str())
        .collect();
    assert_eq!(names.len(), 3 * 7);
    assert_eq!(names[..2], ["roc-ioi.svg", "heads-ioi-sae.svg"]);
    for picture in &report.pictures {
        assert_well_formed(&picture.svg, &[]);
        assert!(
            picture.svg.starts_with("<svg width=\""),
            "{}",
            picture.file_name
        );
        assert!(picture.svg.contains("prefers-color-scheme:dark"));
        // Every colour is one that the style sheet knows, or an invisible hint.
        for attribute in ["fill=\"#", "stroke=\"#"] {
            for at in picture.svg.match_indices(attribute).map(|(at, _)| at) {
                let following = picture.svg[at..].split('>').next().unwrap();
                let known = following.contains("class=") || following.contains("opacity=\"0\"");
                assert!(known, "{}: {following}", picture.file_name);
            }
        }
    }
    let map = &report.pictures[1].svg;
    assert_eq!(map.matches("<title>").count(), 32);
    assert_eq!(map.matches(", in the circuit</title>").count(), 6);
    // One outline for each true head, and the one of the legend.
    assert_eq!(map.matches("class=\"s-mark\"").count(), 7);
    let curves = &report.pictures[0].svg;
    assert_eq!(curves.matches("<title>").count(), METHODS.len());
    // Controls are dashed, in the plot and in the legend.
    assert_eq!(curves.matches("stroke-dasharray").count(), 2 * 4);
}

#[test]
fn table_says_where_a_method_is_not_above_a_control() {
    let mut input = sample();
    input.tasks.truncate(1);
    let set = |input: &mut ReportInput, not_above: &[&str]| {
        let row = input.tasks[0].methods[0].row.as_mut().unwrap();
        row.not_above = not_above.iter().map(|name| (*name).to_owned()).collect();
    };
    set(&mut input, &["untrained", "random"]);
    let html = render(&input).unwrap().html;
    assert!(html.contains("title=\"not clearly above untrained, random\""));
    assert!(html.contains(
        "<code>sae</code> is not clearly above a control on 1 of 1 task: ioi (untrained, random)."
    ));
    set(&mut input, &[]);
    let html = render(&input).unwrap().html;
    assert!(html.contains("<code>sae</code> is clearly above every control on its one task."));
}

#[test]
fn discovery_needs_no_known_circuit() {
    let method =
        MethodReport::of_scores("sae", "unique codes", vec![0.0, f64::INFINITY, 2.5, 0.25]);
    let input = ReportInput {
        title: "Own prompts".to_owned(),
        lead: String::new(),
        facts: Vec::new(),
        tasks: vec![TaskReport {
            task: "my prompts".to_owned(),
            grid: HeadGrid::new(2, 2),
            truth: None,
            truth_name: String::new(),
            marked: "chosen".to_owned(),
            chosen: Vec::new(),
            passages: Vec::new(),
            methods: vec![method],
        }],
        provenance: serde_json::json!({}),
    };
    let report = render(&input).unwrap();
    assert_well_formed(&report.html, &["meta"]);
    let names: Vec<_> = report
        .pictures
        .iter()
        .map(|picture| &picture.file_name)
        .collect();
    assert_eq!(names, ["heads-my-prompts-sae.svg"]);
    assert!(!report.html.contains("Summary"));
}

#[test]
fn scores_must_fit_the_grid() {
    let mut input = sample();
    input.tasks[1].methods[0].scores.pop();
    let error = render(&input).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Scores {
                found: 31,
                expected: 32,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn writes_page_and_pictures() {
    // Kept, so that it can be looked at.
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("sample-report");
    let report = rendered();
    let page = report.write(&folder).unwrap();
    assert_eq!(fs_err::read_to_string(page).unwrap(), report.html);
    for picture in &report.pictures {
        let path = folder.join("pictures").join(&picture.file_name);
        assert_eq!(fs_err::read_to_string(path).unwrap(), picture.svg);
    }
}

/// A discovery with everything that a page can show: passages, a known circuit beside what was chosen, edges, and
/// what circuits keep.
fn discovery() -> ReportInput {
    let grid = HeadGrid::new(4, 8);
    let graph = Graph {
        n_layers: 4,
        n_heads: 8,
        n_key_value_heads: 8,
        mlps: true,
        parallel: false,
    };
    let known = heads(&[(0, 1), (1, 2), (3, 0)]);
    let mut rng = Seed::new(7).rng();
    let mut draw = || f64::from(rng.next_u32() >> 8) / f64::from(1 << 24);
    let mut task = task("years & \"more\"", grid, &known, 5);
    task.methods.truncate(3);
    for method in &mut task.methods {
        let points = |draw: &mut dyn FnMut() -> f64| -> Vec<Point> {
            MIB_SIZES
                .into_iter()
                .map(|share| Point {
                    share,
                    size: circuit_size(share, 32),
                    faithfulness: share.sqrt() + 0.2 * draw(),
                    kl: 2.0 * (1.0 - share) + 0.2 * draw(),
                    accuracy: None,
                })
                .collect()
        };
        let mut curve = || Curve {
            members: 32,
            signed: points(&mut draw),
            absolute: points(&mut draw),
            cpr: 0.5,
            cmd: 0.5,
            accuracy_area: None,
        };
        method.faithfulness = Some(Faithfulness {
            metric: Metric::LogitDifference,
            pairs: 20,
            baseline: Baseline {
                full: 3.0,
                empty: 0.5,
            },
            nodes: curve(),
            edges: Some(curve()),
        });
    }
    let mut edges = vec![0.0; graph.writers() * graph.readers()];
    for (writer, reader) in graph.edges() {
        edges[writer * graph.readers() + reader] = (draw() - 0.3).powi(5);
    }
    task.methods[0].graph = Some(GraphScores {
        graph,
        nodes: None,
        edges: Some(edges),
    });
    task.chosen = heads(&[(0, 1), (2, 4), (3, 0)]);
    "in the known circuit".clone_into(&mut task.marked);
    task.passages = vec![Passage {
        title: "The circuit <chosen>".to_owned(),
        sentences: vec!["3 heads".to_owned(), "warning: few pairs".to_owned()],
        list: Some((
            "2 prompts".to_owned(),
            vec!["a <b>".to_owned(), "c".to_owned()],
        )),
        table: Some((
            vec!["head".to_owned(), "lost".to_owned()],
            vec![vec!["L0H1".to_owned(), "0.5".to_owned()]],
        )),
    }];
    ReportInput {
        tasks: vec![task],
        ..sample()
    }
}

#[test]
fn a_discovery_shows_its_edges_and_both_marks() {
    let report = render(&discovery()).unwrap();
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("discovery-report");
    report.write(&folder).unwrap();
    assert_well_formed(&report.html, &["meta"]);
    let circuit = picture(&report, "circuit-years----more--sae.svg");
    assert_well_formed(circuit, &[]);
    assert!(report.html.contains("<h3>Strongest edges</h3>"));
    // Of each of three methods, in the table of ranks.
    assert!(
        report
            .html
            .contains("<td class=\"true\" title=\"in the known circuit, chosen\">")
    );
    let dots = "<span class=\"dot\" role=\"img\" aria-label=\"chosen\">";
    assert!((6..=9).contains(&report.html.matches(dots).count()));
    assert!(circuit.contains(
        "aria-label=\"The 40 strongest edges of method sae on task years &amp; &quot;more&quot;; outlined: in the known \
         circuit; with a dot: chosen\""
    ));
    assert_eq!(circuit.matches("pointer-events=\"stroke\"").count(), 40);
    let heads = picture(&report, "heads-years----more--sae.svg");
    for (picture, score) in [(circuit, ""), (heads, ": ")] {
        // Three heads of each mark, and the legend.
        for class in ["class=\"s-mark\"", "class=\"f-mark\""] {
            assert_eq!(picture.matches(class).count(), 4, "{class}");
        }
        for (head, marks) in [
            ("L0H1", ", in the known circuit, chosen"),
            ("L1H2", ", in the known circuit"),
            ("L2H4", ", chosen"),
        ] {
            let hint = picture.split("<title>").find(|hint| {
                hint.starts_with(&format!("{head}{score}"))
                    && hint.split("</title>").next().unwrap().ends_with(marks)
            });
            assert!(hint.is_some(), "{head}{marks}");
        }
        assert!(!picture.contains("L1H2, in the known circuit, chosen"));
    }
}

/// Where a method scores pairs of heads alone, those are drawn.
#[test]
fn pairs_of_heads_are_drawn_without_a_graph() {
    let mut input = discovery();
    let method = &mut input.tasks[0].methods[0];
    method.graph = None;
    let mut pairs = vec![0.0; 32 * 32];
    pairs[32 + 10] = 3.0;
    pairs[2 * 32 + 31] = 1.5;
    // Within a layer and backwards: no pair.
    pairs[1] = 9.0;
    pairs[10 * 32 + 1] = 9.0;
    method.pairs = Some(pairs);
    let report = render(&input).unwrap();
    let circuit = picture(&report, "circuit-years----more--sae.svg");
    assert_well_formed(circuit, &[]);
    assert!(circuit.contains("<title>L0H1 → L1H2: 3</title>"));
    assert!(circuit.contains("<title>L0H2 → L3H7: 1.50</title>"));
    assert_eq!(circuit.matches("pointer-events=\"stroke\"").count(), 2);
    // Neither MLPs nor the ends of the model.
    assert_eq!(circuit.matches("<circle").count(), 2 * 32 + 2 * 3 + 3);
    input.tasks[0].methods[0].pairs = Some(vec![0.0; 32 * 32]);
    assert!(!render(&input).unwrap().html.contains("Strongest edges"));
}

fn picture<'a>(report: &'a Report, name: &str) -> &'a str {
    let found = report
        .pictures
        .iter()
        .find(|picture| picture.file_name == name);
    &found.unwrap().svg
}
