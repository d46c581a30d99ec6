//! How far to trust a circuit: tests of it, how often heads are chosen, and what foreign circuits keep.

use crate::support::Bench;

/// The planted circuit is shown to be sufficient and partly necessary, and nothing of it superfluous; on the page, too.
#[test]
fn a_planted_circuit_stands_its_tests() {
    let bench = Bench::new();
    let found = bench.json("discover --task greater-than --examples 40 --tests --output out");
    let tests = &found["tests"];
    for test in ["sufficiency", "partial_necessity"] {
        assert_eq!(tests[test]["of"], 100, "{tests}");
        assert!(tests[test]["p_value"].as_f64().unwrap() < 0.05, "{tests}");
    }
    let members = tests["minimality"].as_array().unwrap();
    assert_eq!(members.len(), tests["size"].as_u64().unwrap() as usize);
    let text = bench.ok("discover --task greater-than --examples 40 --tests");
    assert!(text.contains("sufficiency shown (p < 0.001)"), "{text}");
    let page = fs_err::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("Tests of the circuit") && page.contains("partial necessity"));
}

#[test]
fn tests_need_a_metric_that_is_no_divergence() {
    let bench = Bench::new();
    let line = "discover --task greater-than --examples 10 --tests --metric kl";
    let ran = bench.run(line);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("metric `kl`") && ran.stderr.contains("use --metric contrast"),
        "{ran:?}"
    );
}

/// Random circuits are many where runs are cheap, and as many as asked for.
#[test]
fn random_circuits_are_as_many_as_said() {
    let bench = Bench::new();
    for (option, count) in [("", 100), (" --random-circuits 7", 7)] {
        let line = format!("discover --task greater-than --examples 10{option}");
        let found = bench.json(&line);
        let random = found["quality"]["random"].as_array().unwrap();
        assert_eq!(random.len(), count, "{option}");
    }
    let ran = bench
        .run("discover --task greater-than --examples 10 --faithfulness=none --random-circuits 7");
    assert!(
        ran.stderr
            .contains("note: --random-circuits is not read: no circuit is run"),
        "{ran:?}"
    );
}

/// Each head's frequency is there; the planted heads are in, and most others out.
#[test]
fn frequencies_are_told() {
    let bench = Bench::new();
    let line = "discover --task greater-than --examples 60";
    let found = bench.json(line);
    let frequencies = &found["frequencies"];
    assert_eq!(frequencies["half_samples"], 100);
    let chosen: Vec<f64> = frequencies["chosen"]
        .as_array()
        .unwrap()
        .iter()
        .map(|share| share.as_f64().unwrap())
        .collect();
    assert_eq!(chosen.len(), 32);
    assert!(chosen.iter().all(|share| (0.0..=1.0).contains(share)));
    assert!(chosen.iter().filter(|share| **share < 0.05).count() >= 20);
    assert!(chosen.iter().any(|share| *share > 0.95));
    assert!(
        bench
            .ok(line)
            .contains("on 100 half samples the rule chooses")
    );
}

/// The planted circuits do their own task and no other; tables and the page say so, and `report` keeps it.
#[test]
fn circuits_of_other_tasks_keep_little() {
    let bench = Bench::new();
    let line = "eval --task ioi,greater-than --method recommended,random --seeds 1 --examples 40 --resamples 0 \
                --cross-task --output out";
    let results = bench.json(line);
    let cross = results["cross_task"].as_array().unwrap();
    let by: Vec<&str> = cross
        .iter()
        .map(|one| one["by"].as_str().unwrap())
        .collect();
    assert_eq!(by, ["known circuit", "recommended", "random"]);
    for one in &cross[..2] {
        let kept = |row: usize, column: usize| one["kept"][row][column]["share"].as_f64().unwrap();
        assert!(kept(0, 0) > 0.5 && kept(1, 1) > 0.5, "{one}");
        assert!(kept(0, 1) < 0.3 && kept(1, 0) < 0.3, "{one}");
        let expected = (kept(0, 0) + kept(1, 1) - kept(0, 1) - kept(1, 0)) / 2.0;
        let found = one["specificity"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-9, "{one}");
        let interval = &one["kept"][0][0]["interval"];
        assert!(interval["low"].as_f64().unwrap() <= kept(0, 0), "{one}");
    }
    assert!(
        fs_err::read_to_string(bench.path("out/report.html"))
            .unwrap()
            .contains("What the circuits of all tasks keep")
    );
    let again = bench.ok("report out");
    assert!(
        again.contains("circuits of each task by recommended, specificity"),
        "{again}"
    );
    bench.fails(
        "eval --task ioi --cross-task --output one",
        "--cross-task: found 1 task, expected at least 2",
    );
}

/// Scores that need two examples of each class have none on a half of three pairs: no interval and no frequencies, and no
/// error.
#[test]
fn few_pairs_are_not_halved() {
    let bench = Bench::new();
    let found = bench.json(
        "discover --task greater-than --examples 3 --method activation-variance --select otsu --faithfulness=none",
    );
    assert!(found["frequencies"].is_null(), "{found}");
    let results = bench.json(
        "eval --task greater-than --method activation-variance,linear-probe --seeds 1 --examples 3 --output out",
    );
    for run in results["runs"].as_array().unwrap() {
        assert!(run["resampled"].is_null(), "{run}");
    }
}

/// What no number of draws could show, and what a single pair cannot, is said before anything is scored.
#[test]
fn tests_that_can_show_nothing_are_refused() {
    let bench = Bench::new();
    bench.fails(
        "discover --task greater-than --examples 10 --tests --random-circuits 28",
        "--tests: found --random-circuits 28, expected at least 29: with fewer a circuit that is ahead of all of them is \
         not shown to be ahead of 90 %",
    );
    bench.fails(
        "discover --task greater-than --examples 10 --tests --patch-pairs 1",
        "--tests: found 1 pair to run circuits on (--patch-pairs at most), expected at least 2",
    );
}

/// The positive prompt of another pair may be the same one: that would be no reference.
#[test]
fn a_prompt_is_not_resampled_by_itself() {
    let bench = Bench::new();
    let pair = |last: &str| {
        format!(r#"{{"positive": "tundra maple anchor", "negative": "tundra maple {last}"}}"#)
    };
    bench.write(
        "same.jsonl",
        format!("{}\n{}\n", pair("ember"), pair("autumn")),
    );
    let ran = bench.run("discover --pairs same.jsonl --method nap --reference resample");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .contains("reference `resample`: pair 1: found no other positive prompt of"),
        "{ran:?}"
    );
}

/// Where heads carry next to nothing of the metric, no share of it is told.
#[test]
fn shares_of_nothing_are_not_told() {
    let bench = Bench::new();
    let text = bench.ok("discover --task greater-than --examples 50 --reference mean");
    let line = text
        .lines()
        .find(|line| line.contains("whole model,"))
        .unwrap();
    assert!(!line.contains('%'), "{line}");
    assert!(
        text.contains("warning: ablating all heads raises the probability difference")
            || text
                .contains("warning: ablating all heads hardly lowers the probability difference"),
        "{text}"
    );
}
