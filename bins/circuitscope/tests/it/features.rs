//! Rows of tokens, dictionaries trained on them, in an activation's place, and explained.

use serde_json::Value;

use crate::support::Bench;

/// Sentences that the model inside the program knows the words of: prompts of a task, as text.
fn text(bench: &Bench) {
    bench.ok("discover --task induction --examples 40 --method mean-difference --output prompts");
    let prompts = fs_err::read_to_string(bench.path("prompts").join("prompts.jsonl")).unwrap();
    let lines = prompts.lines().map(|line| {
        let pair: Value = serde_json::from_str(line).unwrap();
        serde_json::json!({ "text": pair["positive"] }).to_string()
    });
    let lines: Vec<String> = lines.collect();
    bench.write("text.jsonl", lines.join("\n"));
}

fn read(bench: &Bench, name: &str) -> String {
    fs_err::read_to_string(bench.path(name)).unwrap()
}

const ROWS: &str = "rows --text text.jsonl --site blocks.2.attn.hook_z --output rows";
const TRAIN: &str =
    "train-tokens --rows rows --features 64 --k 8 --batch-rows 64 --epochs 12 --output sae";

#[test]
fn from_text_to_the_features_of_a_head() {
    let bench = Bench::new();
    text(&bench);
    let rows = bench.json(ROWS);
    assert_eq!(rows["rows"]["site"], "blocks.2.attn.hook_z");
    assert_eq!(rows["rows"]["prepend_bos"], true);
    let trained = bench.json(TRAIN);
    let fvu = trained["fvu"].as_f64().unwrap();
    assert!(fvu < 0.5, "{trained}");
    assert_eq!(trained["l0"], 8.0);
    let page = read(&bench, "sae/report.html");
    assert!(
        page.contains("The course of training")
            && page.contains("64 features by the share of rows")
    );
    assert!(!bench.path("sae").join("stream.safetensors").exists());
    // The same rows and seed, the same dictionary.
    bench.ok(&TRAIN.replace("--output sae", "--output again"));
    let weights =
        |name: &str| fs_err::read(bench.path(name).join("sae_weights.safetensors")).unwrap();
    assert!(weights("sae") == weights("again"));

    let spliced = bench.json("splice --sae sae --text text.jsonl");
    let [own, untrained] = [0, 1].map(|at| spliced["dictionaries"][at].clone());
    assert!(
        own["fvu"].as_f64().unwrap() < untrained["fvu"].as_f64().unwrap(),
        "{spliced}"
    );
    let said = bench.ok("splice --sae sae --text text.jsonl");
    for words in [
        "blocks.2.attn.hook_z on 40 contexts",
        "a dictionary before training",
        "recovered of the mean",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }

    let explain = "explain --sae sae --head L2H5 --text text.jsonl --output explained";
    let explained = bench.json(explain);
    let controls = explained["controls"].as_array().unwrap();
    assert_eq!(controls.len(), 4);
    let weight = |at: usize| controls[at]["weight_share"].as_f64().unwrap();
    assert!(weight(0) > weight(1), "{explained}");
    let ablation = &explained["features"][0]["ablation"];
    assert!(
        ablation["feature"]["kl"].as_f64().unwrap() > 0.0,
        "{ablation}"
    );
    assert!(ablation["mean"]["kl"].as_f64().unwrap() > 0.0, "{ablation}");
    let page = read(&bench, "explained/report.html");
    let first = explained["features"][0]["feature"].as_u64().unwrap();
    assert!(
        page.contains(&format!("Feature {first}"))
            && page.contains("What dictionaries that learnt nothing say")
    );
    let kept: Value = serde_json::from_str(&read(&bench, "explained/explained.json")).unwrap();
    assert_eq!(kept["features"], explained["features"]);
    let said = bench.ok(&format!("explain --sae sae --feature {first},0"));
    assert!(
        said.contains("Features of layer 2 on random tokens said twice"),
        "{said}"
    );
}

/// A transcoder, from rows of two sites.
#[test]
fn a_transcoder_is_trained_and_spliced() {
    let bench = Bench::new();
    text(&bench);
    bench.ok("rows --text text.jsonl --site blocks.1.mlp.hook_in --site-out blocks.1.hook_mlp_out --output pairs");
    bench.fails(
        "train-tokens --rows pairs --architecture gated --output t",
        "--architecture gated: found rows of blocks.1.mlp.hook_in and blocks.1.hook_mlp_out, expected topk, batchtopk, jumprelu or \
         standard for a transcoder: no format holds a gated one",
    );
    bench.ok("train-tokens --rows pairs --architecture topk --features 64 --k 8 --batch-rows 64 --output of-k");
    let spliced = bench.json("splice --sae of-k --text text.jsonl");
    assert_eq!(
        spliced["dictionaries"][0]["l0"].as_f64().unwrap().ceil(),
        8.0
    );
    assert_eq!(spliced["site_out"], "blocks.1.hook_mlp_out");
    bench.ok("train-tokens --rows pairs --skip --features 64 --k 8 --batch-rows 64 --epochs 20 --output t");
    let spliced = bench.json("splice --sae t --text text.jsonl");
    assert_eq!(spliced["site"], "blocks.1.mlp.hook_in");
    assert_eq!(spliced["site_out"], "blocks.1.hook_mlp_out");
    assert!(
        spliced["dictionaries"][0]["fvu"].as_f64().unwrap() < 0.5,
        "{spliced}"
    );
}

#[test]
fn what_does_not_fit_is_one_error() {
    let bench = Bench::new();
    text(&bench);
    bench.ok(ROWS);
    bench.ok(TRAIN);
    bench.fails(
        ROWS,
        "--output rows: found rows, expected a new folder: nothing is overwritten",
    );
    for (line, said) in [
        (
            "rows --text text.jsonl --site blocks.0.attn.hook_z --site-out blocks.0.attn.hook_z --output r",
            "the second site of rows: found blocks.0.attn.hook_z, expected another site than the first",
        ),
        (
            "train-tokens --rows rows --output rows",
            "--output rows: found rows.json",
        ),
        (
            "rows --text none.txt --site logits --output r",
            "cannot read `none.txt`",
        ),
        (
            "rows --text text.jsonl --site blocks.9.attn.hook_z --output r",
            "did you mean `blocks.3.attn.hook_z`?",
        ),
        (
            "rows --text text.jsonl --site blocks.*.attn.hook_z --output r",
            "--site blocks.*.attn.hook_z: found 4 sites, expected one",
        ),
        (
            "rows --text text.jsonl --site blocks.0.attn.hook_pattern --output r",
            "expected a site of this model with a vector at every position",
        ),
        (
            "rows --text text.jsonl --site blocks.0.attn.hook_z --context 100000 --output r",
            "--context 100000: expected 2 to ",
        ),
        ("train-tokens --rows text.jsonl --output t", "rows.json"),
        (
            "train-tokens --rows rows --k 100 --features 50 --output t",
            "--k 100: expected at most 50, the number of features",
        ),
        (
            "train-tokens --rows rows --skip --output t",
            "--skip: found rows of one site",
        ),
        (
            "train-tokens --rows rows --learning-rate nan --output t",
            "learning_rate is NaN",
        ),
        ("splice --sae rows --text text.jsonl", "rows"),
        (
            "splice --sae sae --site blocks.1.attn.hook_z --text text.jsonl",
            "blocks.2.attn.hook_z, as it was trained on",
        ),
        (
            "splice --sae sae --processing raw --text text.jsonl",
            "found raw, expected folded, as it was trained on",
        ),
        (
            "splice --sae sae --prepend-bos false --text text.jsonl",
            "as it was trained on",
        ),
        (
            "explain --sae sae --head L1H5",
            "--head L1H5: found a dictionary of layer 2, expected a head of it, such as L2H5",
        ),
        (
            "explain --sae sae --head L2H9",
            "the head: found 9, expected 0 to 7",
        ),
        (
            "explain --sae sae --feature 64",
            "the feature: found 64, expected 0 to 63",
        ),
    ] {
        let ran = bench.run(line);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(1), ""),
            "{line}: {ran:?}"
        );
        assert!(ran.stderr.contains(said), "{line}: {}", ran.stderr);
        assert_eq!(
            ran.stderr
                .lines()
                .filter(|line| line.starts_with("error: "))
                .count(),
            1,
            "{line}: {}",
            ran.stderr
        );
        assert!(
            !bench.path("r").join("rows.json").exists()
                && !bench.path("t").join("cfg.json").exists(),
            "{line}"
        );
    }
}
