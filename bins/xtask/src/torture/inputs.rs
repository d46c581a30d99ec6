//! Small valid inputs of every kind: models of this repository's tests, prompts for them, and what the program makes of
//! those.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use serde_json::json;

use super::mutator::Form;
use super::prompts;
use super::tally::copy;
use super::watch::Invocation;

/// The repository.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Small models, below the repository.
const MODELS: &str = "crates/circuitscope-model/tests/it/golden";
/// A model that other checks use, where there is one beside the checkout.
const SHARED: &str = "../shared/fixtures/models/gpt2";

/// A file to break, what lies around it, and the command that reads it.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// What is broken; as many tries for each.
    pub(crate) kind: &'static str,
    /// A folder to work in a copy of.
    pub(crate) template: PathBuf,
    /// The file in it.
    pub(crate) file: String,
    pub(crate) form: Form,
    pub(crate) args: Vec<String>,
    /// Whether the command takes any `--method` of `discover`.
    pub(crate) methods: bool,
}

/// Settings with which everything takes a fraction of a second.
pub(crate) const TINY: &str = "--codes 6 --steps 3 --train-examples 4 --gradient-pairs 4 --patch-pairs 2 --ig-steps 2 --mask-steps 3";

/// `eval` of several methods on the model inside the program, without `--output`.
pub(crate) const EVAL: &str = "eval --task induction --method random,mean-difference,sae --seeds 2 --examples 6 --resamples 3 --steps 5 --codes 8";

/// Words of a command line.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Runs the program, which must do what it is asked.
pub(crate) fn must(program: &Path, folder: &Path, line: &str) -> Result<()> {
    let ended = Invocation::new(program, folder, &words(line)).run()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.code == Some(0),
        "{line}: must work before anything is broken; exit code {:?}, peak {} bytes: {said}",
        ended.code,
        ended.peak
    );
    Ok(())
}

/// The smallest model of the tests with a tokenizer, in the folder `m` of `folder`, and prompts for it.
pub(crate) fn smallest(folder: &Path) -> Result<()> {
    prompts::write(folder)?;
    let model = folder.join("m");
    fs::create_dir_all(&model)?;
    let from = Path::new(ROOT).join(MODELS).join("gpt2_tiny");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(from.join(name), model.join(name))?;
    }
    prompts::tokenizer(&model)
}

/// Makes the inputs in `folder`, and lists what can be broken.
pub(crate) fn make(program: &Path, folder: &Path) -> Result<Vec<Recipe>> {
    let models = Path::new(ROOT).join(MODELS);
    ensure!(
        models.exists(),
        "found no {}: run this in a checkout of circuitscope",
        models.display()
    );
    let mut recipes = Vec::new();
    let tiny = folder.join("tiny");
    smallest(&tiny)?;
    text(&tiny, &mut recipes);
    families(&models, folder, &mut recipes)?;
    other_weights(&models, &tiny, folder, &mut recipes)?;
    made(program, folder, &tiny, &mut recipes)?;
    let shared = Path::new(ROOT).join(SHARED);
    if shared.exists() {
        let gpt2 = folder.join("gpt2");
        fs::create_dir_all(gpt2.join("m"))?;
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(shared.join(name), gpt2.join("m").join(name))?;
            writable(&gpt2.join("m").join(name))?;
        }
        for name in ["yes.txt", "no.txt"] {
            fs::copy(tiny.join(name), gpt2.join(name))?;
        }
        for (kind, file, form) in [
            ("tokenizer", "m/tokenizer.json", Form::Json),
            ("config", "m/config.json", Form::Json),
        ] {
            add(
                &mut recipes,
                kind,
                &gpt2,
                file,
                form,
                "discover --model m --positive yes.txt --negative no.txt --output out",
            );
        }
    }
    Ok(recipes)
}

/// Removes what keeps a copy from being changed.
fn writable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    Ok(())
}

fn add(
    recipes: &mut Vec<Recipe>,
    kind: &'static str,
    template: &Path,
    file: &str,
    form: Form,
    line: &str,
) {
    let args = words(line);
    recipes.push(Recipe {
        kind,
        template: template.to_owned(),
        file: file.to_owned(),
        form,
        methods: args[0] == "discover" && !line.contains("--method"),
        args,
    });
}

/// Tokenizer, prompts, configuration and weights of the model that reads text.
fn text(tiny: &Path, recipes: &mut Vec<Recipe>) {
    let mut add = |kind, file: &str, form, line: &str| add(recipes, kind, tiny, file, form, line);
    let pairs = "discover --model m --pairs pairs.jsonl --output out";
    let chat = "capture --model m --prompts yes.txt --chat --sites logits --output out.safetensors";
    let plain = "capture --model m --prompts yes.txt --sites logits,blocks.*.hook_resid_post --reduce mean --output out.safetensors";
    let tokens = "capture --model m --tokens tokens.json --sites * --output out.safetensors";
    for file in [
        "m/tokenizer.json",
        "m/tokenizer_config.json",
        "m/added_tokens.json",
        "m/special_tokens_map.json",
    ] {
        add("tokenizer", file, Form::Json, pairs);
        add("tokenizer", file, Form::Json, chat);
    }
    for file in ["pairs.jsonl", "spans.jsonl", "mib.jsonl"] {
        add(
            "pairs",
            file,
            Form::Json,
            &pairs.replace("pairs.jsonl", file),
        );
    }
    add(
        "task",
        "task.json",
        Form::Json,
        &pairs.replace("pairs.jsonl", "task.json"),
    );
    add(
        "table",
        "table.csv",
        Form::Lines,
        &pairs.replace("pairs.jsonl", "table.csv"),
    );
    for file in ["yes.txt", "no.txt"] {
        add(
            "prompts",
            file,
            Form::Lines,
            "discover --model m --positive yes.txt --negative no.txt --output out",
        );
    }
    add("prompts", "yes.txt", Form::Lines, plain);
    add("tokens", "tokens.json", Form::Json, tokens);
    add("config", "m/config.json", Form::Json, pairs);
    add("weights", "m/model.safetensors", Form::Safetensors, pairs);
    add("weights", "m/model.safetensors", Form::Safetensors, tokens);
}

/// Configuration and weights of every family.
fn families(models: &Path, folder: &Path, recipes: &mut Vec<Recipe>) -> Result<()> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(models.join("families"))? {
        found.push(entry?.path());
    }
    found.extend(
        ["attn_only_shortformer", "bidirectional", "gpt2_options"].map(|name| models.join(name)),
    );
    found.retain(|path| {
        path.join("config.json").exists() && path.join("model.safetensors").exists()
    });
    found.sort();
    for path in found {
        let name = path.file_name().context("a model without a name")?;
        let template = folder.join("family").join(name);
        fs::create_dir_all(template.join("m"))?;
        for name in ["config.json", "model.safetensors"] {
            fs::copy(path.join(name), template.join("m").join(name))?;
        }
        fs::write(
            template.join("tokens.json"),
            r#"{"tokens": [[1, 2, 3], [3, 2, 1]]}"#,
        )?;
        let line = "capture --model m --tokens tokens.json --sites * --output out.safetensors";
        add(
            recipes,
            "config",
            &template,
            "m/config.json",
            Form::Json,
            line,
        );
        add(
            recipes,
            "weights",
            &template,
            "m/model.safetensors",
            Form::Safetensors,
            line,
        );
    }
    Ok(())
}

/// Weights in several files, in pickles and in GGUF.
fn other_weights(
    models: &Path,
    tiny: &Path,
    folder: &Path,
    recipes: &mut Vec<Recipe>,
) -> Result<()> {
    let line = "capture --model m --tokens tokens.json --sites logits --output out.safetensors";
    let with_tokens = |name: &str, files: &[(&str, &str)]| -> Result<PathBuf> {
        let template = folder.join(name);
        fs::create_dir_all(template.join("m"))?;
        fs::copy(tiny.join("tokens.json"), template.join("tokens.json"))?;
        for (from, to) in files {
            fs::copy(models.join(from), template.join("m").join(to))?;
        }
        Ok(template)
    };
    let config = ("gpt2_tiny/config.json", "config.json");
    let part = "model-00001-of-00001.safetensors";
    let parts = with_tokens("parts", &[config, ("gpt2_tiny/model.safetensors", part)])?;
    let weights = fs::read(models.join("gpt2_tiny/model.safetensors"))?;
    let length = weights
        .first_chunk()
        .map_or(0, |length| u64::from_le_bytes(*length)) as usize;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&weights[8..8 + length])?;
    let names = header.keys().filter(|name| *name != "__metadata__");
    let map: serde_json::Map<_, _> = names.map(|name| (name.clone(), json!(part))).collect();
    let index = json!({"metadata": {"total_size": weights.len() - 8 - length}, "weight_map": map});
    fs::write(
        parts.join("m/model.safetensors.index.json"),
        serde_json::to_vec_pretty(&index)?,
    )?;
    add(
        recipes,
        "index",
        &parts,
        "m/model.safetensors.index.json",
        Form::Json,
        line,
    );

    let pickle = with_tokens(
        "pickle",
        &[config, ("pickle/pytorch_model.bin", "pytorch_model.bin")],
    )?;
    add(
        recipes,
        "pickle",
        &pickle,
        "m/pytorch_model.bin",
        Form::Binary,
        line,
    );
    for name in ["gpt2_tiny", "bpe", "sentencepiece", "llama", "gemma2"] {
        let file = format!("gguf/{name}.gguf");
        let template = with_tokens(&format!("gguf-{name}"), &[(&file, "model.gguf")])?;
        let line = line.replace("--model m", "--model m/model.gguf");
        add(
            recipes,
            "gguf",
            &template,
            "m/model.gguf",
            Form::Binary,
            &line,
        );
    }
    Ok(())
}

/// What the program writes itself and reads again.
fn made(program: &Path, folder: &Path, tiny: &Path, recipes: &mut Vec<Recipe>) -> Result<()> {
    let own = folder.join("own");
    fs::create_dir_all(&own)?;
    for name in ["m", "pairs.jsonl"] {
        let from = tiny.join(name);
        if from.is_dir() {
            copy(&from, &own.join(name))?;
        } else {
            fs::copy(&from, own.join(name))?;
        }
    }
    must(
        program,
        &own,
        "discover --model m --pairs pairs.jsonl --method mean-difference --save-activations heads.safetensors -q",
    )?;
    must(
        program,
        &own,
        "train --activations heads.safetensors --output sae --codes 6 --steps 3 --train-examples 4 -q",
    )?;
    must(
        program,
        &own,
        "encode --sae sae --activations heads.safetensors --output codes.safetensors -q",
    )?;
    let heads = "heads.safetensors";
    let train =
        "train --activations heads.safetensors --output out --codes 6 --steps 3 --train-examples 4";
    let encode = "encode --sae sae --activations heads.safetensors --output out.safetensors";
    for line in [
        train,
        encode,
        "discover --activations heads.safetensors --method sae --codes 6 --steps 3 --train-examples 4 --output out",
    ] {
        add(recipes, "activations", &own, heads, Form::Safetensors, line);
    }
    add(
        recipes,
        "codes",
        &own,
        "codes.safetensors",
        Form::Safetensors,
        "score --codes codes.safetensors",
    );
    add(
        recipes,
        "dictionary",
        &own,
        "sae/cfg.json",
        Form::Json,
        encode,
    );
    add(
        recipes,
        "dictionary",
        &own,
        "sae/sae_weights.safetensors",
        Form::Safetensors,
        encode,
    );

    let scores = folder.join("scores");
    fs::create_dir_all(&scores)?;
    must(
        program,
        &scores,
        &format!("discover --task induction --examples 4 --method eap --output found -q {TINY}"),
    )?;
    fs::copy(
        scores.join("found/importances.json"),
        scores.join("theirs.json"),
    )?;
    fs::remove_dir_all(scores.join("found"))?;
    let judge = "eval --task induction --scores theirs.json --method random --seeds 1 --examples 4 --resamples 2 --output out";
    add(recipes, "scores", &scores, "theirs.json", Form::Json, judge);

    let finished = folder.join("finished");
    fs::create_dir_all(&finished)?;
    must(program, &finished, &format!("{EVAL} --output out -q"))?;
    let runs = finished.join("out/runs");
    let mut files: Vec<String> = vec![
        "settings.json".into(),
        "results.json".into(),
        "behaviour/induction.json".into(),
    ];
    let mut names = Vec::new();
    for entry in fs::read_dir(&runs)? {
        names.push(format!("runs/{}", entry?.file_name().to_string_lossy()));
    }
    names.sort();
    files.extend(names);
    for file in files {
        for line in ["report out".to_owned(), format!("{EVAL} --output out")] {
            add(
                recipes,
                "folder",
                &finished,
                &format!("out/{file}"),
                Form::Json,
                &line,
            );
        }
    }
    Ok(())
}
