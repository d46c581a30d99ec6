//! Whether the model shows the behaviour, whether scores are more than chance, and what a circuit keeps:
//! what `discover` and `eval` say beside their rankings.

use circuitscope::{Seed, draw};
use safetensors::Dtype::{F32, U8};
use serde_json::{Value, json};

use crate::support::{Bench, bytes};

/// Gaussian noise: 40 examples of 2 layers × 2 heads.
fn noise(bench: &Bench, name: &str) {
    let mut rng = Seed::new(5).rng();
    let data: Vec<f32> = (0..40 * 4 * 8)
        .map(|_| draw::normal_pair(&mut rng)[0] as f32)
        .collect();
    let labels = [[1u8; 20], [0; 20]].concat();
    bench.tensors(
        name,
        &[
            ("activations", F32, &[40, 4, 8], &bytes(&data)),
            ("labels", U8, &[40], &labels),
        ],
    );
}

fn heads(found: &Value) -> usize {
    found["circuit"]["nodes"].as_array().unwrap().len()
}

/// The default command on the tasks whose circuits were planted.
#[test]
fn the_default_finds_planted_circuits_and_says_what_they_keep() {
    let bench = Bench::new();
    for (task, least_found, most_others) in [("docstring", 2, 4), ("greater-than", 2, 4)] {
        let found = bench.json(&format!(
            "discover --task {task} --examples 20 --output {task}"
        ));
        assert_eq!(found["method"], "recommended");
        assert_eq!(found["selection"], "otsu");
        assert_eq!(found["verdict"], "chosen", "{task}: {}", found["null"]);
        let behaviour = &found["behaviour"];
        assert!(
            behaviour["answered"]["share"].as_f64().unwrap() > 0.9,
            "{behaviour}"
        );
        assert_eq!(behaviour["warnings"], json!([]));
        assert_eq!(behaviour["positive"]["tokens"][0], "<bos>");
        let known = &found["known"];
        assert!(
            known["found"].as_u64().unwrap() >= least_found,
            "{task}: {known}"
        );
        assert!(
            known["others"].as_u64().unwrap() <= most_others,
            "{task}: {known}"
        );
        let quality = &found["quality"];
        let value = |name: &str| quality[name].as_f64().unwrap();
        let (full, empty) = (value("full"), value("empty"));
        assert!(value("circuit") > empty + 0.6 * (full - empty), "{quality}");
        assert!(value("without") < empty + 0.4 * (full - empty), "{quality}");
        let random = quality["random"].as_array().unwrap();
        assert_eq!(random.len(), 100);
        assert!(
            random
                .iter()
                .all(|random| random.as_f64().unwrap() < value("circuit"))
        );
        assert_eq!(quality["marginal"].as_array().unwrap().len(), heads(&found));

        let page = fs_err::read_to_string(bench.path(task).join("report.html")).unwrap();
        for said in [
            "What the model makes of the prompts",
            "right answer above the wrong ones in",
            "this circuit",
            "100 random circuits of",
            "<dt>rule</dt><dd>otsu</dd>",
            "<dt>metric</dt>",
        ] {
            assert!(page.contains(said), "{task}: {said}");
        }
    }
}

/// The text is in the order in which things come to be known.
#[test]
fn behaviour_comes_before_scores_and_scores_before_the_circuit() {
    let text = Bench::new().ok("discover --task ioi --examples 20 --select top:6");
    let places = [
        "what the model makes of ioi:",
        "right answer above the wrong ones in 20 of 20 pairs (100 %",
        "logit difference",
        "first prompt: `<bos>` ",
        "metric: logit-difference (the metric of task `ioi`)",
        "20 positive examples against 20 negative ones",
        "rank  head ",
        "circuit (",
        "whole model, ",
        "random circuits of",
        "time: load",
    ]
    .map(|said| text.find(said).unwrap_or_else(|| panic!("{said}: {text}")));
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{text}");
}

#[test]
fn noise_is_no_circuit() {
    let bench = Bench::new();
    noise(&bench, "noise.safetensors");
    for method in ["recommended-activations", "mean-difference"] {
        let line = format!("discover --activations noise.safetensors --method {method}");
        let found = bench.json(&format!("{line} --output {method}"));
        assert_eq!(
            (heads(&found), &found["verdict"]),
            (0, &json!("within-chance"))
        );
        let text = bench.ok(&line);
        let said = "the largest scores lie within what shuffled labels give (p = ";
        assert!(
            text.contains(said) && text.contains(": no circuit shown"),
            "{text}"
        );
        let page = fs_err::read_to_string(bench.path(method).join("report.html")).unwrap();
        assert!(page.contains(said), "{method}");
    }
    // Who asks for a number gets it, with the caution.
    let text = bench.ok("discover --activations noise.safetensors --select top:2");
    assert!(
        text.contains("circuit (2 heads)") && text.contains("no circuit shown"),
        "{text}"
    );
}

/// Eight heads that put out the same kind of noise, each louder than the one before: what they differ by between the classes
/// is louder, too.
#[test]
fn a_ranking_by_loudness_is_told() {
    let bench = Bench::new();
    let mut rng = Seed::new(5).rng();
    let mut data = Vec::new();
    for _ in 0..40 {
        for loud in (0..8).map(|head| 10f64.powi(head)) {
            data.extend((0..8).map(|_| (loud * draw::normal_pair(&mut rng)[0]) as f32));
        }
    }
    let labels = [[1u8; 20], [0; 20]].concat();
    let parts = [
        ("activations", F32, &[40, 8, 8][..], &bytes(&data)[..]),
        ("labels", U8, &[40], &labels),
    ];
    bench.tensors_of("loud.safetensors", [2, 4], &parts);
    let line = "discover --activations loud.safetensors --select top:9 --method";
    let found = bench.json(&format!("{line} mean-difference --output out"));
    let norm = |at: usize| found["heads"][at]["norm"].as_f64().unwrap();
    // The mean length of eight normal numbers is 2.74.
    assert!((norm(0) / 2.74e7 - 1.0).abs() < 0.1, "{}", found["heads"]);
    assert!((norm(7) / 2.74 - 1.0).abs() < 0.1, "{}", found["heads"]);
    let said = "warning: the ranking follows the norm, the mean length of what a head puts out (rank correlation 1.00)";
    let text = bench.ok(&format!("{line} mean-difference"));
    for said in [said, "top:9 takes all 8: there are no more heads"] {
        assert_eq!(text.matches(said).count(), 1, "{said}: {text}");
    }
    let page = fs_err::read_to_string(bench.path("out").join("report.html")).unwrap();
    assert!(
        page.contains(&said["warning: ".len()..]) && page.contains("<th scope=\"col\">norm</th>")
    );
    // Methods that run the model do not read norms, and a ratio does not follow them.
    assert!(
        !bench
            .ok(&format!("{line} relative-difference"))
            .contains("the ranking follows")
    );
    let found = bench.json("discover --task ioi --examples 10 --faithfulness none");
    assert!(found["heads"][0].get("norm").is_none());
}

fn ioi(giver: &str, right: &str, wrong: &str) -> Value {
    let prompt = |giver: &str| {
        format!(
            "In spring Maurice and Elsa rented a corner of the chapel . Soon {giver} sold a ribbon to"
        )
    };
    let other = if giver == "Elsa" { "Maurice" } else { "Elsa" };
    json!({ "positive": prompt(giver), "negative": prompt(other), "answers": [right], "wrong_answers": [wrong] })
}

fn write_pairs(bench: &Bench, name: &str, pairs: &[Value]) {
    let lines: Vec<String> = pairs.iter().map(ToString::to_string).collect();
    bench.write(name, lines.join("\n"));
}

/// Answers that the model does not give.
#[test]
fn a_model_that_does_not_do_it_is_warned_of() {
    let bench = Bench::new();
    let right = ioi("Elsa", "Maurice", "Elsa");
    let wrong = ioi("Maurice", "Maurice", "Elsa");
    write_pairs(&bench, "p.jsonl", &[right.clone(), wrong.clone(), wrong]);
    let found = bench.json("discover --pairs p.jsonl --faithfulness=none --output out");
    let warning =
        "the model answers 33 % of the pairs (fewer than 60 %): there is no behaviour to explain";
    assert_eq!(found["behaviour"]["warnings"][0], warning);
    assert_eq!(found["behaviour"]["failing"][0]["pair"], 2);
    assert_eq!(found["behaviour"]["failing"].as_array().unwrap().len(), 2);
    let page = fs_err::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("<b>Warning:</b> the model answers 33 % of the pairs"));
    assert!(page.contains("2 prompts with a wrong answer"));
    let text = bench.ok("discover --pairs p.jsonl --faithfulness=none");
    assert!(text.contains(&format!("warning: {warning}")), "{text}");
    assert!(
        text.contains("  wrong answers after 2 prompts:\n    pair 2: "),
        "{text}"
    );

    // The rest is put aside where asked for.
    write_pairs(
        &bench,
        "p.jsonl",
        &[
            right.clone(),
            ioi("Maurice", "Maurice", "Elsa"),
            ioi("Maurice", "Elsa", "Maurice"),
            right,
        ],
    );
    let found = bench.json("discover --pairs p.jsonl --only-correct --faithfulness=none");
    assert_eq!(found["only_correct"], json!({ "kept": 3, "of": 4 }));
    assert_eq!(
        (&found["positives"], &found["negatives"]),
        (&json!(3), &json!(3))
    );
    bench.write(
        "bare.jsonl",
        "{\"positive\": \"Then the\", \"negative\": \"Then a\"}\n",
    );
    let ran = bench.run("discover --pairs bare.jsonl --only-correct");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("--only-correct: found pairs without answers"),
        "{ran:?}"
    );
}

#[test]
fn prompts_without_pairs_or_answers_say_what_can_be_said() {
    let bench = Bench::new();
    let lines = |word: &str| {
        ["Then", "After", "breakfast", "to", "and", "of", "in"]
            .map(|first| format!("{first} {word}\n"))
            .concat()
    };
    let more = |word: &str| {
        let lines: String = lines(word);
        format!("{lines}the {word}\n")
    };
    bench.write("yes.txt", lines("the"));
    bench.write("no.txt", more("a"));
    let text = bench.ok("discover --positive yes.txt --negative no.txt");
    assert!(text.contains("prompts are not in pairs"), "{text}");
    assert!(
        text.contains("first prompt: `<bos>` `Then` `the` → `"),
        "{text}"
    );
    let pairs: Vec<Value> = ["Then", "After", "breakfast"]
        .map(
            |first| json!({ "positive": format!("{first} the"), "negative": format!("{first} a") }),
        )
        .to_vec();
    write_pairs(&bench, "p.jsonl", &pairs);
    let found = bench.json("discover --pairs p.jsonl");
    assert_eq!(found["metric"]["metric"], "contrast");
    assert!(found["behaviour"]["divergence"]["mean"].as_f64().unwrap() > 0.0);
    assert!(found["behaviour"]["negative"]["next"][0][0].is_string());
    let found = bench.json("discover --pairs p.jsonl --method recommended-activations");
    assert!(found["null"]["too_few"].as_bool().unwrap());
    let text = bench.ok("discover --pairs p.jsonl --method recommended-activations --select otsu --faithfulness none --output few");
    assert!(
        !text.contains("circuit (")
            && text.contains("which so few prompts cannot tell from chance"),
        "{text}"
    );
    let page = fs_err::read_to_string(bench.path("few").join("report.html")).unwrap();
    assert!(page.contains("nothing may be concluded"));
}

#[test]
fn signs_are_shown_where_a_method_has_them() {
    let bench = Bench::new();
    let found = bench.json("discover --task ioi --method nap --examples 20 --max-heads 2");
    let heads_ranked = found["heads"].as_array().unwrap();
    assert!(
        heads_ranked
            .iter()
            .any(|head| head["signed"].as_f64().unwrap() < 0.0)
    );
    for head in heads_ranked {
        let (score, signed) = (&head["score"], head["signed"].as_f64().unwrap());
        assert_eq!(score.as_f64().unwrap(), signed.abs());
    }
    assert!(heads(&found) <= 2);
    let text = bench.ok("discover --task ioi --method nap --examples 20");
    assert!(text.contains("with sign"), "{text}");
    let text = bench.ok("discover --task ioi --method sae --examples 20 --steps 5 --codes 2");
    assert!(
        text.contains("have one and the same code on every prompt"),
        "{text}"
    );
}

#[test]
fn eval_says_how_well_the_model_does_each_task() {
    let bench = Bench::new();
    let line = "eval --task ioi,induction --method mean-difference --seeds 1 --examples 10 --resamples 2 --output e";
    let text = bench.ok(line);
    let at = |said: &str| text.find(said).unwrap_or_else(|| panic!("{said}: {text}"));
    assert!(at("what the model makes of ioi:") < at("what the model makes of induction:"));
    assert!(at("what the model makes of induction:") < at("node AUC"));
    assert!(at("\nioi: best control: mean-difference ") < at("node AUC"));
    for line in text.lines().skip_while(|line| !line.starts_with("ioi: ")) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    // Again, from what was kept.
    let results = bench.json(line);
    let share = &results["behaviour"]["ioi"]["answered"]["share"];
    assert!(share.as_f64().unwrap() > 0.8, "{share}");
    let kept: Value =
        serde_json::from_slice(&fs_err::read(bench.path("e/results.json")).unwrap()).unwrap();
    assert_eq!(kept["behaviour"], results["behaviour"]);
    let again = bench.json("report e");
    assert_eq!(again["behaviour"], results["behaviour"]);
    let page = fs_err::read_to_string(bench.path("e/report.html")).unwrap();
    assert!(page.contains("right answer above the wrong ones in"));
}

/// Judging takes long here; the ranking does not wait for it.
#[cfg(unix)]
#[test]
fn ctrl_c_while_judging_leaves_the_ranking() {
    use crate::support::interrupt;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::Stdio;

    let bench = Bench::new();
    let line = "discover --task ioi --examples 400 --patch-pairs 400 --select top:32 --faithfulness \
                --method mean-difference --output out";
    let mut child = bench
        .command(line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("circuit (32 heads)") {
        assert!(out.read_line(&mut text).unwrap() > 0, "{text}");
    }
    interrupt(&child);
    out.read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "interrupted: the ranking and the circuit are in out/discovery.json; what the circuit keeps was \
         not measured\n"
    );
    assert!(text.contains("rank  head"), "{text}");
    assert!(!text.contains("whole model"), "{text}");
    let kept: Value =
        serde_json::from_slice(&fs_err::read(bench.path("out/discovery.json")).unwrap()).unwrap();
    assert_eq!(kept["heads"].as_array().unwrap().len(), 32);
    assert!(kept.get("quality").is_none());
}
