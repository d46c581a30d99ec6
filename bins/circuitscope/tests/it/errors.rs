//! What goes wrong: one line, code 1, nothing half-written.

use safetensors::Dtype::{F32, I32, U8};
use serde_json::json;

use crate::support::{Bench, bytes};

const LABELS: [u8; 8] = [1, 1, 1, 1, 0, 0, 0, 0];
/// A number of the reference model's configuration.
fn reference(key: &str) -> u64 {
    let bench = Bench::new();
    bench.reference_model("m");
    let config = fs_err::read(bench.path("m/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config[key].as_u64().unwrap()
}

const TRAIN: &str = "train --activations a.safetensors --output sae";

#[test]
fn files_that_are_no_safetensors() {
    let bench = Bench::new();
    bench.fails(
        TRAIN,
        "cannot read `a.safetensors`: No such file or directory (os error 2)",
    );
    bench.write("a.safetensors", "");
    bench.fails(
        TRAIN,
        "a.safetensors: not a safetensors file: 0 bytes, the header length alone takes 8",
    );
    bench.write(
        "a.safetensors",
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
    );
    bench.fails(
        TRAIN,
        "a.safetensors: not a safetensors file: header too large",
    );
    bench.activations("a.safetensors", &LABELS);
    let whole = fs_err::read(bench.path("a.safetensors")).unwrap();
    bench.write("a.safetensors", &whole[..whole.len() - 3]);
    bench.fails(
        TRAIN,
        "a.safetensors: not a safetensors file: incomplete metadata, file not fully covered",
    );
    bench.write("c.safetensors", "");
    bench.fails(
        "score --codes c.safetensors",
        "c.safetensors: not a safetensors file: 0 bytes, the header length alone takes 8",
    );
}

#[test]
fn activations_of_a_wrong_shape_or_value() {
    let bench = Bench::new();
    let zeros = bytes(&[0.0; 32]);
    let labels = ("labels", U8, &[2usize][..], &[1u8, 0][..]);
    bench.tensors(
        "a.safetensors",
        &[("activations", F32, &[2, 16], &zeros), labels],
    );
    bench.fails(TRAIN, "a.safetensors: tensor `activations`: found shape [2, 16], expected the axes [examples, heads, d]");
    bench.tensors(
        "a.safetensors",
        &[("activations", F32, &[2, 8, 2], &zeros), labels],
    );
    bench.fails(TRAIN, "a.safetensors: tensor `activations`: found 8 heads of width 2, expected n_layers × n_heads = 2 × 2 heads");
    bench.tensors(
        "a.safetensors",
        &[("activation", F32, &[2, 4, 4], &zeros), labels],
    );
    bench.fails(TRAIN, "a.safetensors: tensor `activations`: found no such tensor among [\"activation\", \"labels\"], expected it to be there: `circuitscope discover --save-activations FILE` writes such a file; `capture` writes sites, without labels");
    let mut data = [0.0; 32];
    data[17] = f32::NAN;
    bench.tensors(
        "a.safetensors",
        &[("activations", F32, &[2, 4, 4], &bytes(&data)), labels],
    );
    bench.fails(
        TRAIN,
        "a.safetensors: tensor `activations`: found NaN at example 1, head L0H0, expected finite numbers",
    );
}

/// Words that the model inside the program does not know, and what to do about it.
#[test]
fn own_prompts_without_their_model() {
    let bench = Bench::new();
    let right = r#"{"positive": "the", "negative": "the"}"#;
    let other = r#"{"positive": "the zeppelin", "negative": "the"}"#;
    bench.write("p.jsonl", format!("{right}\n{other}\n"));
    let words = reference("vocab_size");
    for bos in ["auto", "false"] {
        let ran = bench.run(&format!("discover --pairs p.jsonl --prepend-bos {bos}"));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let expected = format!(
            "\"the zeppelin\": found the word \"zeppelin\", expected words among the {words} of the model's vocabulary: \
             give the model that the prompts are for with --model: the reference model inside this program knows the words of \
             its own tasks alone\n"
        );
        assert!(ran.stderr.ends_with(&expected), "{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: p.jsonl:2"), "{}", ran.stderr);
    }
}

#[test]
fn arrays_of_other_programs() {
    let bench = Bench::new();
    bench.write(
        "a.safetensors",
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4'}",
    );
    bench.fails(
        TRAIN,
        "a.safetensors: not a safetensors file: found a NumPy file (.npy), expected safetensors; \
         safetensors.numpy.save_file writes such a file",
    );
    bench.ok("capture --task ioi --examples 2 --sites blocks.0.attn.hook_z --reduce mean --output z.safetensors");
    let ran = bench.run("train --activations z.safetensors --output sae");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let expected = "`circuitscope discover --save-activations FILE` writes such a file; `capture` writes sites, without labels\n";
    assert!(ran.stderr.ends_with(expected), "{}", ran.stderr);
}

#[test]
fn a_class_without_examples() {
    let bench = Bench::new();
    bench.activations("a.safetensors", &[1; 8]);
    bench.fails(
        "discover --activations a.safetensors",
        "a.safetensors: no negative examples: the method compares positive with negative ones",
    );
    let codes = [0u8; 32];
    bench.tensors(
        "c.safetensors",
        &[
            ("codes", I32, &[2, 4], &codes),
            ("labels", U8, &[2], &[0, 0]),
        ],
    );
    bench.fails(
        "score --codes c.safetensors",
        "c.safetensors: no positive examples: scores compare positive with negative ones",
    );
    bench.write("yes.txt", "the\n");
    bench.write("no.txt", "");
    bench.fails(
        "discover --positive yes.txt --negative no.txt",
        "no.txt has no negative prompt: both classes need at least one",
    );
    bench.write("pairs.jsonl", "\n");
    bench.fails(
        "discover --pairs pairs.jsonl",
        "pairs.jsonl has no positive prompt: both classes need at least one",
    );
}

#[test]
fn prompts_that_do_not_fit() {
    let bench = Bench::new();
    bench.write("p.jsonl", "{\"positive\": \"the\", \"negativ\": \"a\"}\n");
    bench.fails(
        "discover --pairs p.jsonl",
        "p.jsonl:1: unknown field \"negativ\" (did you mean `negative`?): expected \"positive\", \"negative\", \"answers\", \"wrong_answers\", \"spans\", \"slots\" or \"variables\"",
    );
    bench.write("t.json", "{\"tokens\": [[1, 2], [3, 99999]]}");
    bench.fails(
        "capture --tokens t.json --sites logits --output x.safetensors",
        &format!(
            "t.json: row 1 of tokens: found 99999, expected 0 to {}",
            reference("vocab_size") - 1
        ),
    );
    bench.write(
        "t.json",
        "{\"tokens\": [[1, 2]], \"attention_mask\": [[1]]}",
    );
    bench.fails(
        "capture --tokens t.json --sites logits --output x.safetensors",
        "t.json: row 0 of attention_mask: found 1 entries, expected 2 as in tokens",
    );
    // More rows than one forward pass takes: the row is counted in the file, not in the pass.
    let row = |mask: &str| format!("{}{mask}", "[1, 1],".repeat(1500));
    bench.write(
        "t.json",
        format!(
            "{{\"tokens\": [{}], \"attention_mask\": [{}]}}",
            row("[1, 2]"),
            row("[0, 0]")
        ),
    );
    bench.fails(
        "capture --tokens t.json --sites logits --output x.safetensors",
        "t.json: row 1500 of the attention mask: found no real token, expected at least one",
    );
    bench.write("t.json", "{\"tokens\": [[1, 2]], \"mask\": [[1, 1]]}");
    bench.fails(
        "capture --tokens t.json --sites logits --output x.safetensors",
        "t.json: unknown field `mask`, expected `tokens` or `attention_mask` at line 1 column 27",
    );
    bench.fails(
        "capture --task ioi --sites blocks.0.attn.hook_zz --output x.safetensors",
        "this model has no site `blocks.0.attn.hook_zz` (did you mean `blocks.0.attn.hook_z`?)",
    );
}

#[test]
fn models_that_cannot_be_trusted() {
    let bench = Bench::new();
    let line = "capture --model m --task ioi --sites logits --output x.safetensors";
    bench.fails(line, "--model m: no such file or folder, expected `reference`, a folder with config.json and model.safetensors, a GGUF file, ollama:NAME, or owner/name[@revision] of the hub");
    bench.fails(
        &line.replace("--model m", "--model referenc"),
        "--model referenc: no such file or folder (did you mean `reference`?), expected `reference`, a folder with config.json and model.safetensors, a GGUF file, ollama:NAME, or owner/name[@revision] of the hub",
    );
    bench.reference_model("m");
    bench.set("m/config.json", "model_type", json!("gpt3"));
    bench.fails(line,"m/config.json: model_type = \"gpt3\" is not supported, expected \"gemma\", \"gemma2\", \"gemma3\", \"gemma3_text\", \"gpt2\", \"gpt_neox\", \"gptj\", \"llama\", \"mistral\", \"opt\", \"phi3\", \"qwen2\", \"qwen3\", or a TransformerLens configuration");
    bench.reference_model("m");
    bench.set("m/config.json", "n_haed", json!(4));
    bench.fails(
        &format!("{line} --strict-config"),
        "m/config.json: unknown key `n_haed` (did you mean `n_head`?)",
    );
    bench.reference_model("m");
    bench.write("m/model.safetensors", "");
    bench.fails(
        line,
        "m/model.safetensors: not a safetensors file: the file is empty",
    );
    bench.reference_model("m");
    let mut weights = fs_err::read(bench.path("m/model.safetensors")).unwrap();
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    bench.write("m/model.safetensors", &weights);
    bench.fails(line,&format!(
            "m/model.safetensors: the weights do not fit the configuration: transformer.wte.weight: NaN at entry {}, expected finite numbers",
            reference("vocab_size") * reference("n_embd") - 1
        ));
    weights.truncate(end - 8);
    bench.write("m/model.safetensors", &weights);
    bench.fails(
        line,
        "m/model.safetensors: not a safetensors file: incomplete metadata, file not fully covered",
    );
    bench.reference_model("m");
    fs_err::remove_file(bench.path("m/tokenizer.json")).unwrap();
    bench.fails(
        line,
        "m: expected the model's tokenizer beside its weights, which text prompts need: found no tokenizer.json in it",
    );
}

#[test]
fn output_that_cannot_be_written() {
    let bench = Bench::new();
    bench.activations("a.safetensors", &LABELS);
    bench.write("file", "");
    bench.fails(
        "train --activations a.safetensors --output file/sae",
        "--output file/sae: cannot write here: not a directory",
    );
    bench.fails(
        "eval --task ioi --output file/e",
        "--output file/e: cannot write here: not a directory",
    );
    bench.fails(
        "discover --activations a.safetensors --output file/d",
        "--output file/d: cannot write here: not a directory",
    );
    bench.fails(
        "capture --task ioi --sites logits --output file/x.safetensors","--output file/x.safetensors: cannot write here: failed to create directory `file`: File exists (os error 17)");
}

/// Every stage reads files of its own; each says which it could not read, and says it once.
#[test]
fn files_that_cannot_be_read_are_named_once() {
    let bench = Bench::new();
    bench.reference_model("m");
    let model = "capture --model m --task ioi --sites logits --output x.safetensors";
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        bench.reference_model("m");
        fs_err::remove_file(bench.path(&format!("m/{file}"))).unwrap();
        fs_err::create_dir(bench.path(&format!("m/{file}"))).unwrap();
        let ran = bench.run(model);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let path = format!("m/{file}");
        assert_eq!(ran.stderr.matches(&path).count(), 1, "{ran:?}");
        fs_err::remove_dir(bench.path(&path)).unwrap();
    }
    fs_err::create_dir(bench.path("folder")).unwrap();
    bench.activations("a.safetensors", &LABELS);
    bench.ok("train --activations a.safetensors --output sae --codes 6 --steps 2");
    for line in [
        "score --codes none",
        "score --codes folder",
        "discover --pairs none",
        "discover --pairs folder",
        "discover --positive none --negative folder",
        "discover --activations folder",
        "capture --prompts folder --sites logits --output x",
        "capture --tokens folder --sites logits --output x",
        "encode --sae sae --activations folder --output x",
        "encode --sae none --activations a.safetensors --output x",
    ] {
        let ran = bench.run(line);
        assert_eq!(ran.code, Some(1), "{line}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        let named: usize = ["none", "folder", "a.safetensors"]
            .map(|name| ran.stderr.matches(name).count())
            .iter()
            .sum();
        assert_eq!(named, 1, "{line}: {}", ran.stderr);
    }
    fs_err::create_dir_all(bench.path("e/settings.json")).unwrap();
    let ran = bench.run("eval --task ioi --output e");
    assert_eq!(ran.stderr.matches("e/settings.json").count(), 1, "{ran:?}");
}

#[test]
fn dictionaries_that_do_not_fit() {
    let bench = Bench::new();
    bench.activations("a.safetensors", &LABELS);
    let encode = "encode --sae sae --activations a.safetensors --output c.safetensors";
    bench.fails(
        encode,
        "failed to read directory `sae`: No such file or directory (os error 2)",
    );
    fs_err::create_dir(bench.path("sae")).unwrap();
    bench.fails(
        encode,
        "sae: found nothing, expected one dictionary: cfg.json and sae_weights.safetensors (circuitscope, SAELens), cfg.json and sae.safetensors (sparsify), params.npz (Gemma Scope), params.safetensors (Gemma Scope 2), hyperparams.json and checkpoints/ (Llama Scope), config.json and ae.pt (dictionary_learning), or NAME.pt and NAME_cfg.json (attention-output-saes)",
    );
    bench.ok("train --activations a.safetensors --output sae --codes 6 --steps 2");
    bench.set("sae/cfg.json", "k", json!(4));
    bench.fails(encode, "sae/cfg.json: unknown field \"k\"");
    bench.fails(
        "discover --task ioi --sae sae --method hisp",
        "--sae sae: found method hisp, expected sae or sae-corrected, which take a dictionary",
    );
    bench.ok("train --activations a.safetensors --output sae --codes 6 --steps 2");
    bench.tensors(
        "a.safetensors",
        &[
            ("activations", F32, &[2, 4, 3], &bytes(&[1.0; 24])),
            ("labels", U8, &[2], &[1, 0]),
        ],
    );
    bench.fails(
        encode,
        "a.safetensors: sae: found activations of attn.hook_result, width 3, expected those that the dictionary takes, of width 4",
    );
    bench.fails(
        "train --activations a.safetensors --output s --train-examples 9",
        "a.safetensors: found 2 examples, expected at least --train-examples 9",
    );
    bench.fails(
        "train --activations a.safetensors --output s --l1 nan",
        "l1_coefficient is NaN: expected a finite number, at least 0",
    );
}

#[test]
fn numbers_folders_and_pairs_that_are_not_there() {
    let bench = Bench::new();
    bench.fails(
        "eval --seed 18446744073709551615 --output e",
        "--seed 18446744073709551615: found 3 seeds from there on, expected them to be at most 18446744073709551615",
    );
    bench.fails(
        "report e",
        "e: no settings.json here, expected the output folder of `circuitscope eval`",
    );
    bench.activations("a.safetensors", &LABELS);
    bench.fails(
        "discover --activations a.safetensors --method paired-flip-rate",
        "method `paired-flip-rate` needs prompts in pairs: use --task or --pairs",
    );
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_backend_that_is_not_compiled_in() {
    let bench = Bench::new();
    bench.activations("a.safetensors", &LABELS);
    bench.fails(
        &format!("{TRAIN} --device cuda:1"),
        "device `cuda:1`: not compiled in: build with `cargo build --release --features cuda`",
    );
    bench.fails(
        "doctor --device cuda",
        "device `cuda`: not compiled in: build with `cargo build --release --features cuda`",
    );
}
