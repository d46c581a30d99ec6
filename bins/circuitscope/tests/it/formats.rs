//! Models in other files than a folder of safetensors.

use std::path::{Path, PathBuf};

use crate::support::{Bench, Ran, floats};

const TOKENS: &str = r#"{"tokens":[[3,1,4,1,5,9,2,6],[2,7,1,8]]}"#;

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder
        .join("../../crates/circuitscope-model/tests/it/golden")
        .join(name)
}

/// What `capture` gives and says for a model.
fn captured(bench: &Bench, model: &str, options: &str) -> (Vec<f32>, String) {
    bench.write("tokens.json", TOKENS);
    let line = format!(
        "capture --model {model} --tokens tokens.json --sites blocks.1.attn.hook_z --output z.safetensors {options}"
    );
    let ran = bench.run(&line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (_, values) = floats(&bench.path("z.safetensors"))
        .remove("blocks.1.attn.hook_z")
        .unwrap();
    (values, ran.stderr)
}

fn close(one: &[f32], other: &[f32], what: &str) {
    assert_eq!(one.len(), other.len());
    let worst = one
        .iter()
        .zip(other)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst <= 1e-5, "{what}: {worst:e}");
}

#[test]
fn a_gguf_file_is_the_model_of_the_folder_that_it_was_made_from() {
    let bench = Bench::new();
    for name in ["llama", "qwen3", "phi3", "gemma"] {
        for options in ["--processing raw", "--dtype bf16 --processing raw"] {
            let file = golden(&format!("gguf/{name}.gguf"));
            let folder = golden(&format!("families/{name}"));
            let (ours, _) = captured(&bench, &file.display().to_string(), options);
            let (theirs, _) = captured(&bench, &folder.display().to_string(), options);
            close(&ours, &theirs, &format!("{name} {options}"));
        }
    }
}

#[test]
fn a_folder_with_one_gguf_file_is_that_model() {
    let bench = Bench::new();
    let bytes = fs_err::read(golden("gguf/llama.gguf")).unwrap();
    bench.write("m/model.gguf", &bytes);
    captured(&bench, "m", "");
    bench.write("m/other.gguf", &bytes);
    let line = "capture --model m --tokens tokens.json --sites logits --output x.safetensors";
    bench.fails(
        line,
        "--model m: found 2 GGUF files, expected one; name it, such as m/model.gguf",
    );
}

#[test]
fn a_model_that_ollama_keeps() {
    let bench = Bench::new();
    let bytes = fs_err::read(golden("gguf/llama.gguf")).unwrap();
    let digest = "a".repeat(64);
    bench.write(&format!("ollama/blobs/sha256-{digest}"), bytes);
    let manifest = format!(
        r#"{{"schemaVersion":2,"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}","size":1}}]}}"#
    );
    bench.write(
        "ollama/manifests/registry.ollama.ai/library/tiny/1b",
        manifest,
    );
    bench.write("tokens.json", TOKENS);
    let run = |model: &str| {
        let line = format!(
            "capture --model {model} --tokens tokens.json --sites logits --output x.safetensors"
        );
        let mut command = bench.command(&line);
        Ran::of(
            command
                .env("OLLAMA_MODELS", bench.path("ollama"))
                .output()
                .unwrap(),
        )
    };
    let ran = run("ollama:tiny:1b");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = run("ollama:absent");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .contains("--model ollama:absent: no model of Ollama's"),
        "{ran:?}"
    );
}

#[test]
fn what_was_dequantised_is_said() {
    let bench = Bench::new();
    for (file, name) in [
        ("nf4.config.json", "config.json"),
        ("nf4.safetensors", "model.safetensors"),
    ] {
        let bytes = fs_err::read(golden("quantised").join(file)).unwrap();
        bench.write(&format!("nf4/{name}"), bytes);
    }
    bench.write("tokens.json", TOKENS);
    let line = "capture --model nf4 --tokens tokens.json --sites logits --output x.safetensors";
    let ran = bench.run(line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let note = "note: nf4: tensors dequantised: 7 of bitsandbytes NF4\n";
    assert!(ran.stderr.contains(note), "{ran:?}");
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let bench = Bench::new();
    bench.write("tokens.json", TOKENS);
    let line = |model: &str| {
        format!(
            "capture --model {model} --tokens tokens.json --sites logits --output x.safetensors"
        )
    };
    bench.write("notes.txt", "a model");
    bench.fails(
        &line("notes.txt"),
        "--model notes.txt: found a file that is not GGUF, expected a GGUF file or the folder that a model lies in",
    );
    bench.write("broken.gguf", "GGUF");
    let ran = bench.run(&line("broken.gguf"));
    assert_eq!(ran.code, Some(1));
    let start = "error: broken.gguf: not a GGUF file that can be read: ";
    assert!(ran.stderr.starts_with(start), "{ran:?}");
}
