//! Tasks that lie in a folder, and known circuits that lie in a file.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::Bench;

/// The example of docs/guides/own-task.md, copied to `name`.
fn example(bench: &Bench, name: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/own-task");
    for file in ["task.toml", "prompts.json", "circuit.json"] {
        let content = fs_err::read(source.join(file)).unwrap();
        bench.write(&format!("{name}/{file}"), content);
    }
}

/// Replaces a text in a file, which holds it.
fn replace(bench: &Bench, file: &str, from: &str, to: &str) {
    let text = fs_err::read_to_string(bench.path(file)).unwrap();
    assert!(text.contains(from), "{file}: {from}");
    bench.write(file, text.replacen(from, to, 1));
}

const QUICK: &str = "--method mean-difference --seeds 1 --resamples 2";

#[test]
fn a_folder_is_a_task_of_every_command() {
    let bench = Bench::new();
    example(&bench, "own");
    let line = "discover --task own/ --faithfulness none";
    let found = bench.json(&format!("{line} --output d"));
    assert_eq!(found["examples"], "who-receives");
    assert_eq!(found["positives"], 20, "as task.toml says");
    assert_eq!(found["metric"]["why"], "the metric of task `who-receives`");
    let known = &found["known_circuit"];
    assert_eq!(known["model"], "reference");
    assert_eq!(known["why"], "by the hash of its weights");
    assert_eq!(known["file"], "own/circuit.json");
    let inputs = found["provenance"]["inputs"].as_object().unwrap();
    assert_eq!(inputs.len(), 3, "{inputs:?}");
    assert_eq!(inputs["own/circuit.json"], known["sha256"]);
    let page = fs_err::read_to_string(bench.path("d/report.html")).unwrap();
    assert!(page.contains("those of reference in own/circuit.json: by the hash of its weights"));
    assert!(page.contains("who-receives in reference"));
    assert!(page.contains("of two people named"));
    // The same again, and other prompts from another seed.
    assert_eq!(bench.json(line)["heads"], found["heads"]);
    assert_ne!(
        bench.json(&format!("{line} --seed 1"))["heads"],
        found["heads"]
    );

    let captured = bench.json("capture --task own/task.toml --sites logits --output l.safetensors");
    assert_eq!(captured["prompts"], 40);
    let captured =
        bench.json("capture --task own --examples 3 --sites logits --output l.safetensors");
    assert_eq!(captured["prompts"], 6);

    let found =
        bench.json("eval --task own/ --method recommended --seeds 1 --resamples 0 --output e");
    let run = &found["runs"][0];
    assert_eq!(run["task"], "who-receives");
    assert!(run["node_auc"].as_f64().unwrap() > 0.95, "{run}");
    let page = fs_err::read_to_string(bench.path("e/report.html")).unwrap();
    assert!(page.contains("those of reference in own/circuit.json: by the hash of its weights"));
    assert!(page.contains("20 pairs for each task"));
    // The page can be made again without the folder.
    fs_err::rename(bench.path("own"), bench.path("away")).unwrap();
    bench.ok("report e");
    assert_eq!(
        fs_err::read_to_string(bench.path("e/report.html")).unwrap(),
        page
    );
    fs_err::rename(bench.path("away"), bench.path("own")).unwrap();
    // Other prompts or another circuit are another evaluation.
    let eval = "eval --task own/ --method recommended --seeds 1 --resamples 0 --output e";
    replace(
        &bench,
        "own/circuit.json",
        "\"L0H1\", \"L0H6\"",
        "\"L0H1\", \"L0H6\", \"L0H0\"",
    );
    bench.fails(
        eval,
        "e/tasks/who-receives.json: found other known circuits of task who-receives, expected those of this \
         command: choose another --output",
    );
    example(&bench, "own");
    replace(&bench, "own/prompts.json", "\"Agnes\", ", "");
    bench.fails(
        eval,
        "e/tasks/who-receives.json: found other prompts of task who-receives, expected those of this command: \
         choose another --output",
    );
    // Beside a task of this program.
    example(&bench, "own");
    let found = bench.json(&format!(
        "eval --task ioi,own/ --examples 12 {QUICK} --output b"
    ));
    assert_eq!(found["runs"].as_array().unwrap().len(), 2);
    bench.fails(
        &format!("eval --task own/,own/task.toml {QUICK} --output c"),
        "--task: found who-receives twice, expected tasks of different names",
    );
}

#[test]
fn a_folder_may_hold_pairs() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    bench.write(
        "own/task.toml",
        "schema = 1\nname = \"letters\"\nsummary = \"a letter is named again\"\n[prompts]\npairs = \"p.jsonl\"\n",
    );
    let lines = ["ab", "cd", "ef", "gh", "ij", "kl"].map(|word| {
        let (a, b) = word.split_at(1);
        format!(
            "{{\"positive\": \"{a}{b}{a}\", \"negative\": \"{b}{b}{a}\", \"answers\": \"{b}\", \
             \"wrong_answers\": \"{a}\"}}\n"
        )
    });
    bench.write("own/p.jsonl", lines.concat());
    let line = "discover --model m --task own/ --method mean-difference";
    let found = bench.json(line);
    assert_eq!(found["positives"], 6, "all that there are");
    assert_eq!(
        found["metric"]["why"],
        "every pair has right and wrong answers"
    );
    assert_eq!(bench.json(&format!("{line} --examples 4"))["positives"], 4);
    bench.fails(
        &format!("{line} --examples 7"),
        "task letters: found 6 pairs, expected at least the 7 that were asked for",
    );
    // Nothing to judge by.
    bench.fails(
        &format!("eval --model m --task own/ {QUICK} --output e"),
        "no circuit is known for task `letters` in m (known in own/task.toml: it lists none): `eval` needs \
         one: give it in [[circuits]], or by --circuit FILE; `discover` does not",
    );
    bench.fails(
        &format!("eval --model m --task own/ --circuit gpt2-small {QUICK} --output e"),
        "no circuit is known for task `letters` in gpt2-small: name a model that has one with --circuit",
    );
}

#[test]
fn faults_of_a_folder_are_named() {
    let bench = Bench::new();
    let ran = bench.run("discover --task own");
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains("unknown task \"own\": expected \"ioi\""),
        "{}",
        ran.stderr
    );
    example(&bench, "own");
    replace(&bench, "own/task.toml", "[dictionary]", "[dictionery]");
    bench.fails(
        "discover --task own",
        "own/task.toml: dictionery: found an unknown key (did you mean `dictionary`?), expected \"schema\", \
         \"name\", \"summary\", \"metric\", \"prompts\", \"dictionary\", \"tokenizer\" or \"circuits\"",
    );
    // Words that the model does not have are not drawn; too few are an error.
    example(&bench, "own");
    let names = "\"names\": [\n      \"Agnes\"";
    replace(
        &bench,
        "own/prompts.json",
        names,
        "\"names\": [\n      \"Zoltan\", \"Agnes\"",
    );
    let ran = bench.run("discover --task own --faithfulness none --method mean-difference");
    assert!(
        ran.stderr.contains(
            "note: 20 of 21 names are drawn from: those that are one token in this model"
        ),
        "{ran:?}"
    );
}

#[test]
fn circuits_come_from_files() {
    let bench = Bench::new();
    // Which heads this command chose, as EAP-IG writes circuits.
    let found = bench.json("discover --task ioi --examples 12 --faithfulness none --output d");
    let chosen: Vec<Value> = found["circuit"]["nodes"].as_array().unwrap().clone();
    let line = format!("eval --task ioi --examples 12 {QUICK}");
    let results = bench.json(&format!("{line} --circuit d/importances.json --output e"));
    assert_eq!(
        results["provenance"]["settings"]["circuits"],
        "d/importances.json"
    );
    assert!(results["provenance"]["inputs"]["d/importances.json"].is_string());
    let by = fs_err::read(bench.path("e/tasks/ioi.json")).unwrap();
    let by: Value = serde_json::from_slice(&by).unwrap();
    let heads = by["circuits"]["truths"][0]["groups"]["circuit"]
        .as_array()
        .unwrap();
    assert_eq!(heads.len(), chosen.len());
    // `discover` marks them.
    let found = bench
        .json("discover --task ioi --examples 12 --faithfulness none --circuit d/importances.json");
    assert_eq!(found["known"]["found"], chosen.len());
    assert_eq!(found["known"]["others"], 0);
    assert_eq!(found["known_circuit"]["why"], "as asked for");
    assert_eq!(found["known_circuit"]["file"], "d/importances.json");

    // This program's own form: the circuit of the reference model, by its file, judges as by its name.
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/reference/ground_truth.json");
    bench.write("truth.json", fs_err::read(file).unwrap());
    let by_file = bench.json(&format!("{line} --circuit truth.json --output f"));
    let by_name = bench.json(&format!("{line} --output g"));
    assert_eq!(
        by_file["runs"][0]["node_auc"],
        by_name["runs"][0]["node_auc"]
    );

    // A case of InterpBench, which has a name of its own.
    let case = json!({
        "schema": 1, "model": "11", "n_layers": 4, "n_heads": 8, "decoys": [],
        "tasks": { "11": {
            "source": "InterpBench, edges.pkl (arXiv 2407.14494)",
            "groups": { "circuit": ["L0H1", "L3H3"] },
            "edges": ["input->a0.h1", "a0.h1->m0", "m0->a3.h3", "a3.h3->logits"],
        } },
    });
    bench.write("case.json", case.to_string());
    let found = bench.json(&format!("{line} --circuit case.json --output h"));
    assert_eq!(found["runs"][0]["truth"], "11");

    // A plain list, and a circuit whose shape is seen before weights are read.
    bench.write("list.json", r#"{"heads": ["L0H1", "L3H3"]}"#);
    let listed = bench.json(&format!("{line} --circuit list.json --output i"));
    assert_eq!(listed["runs"][0]["truth"], "list");
    assert_eq!(listed["runs"][0]["node_auc"], found["runs"][0]["node_auc"]);
    bench.reference_model("broken");
    bench.write("broken/model.safetensors", "");
    bench.write(
        "wide.json",
        case.to_string().replace("\"n_heads\":8", "\"n_heads\":12"),
    );
    for command in ["eval --output x", "discover"] {
        bench.fails(
            &format!("{command} --model broken --task ioi --circuit wide.json"),
            "the circuits of wide.json are of 4 layers × 12 heads, the model has 4 × 8",
        );
    }

    let importances = fs_err::read_to_string(bench.path("d/importances.json")).unwrap();
    let importances: Value = serde_json::from_str(&importances).unwrap();
    let marked = |all: bool| {
        let mut file = importances.clone();
        for (name, node) in file["nodes"].as_object_mut().unwrap() {
            if name.starts_with('a') {
                node["in_graph"] = json!(all);
            }
        }
        for edge in file["edges"].as_object_mut().unwrap().values_mut() {
            edge["in_graph"] = json!(false);
        }
        file.to_string()
    };
    let failing = |content: &str, message: &str| {
        bench.write("c.json", content);
        bench.fails(&format!("{line} --circuit c.json --output x"), message);
    };
    failing(
        &marked(false),
        "c.json: c: found no head in the circuit, expected at least one",
    );
    failing(
        &marked(true),
        "c.json: c: found all 32 heads in the circuit, expected some of them: a circuit of all heads tells none \
         apart",
    );
    let text = case.to_string();
    failing(
        &text.replace("\"n_heads\":8", "\"n_heads\":12"),
        "the circuits of c.json are of 4 layers × 12 heads, the model has 4 × 8",
    );
    failing(
        &text.replace("L3H3\"", "L3H9\""),
        "c.json: group \"circuit\": L3H9, but the model has 4 layers of 8 heads",
    );
    failing(&text.replace("\"L0H1\",\"L3H3\"", ""), "c.json: no heads");
    failing(
        "{\"heads\": []}",
        "c.json: c: found no head in the circuit, expected at least one",
    );
    failing(
        "{\"heads\": [\"L4H0\"]}",
        "c.json: c: found a4.h0, expected nodes of the model",
    );
    failing(
        "{\"head\": []}",
        "c.json: the file: found {\"head\":[]}, expected an object of `cfg`, `nodes` and `edges`, as EAP-IG writes",
    );
    bench.fails(
        &format!("{line} --circuit none.json --output x"),
        "cannot read `none.json`: No such file or directory (os error 2)",
    );
    bench.fails(
        &format!("eval --circuit case.json {QUICK} --output x"),
        "--circuit case.json: found no --task, expected the one --task whose circuit it is",
    );
    bench.fails(
        &format!("eval --task ioi,induction --circuit case.json {QUICK} --output x"),
        "--circuit case.json: found 2 tasks, expected the one --task whose circuit it is",
    );
}
