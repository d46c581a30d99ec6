//! Every command doing what it is for.

use circuitscope::eval::methods::quick;
use circuitscope::measures::formats::GraphFile;
use circuitscope::score::{CodeTable, amplitude_scores};
use std::process::{Output, Stdio};

use safetensors::Dtype::{I32, U8};
use serde_json::{Value, json};

use crate::support::{Bench, floats};

const LABELS: [u8; 8] = [1, 1, 1, 1, 0, 0, 0, 0];

#[test]
fn capture_writes_one_tensor_for_each_site() {
    let bench = Bench::new();
    bench.write(
        "tokens.json",
        r#"{"tokens":[[1,7,8,9],[1,7,8,0]],"attention_mask":[[1,1,1,1],[1,1,1,0]]}"#,
    );
    let report = bench.json(
        "capture --tokens tokens.json --sites blocks.*.attn.hook_z,logits --processing raw --output x.safetensors",
    );
    assert_eq!(report["lengths"], serde_json::json!([4, 3]));
    let whole = floats(&bench.path("x.safetensors"));
    let names: Vec<&str> = whole.keys().map(String::as_str).collect();
    let z = [0, 1, 2, 3].map(|layer| format!("blocks.{layer}.attn.hook_z"));
    assert_eq!(names, [&z[0], &z[1], &z[2], &z[3], "logits"]);
    assert_eq!(whole[&z[0]].0, [2, 4, 8, 16]);

    // The last position is that of the last real token; the mean leaves padding out.
    for reduce in ["last", "mean"] {
        bench.ok(&format!(
            "capture --tokens tokens.json --sites logits --processing raw --reduce {reduce} --output {reduce}.safetensors"
        ));
    }
    let (shape, logits) = &whole["logits"];
    let vocabulary = shape[2];
    let at = |row: usize, pos: usize, token: usize| logits[(row * 4 + pos) * vocabulary + token];
    let last = &floats(&bench.path("last.safetensors"))["logits"];
    let mean = &floats(&bench.path("mean.safetensors"))["logits"];
    assert_eq!(last.0, [2, vocabulary]);
    for token in 0..vocabulary {
        assert_eq!(last.1[token], at(0, 3, token));
        assert_eq!(last.1[vocabulary + token], at(1, 2, token));
        let expected = (at(1, 0, token) + at(1, 1, token) + at(1, 2, token)) / 3.0;
        assert!((mean.1[vocabulary + token] - expected).abs() < 1e-5);
    }
}

#[test]
fn capture_of_prompts_starts_with_bos_unless_told_otherwise() {
    let bench = Bench::new();
    bench.ok("capture --task induction --examples 2 --sites hook_embed --output with.safetensors");
    bench.ok("capture --task induction --examples 2 --sites hook_embed --prepend-bos false --output without.safetensors");
    let shape = |name: &str| floats(&bench.path(name))["hook_embed"].0.clone();
    let (with, without) = (shape("with.safetensors"), shape("without.safetensors"));
    assert_eq!(with[0], 4);
    assert_eq!(with[1], without[1] + 1);
}

#[test]
fn a_folder_gives_what_the_embedded_model_gives() {
    let bench = Bench::new();
    bench.reference_model("model");
    let line = "capture --task ioi --examples 3 --sites logits --reduce last --output";
    bench.ok(&format!("{line} embedded.safetensors"));
    bench.ok(&format!("{line} folder.safetensors --model model"));
    assert_eq!(
        floats(&bench.path("embedded.safetensors")),
        floats(&bench.path("folder.safetensors"))
    );
}

#[test]
fn prompts_come_from_a_text_file() {
    let bench = Bench::new();
    bench.write("prompts.txt", "Then\nAfter the\n");
    let ran = bench.run("capture --prompts prompts.txt --sites logits --output p.safetensors");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        floats(&bench.path("p.safetensors"))["logits"].0[..2],
        [2, 3]
    );
}

#[test]
fn train_encode_and_score_are_the_method_in_steps() {
    let bench = Bench::new();
    let settings = "--codes 16 --steps 30 --train-examples 4 --seed 3";
    let discovered = bench.json(&format!(
        "discover --task ioi --examples 10 --method sae {settings} --save-activations a.safetensors"
    ));
    let trained = bench.json(&format!(
        "train --activations a.safetensors --output sae {settings}"
    ));
    assert_eq!(trained["vectors"], 4 * 32);
    let encoded = bench.json(
        "encode --sae sae --activations a.safetensors --output c.safetensors --paper-compatible",
    );
    assert_eq!(encoded["examples"], 20);
    let scored = bench.json("score --codes c.safetensors");
    assert_eq!(scored["nodes"].as_array().unwrap().len(), 32);
    assert_eq!(scored["edges"].as_array().unwrap().len(), 32);
    assert_eq!(
        scored["paper_edge_head_counts"],
        discovered["paper_edge_head_counts"]
    );
    // What one dictionary adds to `amplitude-ensemble` and `recommended-activations`.
    let table = CodeTable::read(&bench.path("c.safetensors")).unwrap();
    let amplitudes = amplitude_scores(&table).unwrap();
    assert_eq!(scored["amplitude_scores"], json!(amplitudes));
    assert!(
        amplitudes.iter().any(|score| *score > 0.0),
        "{amplitudes:?}"
    );
    for ranked in discovered["heads"].as_array().unwrap() {
        let nodes = scored["nodes"].as_array().unwrap();
        let node = nodes
            .iter()
            .find(|node| node["head"] == ranked["head"])
            .unwrap();
        assert_eq!(node["unique"].as_f64(), ranked["score"].as_f64());
    }
    // And from the file alone.
    let again = bench.json(&format!(
        "discover --activations a.safetensors --method sae {settings}"
    ));
    assert_eq!(again["heads"], discovered["heads"]);
    assert_eq!(again["edges"], discovered["edges"]);
}

/// Hash maps of two processes have different orders.
#[test]
fn equal_commands_write_equal_bytes() {
    let files = ["a.safetensors", "c.safetensors", "x.safetensors"];
    let written = [(); 2].map(|()| {
        let bench = Bench::new();
        for line in [
            "discover --task ioi --examples 6 --method mean-difference --save-activations a.safetensors",
            "train --activations a.safetensors --output sae --codes 6 --steps 3",
            "encode --sae sae --activations a.safetensors --output c.safetensors",
            "capture --task induction --examples 2 --sites hook_embed,logits --output x.safetensors",
        ] {
            bench.ok(line);
        }
        files.map(|name| fs_err::read(bench.path(name)).unwrap())
    });
    for ((name, one), other) in files.iter().zip(&written[0]).zip(&written[1]) {
        assert!(one == other, "{name}");
    }
}

#[test]
fn encode_keeps_inactive_apart_unless_told_otherwise() {
    let bench = Bench::new();
    bench.activations("a.safetensors", &LABELS);
    bench.ok("train --activations a.safetensors --output sae --codes 6 --steps 3");
    for file in ["cfg.json", "sae_weights.safetensors", "history.json"] {
        assert!(bench.path("sae").join(file).is_file(), "{file}");
    }
    let plain = bench.json("encode --sae sae --activations a.safetensors --output c.safetensors");
    let paper = bench.json(
        "encode --sae sae --activations a.safetensors --output p.safetensors --paper-compatible",
    );
    assert_eq!(plain["inactive"], paper["inactive"]);
    let scores = |line: &str| bench.json(line)["nodes"].clone();
    assert_eq!(
        scores("score --codes c.safetensors --paper-compatible"),
        scores("score --codes p.safetensors")
    );
}

#[test]
fn score_prints_the_full_matrix() {
    let bench = Bench::new();
    let codes: Vec<u8> = [0i32, 1, 2, 3, 0, 1, 2, 4, 0, 1, 2, 3]
        .iter()
        .flat_map(|code| code.to_le_bytes())
        .collect();
    bench.tensors(
        "c.safetensors",
        &[
            ("codes", I32, &[3, 4], &codes),
            ("labels", U8, &[3], &[1, 1, 0]),
        ],
    );
    let scored = bench.json("score --codes c.safetensors");
    let unique: Vec<&Value> = scored["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| &node["unique"])
        .collect();
    assert_eq!(unique, [0, 0, 0, 1]);
    assert_eq!(scored["nodes"][3]["head"], "L1H1");
    assert_eq!(scored["nodes"][3]["normalised"], 0.5);
    assert_eq!(
        scored["edges"],
        serde_json::json!([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]])
    );
    assert_eq!(scored["amplitude_scores"], Value::Null);
    let ran = bench.run("score --codes c.safetensors");
    let (text, said) = (ran.stdout, ran.stderr);
    assert!(text.contains("L1H1       1      2       0.500"), "{text}");
    assert!(said.contains("c.safetensors: no amplitudes"), "{said}");
}

#[test]
fn discover_reads_pairs_and_files_of_two_classes() {
    let bench = Bench::new();
    bench.reference_model("model");
    let words = ["Then", "After", "breakfast", "to", "and", "of"];
    let lines = |line: fn(&str) -> String| words.map(line).concat();
    let pairs =
        lines(|word| format!("{{\"positive\": \"{word} the\", \"negative\": \"{word} a\"}}\n"));
    let positive = lines(|word| format!("{word} the\n"));
    let negative = lines(|word| format!("{word} a\n"));
    bench.write("pairs.jsonl", pairs);
    bench.write("yes.txt", positive);
    bench.write("no.txt", negative);
    let settings = "--model model --method sae --steps 5 --train-examples 4";
    let from_pairs = bench.json(&format!(
        "discover --pairs pairs.jsonl {settings} --output out"
    ));
    let from_files = bench.json(&format!(
        "discover --positive yes.txt --negative no.txt {settings}"
    ));
    assert_eq!(from_pairs["heads"], from_files["heads"]);
    assert_eq!(from_pairs["heads"].as_array().unwrap().len(), 32);
    let kept: Value =
        serde_json::from_slice(&fs_err::read(bench.path("out/discovery.json")).unwrap()).unwrap();
    assert_eq!(kept["heads"], from_pairs["heads"]);
    assert_eq!(kept["model"]["processing"], "folded");
    let page = fs_err::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("<svg"), "the picture is inside the page");
    let stages: Vec<&str> = from_pairs["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| stage["name"].as_str().unwrap())
        .collect();
    let expected = [
        "load",
        "answers",
        "capture",
        "train",
        "encode and score",
        "choose",
    ];
    assert_eq!(stages[..6], expected);
}

#[test]
fn the_same_seed_gives_the_same_result() {
    let bench = Bench::new();
    let line = "discover --task induction --examples 8 --steps 5 --train-examples 4 --seed";
    let result = |seed: u64| bench.json(&format!("{line} {seed}"))["heads"].clone();
    assert_eq!(result(1), result(1));
    assert_ne!(result(1), result(2));
}

#[test]
fn eval_judges_every_method_and_leaves_a_report() {
    let bench = Bench::new();
    let results = bench
        .json("eval --task ioi,induction --seeds 2 --examples 12 --codes 20 --steps 5 --output e");
    let runs = results["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2 * quick().count() * 2);
    for field in [
        "task", "method", "seed", "node_auc", "edge_auc", "best_f1", "seconds",
    ] {
        assert!(runs.iter().all(|run| run.get(field).is_some()), "{field}");
    }
    assert_eq!(
        results["summary"].as_array().unwrap().len(),
        2 * quick().count()
    );
    assert_eq!(results["provenance"]["settings"]["examples"], 12);
    let kept: Value =
        serde_json::from_slice(&fs_err::read(bench.path("e/results.json")).unwrap()).unwrap();
    assert_eq!(kept["runs"], results["runs"]);
    for file in [
        "report.html",
        "pictures/roc-ioi.svg",
        "pictures/heads-ioi-sae.svg",
    ] {
        assert!(bench.path("e").join(file).is_file(), "{file}");
    }
    fs_err::remove_file(bench.path("e/report.html")).unwrap();
    let again = bench.json("report e");
    assert_eq!(again["runs"], results["runs"]);
    assert_eq!(again["summary"], results["summary"]);
    assert!(bench.path("e/report.html").is_file());
}

#[test]
fn doctor_finds_the_cpu_healthy() {
    let report = Bench::new().json("doctor");
    assert_eq!(report["healthy"], true);
    let backends = report["backends"].as_array().unwrap();
    let names: Vec<&str> = backends
        .iter()
        .map(|backend| backend["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["flex", "ndarray", "wgpu", "cuda"]);
    let checks = |backend: &Value| {
        backend["devices"][0]["checks"]
            .as_array()
            .map_or(0, Vec::len)
    };
    assert!(backends.iter().any(|backend| checks(backend) == 38));
}

/// What becomes of a command whose output nobody reads.
fn unread(bench: &Bench, command: &str) -> Output {
    let mut child = bench
        .command(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

#[test]
fn a_closed_pipe_is_success() {
    let output = unread(&Bench::new(), "doctor --format json");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn files_are_finished_where_nobody_reads_what_is_printed() {
    let bench = Bench::new();
    let output = unread(
        &bench,
        "discover --task induction --examples 5 --output found",
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    bench.ok("discover --task induction --examples 5 --output whole");
    let files = |folder: &str| {
        let files = fs_err::read_dir(bench.path(folder)).unwrap();
        let names = files.map(|file| file.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(files("found"), files("whole"));
    let found = fs_err::read_to_string(bench.path("found/discovery.json")).unwrap();
    assert!(found.contains("\"quality\""));
}

#[test]
fn discover_with_methods_that_run_the_model() {
    let bench = Bench::new();
    let found = bench.json(
        "discover --task ioi --method eap --examples 6 --select top:4 --faithfulness --patch-pairs 3 --output out",
    );
    assert_eq!(found["heads"].as_array().unwrap().len(), 32);
    let quality = &found["quality"];
    assert!(quality["head_share"].is_number() && quality["without"].is_number());
    let members = found["heads"].as_array().unwrap();
    let members = members.iter().filter(|head| head["selected"] == true);
    assert_eq!(
        quality["marginal"].as_array().unwrap().len(),
        members.count()
    );
    assert!(bench.path("out/pictures/heads-ioi-eap.svg").is_file());
    // The page shows links, what is known and what was chosen, and what the circuit keeps.
    let page = fs_err::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("The circuit as a graph"));
    assert!(page.contains("in the known circuit"));
    assert!(page.contains("<dt>rule</dt><dd>top:4</dd>"));
    assert!(page.contains("<h3>What it keeps</h3>"));
    let circuit = fs_err::read_to_string(bench.path("out/pictures/graph-ioi.svg")).unwrap();
    assert!(circuit.contains("The circuit on ioi as a graph: 4 heads by layer"));
    assert_eq!(circuit.matches("pointer-events=\"stroke\"").count(), 50);
    let file = GraphFile::read(&bench.path("out/importances.json")).unwrap();
    assert_eq!((file.n_layers, file.n_heads, file.d_model), (4, 8, 128));
    assert!(file.edges.iter().any(|(_, entry)| entry.score != 0.0));
    let shown: Value =
        serde_json::from_slice(&fs_err::read(bench.path("out/neuronpedia.json")).unwrap()).unwrap();
    assert_eq!(shown["metadata"]["prompt_tokens"][0], "<bos>");
    assert!(!shown["links"].as_array().unwrap().is_empty());
    let nodes = shown["nodes"].as_array().unwrap();
    let output = nodes
        .iter()
        .find(|node| node["feature_type"] == "logit")
        .unwrap();
    assert!(
        output["clerp"].as_str().unwrap().starts_with("Output \""),
        "{output}"
    );

    // At the prompts themselves KL is flat; the contrast, which is read where there are no answers, is not.
    bench.write(
        "pairs.jsonl",
        "{\"positive\": \"the cat and the dog\", \"negative\": \"the dog and the dog\"}\n",
    );
    let line = "discover --pairs pairs.jsonl --method eap";
    let output = bench.run(&format!("{line} --metric kl"));
    let message = output.stderr;
    assert_eq!(output.code, Some(1), "{message}");
    assert!(message.contains("gradient of `kl` is zero"), "{message}");
}

#[test]
fn discover_with_answers_of_a_task_file() {
    let bench = Bench::new();
    let prompt = |giver: &str| {
        format!(
            "In spring Maurice and Elsa rented a corner of the chapel . Soon {giver} sold a ribbon to"
        )
    };
    let task = serde_json::json!({ "prompts": [
        { "clean": prompt("Elsa"), "corrupt": prompt("Maurice"), "answers": ["Maurice"],
          "wrong_answers": ["Elsa"] },
        { "clean": prompt("Maurice"), "corrupt": prompt("Elsa"), "answers": ["Elsa"],
          "wrong_answers": ["Maurice"] },
    ]});
    bench.write("task.json", task.to_string());
    // The answers make the logit difference the metric, whose gradient does not vanish.
    let found = bench.json("discover --pairs task.json --method nap --select top:3 --faithfulness");
    assert_eq!(found["positives"], 2);
    let top = &found["heads"][0];
    assert!(top["score"].as_f64().unwrap() > 0.1, "{top}");
    assert!(found["quality"]["head_share"].is_number());
    // Of one answer alone the probability is read.
    bench.write(
        "right.jsonl",
        serde_json::json!({ "positive": prompt("Elsa"), "negative": prompt("Maurice"),
            "answers": ["Maurice"] })
        .to_string(),
    );
    bench.json("discover --pairs right.jsonl --method nap");
}

#[test]
fn discover_by_stability_and_by_the_knee() {
    let bench = Bench::new();
    let found = bench.json(
        "discover --task greater-than --method recommended-activations --examples 40 --codes 40 --select stability:0.9",
    );
    assert_eq!(found["selection"]["stability"], 0.9);
    assert_eq!(
        found["stability"]["frequencies"].as_array().unwrap().len(),
        32
    );
    let found = bench.json(
        "discover --task greater-than --method mean-difference --examples 10 --patch-pairs 2 --select knee",
    );
    let sizes = found["knee"]["sizes"].as_array().unwrap();
    assert!(sizes.len() <= 25 && sizes[0] == 0, "{sizes:?}");
    assert_eq!(sizes.last().unwrap(), 32);
    assert_eq!(found["knee"]["effects"].as_array().unwrap().len(), 24);
    let output = bench.run("discover --task ioi --examples 4 --method acdc --select stability:0.4");
    assert_eq!(output.code, Some(2), "{}", output.stderr);
}

#[test]
fn eval_judges_scores_of_a_file() {
    let bench = Bench::new();
    bench.json("discover --task ioi --method eap --examples 6 --output theirs");
    let results = bench.json(
        "eval --task ioi --method random --scores theirs/importances.json --seeds 1 --examples 6 --output judged",
    );
    let rows = results["summary"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["method"] == "theirs-importances")
        .unwrap();
    let own = bench.json("eval --task ioi --method eap --seeds 1 --examples 6 --output own");
    assert_eq!(row["node_auc"], own["summary"][0]["node_auc"]);
    assert_eq!(row["edge_auc"], own["summary"][0]["edge_auc"]);

    let output = bench.run("eval --task ioi,induction --scores theirs/importances.json");
    assert_eq!(output.code, Some(1));
    assert!(
        output.stderr.contains("the one --task"),
        "{}",
        output.stderr
    );
    bench.write("broken.json", "{}");
    let output = bench.run("eval --task ioi --scores broken.json --output never");
    assert!(
        output.stderr.contains("broken.json: the file: found {}"),
        "{}",
        output.stderr
    );
    assert!(!bench.path("never").exists());
}

#[test]
fn doctor_notices_an_injected_fault() {
    let bench = Bench::new();
    let output =
        bench.run("doctor --device cpu --inject-fault blocks.2.hook_mlp_out --format json");
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let devices = report["backends"].as_array().unwrap().iter();
    let checked: Vec<&Value> = devices
        .flat_map(|backend| backend["devices"].as_array().unwrap())
        .collect();
    assert_eq!(checked.len(), 1);
    let failed: Vec<&str> = checked[0]["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["passed"] == false)
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(failed[0], "blocks.2.hook_mlp_out");
    assert!(failed.contains(&"logits"), "{failed:?}");
    // Training and codes start from the recorded outputs.
    assert!(!failed.contains(&"codes"), "{failed:?}");
    assert!(
        failed.contains(&"gradient at blocks.0.attn.hook_z"),
        "{failed:?}"
    );
}

#[test]
fn discover_by_significance() {
    let bench = Bench::new();
    let found = bench.json(
        "discover --task induction --method recommended-activations --examples 30 --codes 40 --select fdr:0.1",
    );
    let significance = &found["significance"];
    assert_eq!(significance["p_values"].as_array().unwrap().len(), 32);
    let selected = significance["selected"].as_array().unwrap();
    let circuit = found["circuit"]["nodes"].as_array().unwrap();
    assert_eq!(selected.len(), circuit.len());
}

#[test]
fn eval_measures_what_circuits_keep() {
    let bench = Bench::new();
    let results = bench.json(
        "eval --task ioi --method eap,random --seeds 1 --examples 6 --resamples 5 --faithfulness \
         --patch-pairs 2 --output kept",
    );
    for row in results["summary"].as_array().unwrap() {
        assert!(row["node_cpr"].is_number(), "{row}");
        assert!(row["node_interval"]["low"].is_number(), "{row}");
    }
    let page = fs_err::read_to_string(bench.path("kept/report.html")).unwrap();
    assert!(page.contains("faithfulness of circuits of heads"));
    assert!(page.contains("strongest edges"));
    assert!(page.contains("The highest node AUC of a method is"));
    for file in ["pictures/kept-ioi.svg", "pictures/circuit-ioi-eap.svg"] {
        assert!(bench.path("kept").join(file).is_file(), "{file}");
    }
}

/// Every method with what it needs, from the one table; the docs name them all, too.
#[test]
fn methods_are_listed() {
    use circuitscope::eval::methods::ALL;

    let bench = Bench::new();
    let rows = bench.json("methods");
    let text = bench.ok("methods");
    let long = text.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None);
    assert_eq!(rows.as_array().unwrap().len(), ALL.len());
    let docs = include_str!("../../../../docs/methods/README.md");
    for (row, about) in rows.as_array().unwrap().iter().zip(ALL) {
        assert_eq!(row["name"], *about.name);
        assert_eq!(row["control"], about.control);
        let marks = ["", "*", "+"].map(|mark| format!("  {}{mark} ", about.name));
        let mut lines = text.lines();
        let line = lines.find(|line| marks.iter().any(|begin| line.starts_with(begin)));
        let first = about.summary.split(' ').next().unwrap();
        assert!(line.unwrap().contains(first), "{line:?}");
        let short = about
            .name
            .strip_prefix("mutual-information")
            .filter(|rest| !rest.is_empty());
        let named = [Some(&*about.name), short]
            .into_iter()
            .flatten()
            .any(|name| docs.contains(&format!("`{name}`")));
        assert!(named, "docs/methods/README.md: no `{}`", about.name);
    }
    let row = |name: &str| {
        rows.as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(row("recommended")["default"], true);
    assert_eq!(
        row("recommended")["needs"],
        json!(["model", "gradients", "pairs"])
    );
    assert_eq!(row("sae")["needs"], json!([]));
    assert_eq!(row("acdc")["passes"], "1 a pair and edge");
}
