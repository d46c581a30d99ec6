//! Models and dictionaries as others publish them.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::support::Bench;

const CAPTURE: &str = "capture --model m --prompts p.txt --sites hook_embed --output x.safetensors";

/// The reference model in the folder `m`, and two prompts.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.reference_model("m");
    bench.write(
        "p.txt",
        "After breakfast and cycled\n<bos> After breakfast\n",
    );
    bench
}

#[test]
fn unknown_keys_are_a_note_or_with_strict_config_an_error() {
    let bench = bench();
    bench.set("m/config.json", "n_special", json!(0));
    bench.set("m/config.json", "predict_special_tokens", json!(true));
    bench.set("m/config.json", "rope_interleaved", json!(false));
    let ran = bench.run(CAPTURE);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let note =
        "note: m: config.json: passed over unknown keys: `n_special`, `predict_special_tokens`\n";
    assert!(ran.stderr.contains(note), "{ran:?}");
    bench.fails(
        &format!("{CAPTURE} --strict-config"),
        "m/config.json: unknown keys `n_special`, `predict_special_tokens`",
    );
    bench.set("m/config.json", "alibi", json!(true));
    bench.fails(
        CAPTURE,
        "m/config.json: alibi = true is not supported, expected false, or no such key in this family",
    );
    // Kept with the result.
    bench.set("m/config.json", "alibi", json!(false));
    let found =
        bench.json("discover --model m --task ioi --examples 4 --steps 2 --method mean-difference");
    let notes = found["model"]["notes"].as_array().unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note.as_str().unwrap().contains("`n_special`")),
        "{notes:?}"
    );
}

/// `auto` puts the token before GPT-2's prompts, as in the paper; what was done is said.
#[test]
fn what_comes_before_prompts_is_said() {
    let bench = bench();
    let report = |options: &str| bench.json(&format!("{CAPTURE} {options}"));
    let auto = report("");
    assert_eq!(auto["lengths"], json!([5, 3]));
    let expected = json!({
        "asked": "auto", "done": true, "token": "<bos>", "there_already": 1, "chat": false,
    });
    assert_eq!(auto["prepend_bos"], expected);
    let never = report("--prepend-bos false");
    assert_eq!(never["lengths"], json!([4, 3]));
    assert_eq!(never["prepend_bos"]["asked"], "false");
    assert_eq!(never["prepend_bos"]["done"], false);
    let ran = bench.run(&format!("{CAPTURE} --prepend-bos true"));
    let note = "note: 1 of 2 prompts began with <bos> already and got no second one\n";
    assert!(ran.stderr.contains(note), "{ran:?}");
    assert!(
        ran.stdout
            .contains("before each prompt: <bos> (prepend-bos: true)"),
        "{ran:?}"
    );

    let discover = "discover --task ioi --examples 4 --method mean-difference";
    let found = bench.json(discover);
    assert_eq!(found["settings"]["prepend_bos"]["asked"], "auto");
    assert_eq!(found["settings"]["prepend_bos"]["done"], true);
    let text = bench.ok(&format!("{discover} --prepend-bos false"));
    assert!(
        text.contains("before each prompt: nothing (prepend-bos: false)"),
        "{text}"
    );
    let ran = bench.run("capture --task ioi --sites logits --output x --prepend-bos yes");
    assert!(
        ran.stderr.contains("expected auto, true or false"),
        "{ran:?}"
    );
}

/// A model whose tokenizer puts nothing before a text gets nothing: most but GPT-2 and Llama.
#[test]
fn auto_does_as_the_tokenizer_does() {
    let bench = bench();
    let golden = "../../crates/circuitscope-model/tests/it/golden/families/llama";
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(golden);
    for file in ["config.json", "model.safetensors"] {
        bench.write(
            &format!("llama/{file}"),
            fs_err::read(golden.join(file)).unwrap(),
        );
    }
    let words: serde_json::Map<String, Value> = ["<s>", "a", "b"]
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let tokenizer = |post: Value| {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
            "added_tokens": [{
                "id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }],
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": post,
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "a"},
        })
    };
    let first = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    });
    bench.write("p.txt", "a b a\n");
    let line = CAPTURE.replace("--model m", "--model llama");
    for (post, length) in [(Value::Null, 3), (first, 4)] {
        bench.write("llama/tokenizer.json", tokenizer(post).to_string());
        assert_eq!(bench.json(&line)["lengths"], json!([length]));
    }
}

/// Tokens that `tokenizer.json` lacks come from the files beside it.
#[test]
fn the_tokenizers_other_files_count() {
    let bench = bench();
    let added = json!({
        "bos_token": "<bos>",
        "added_tokens_decoder": {"421": {"content": "<|im_start|>", "special": true}},
    });
    bench.write("p.txt", "gave<|im_start|>a\n");
    let before = bench.run(CAPTURE);
    assert!(before.stderr.contains("found the word"), "{before:?}");
    bench.write("m/tokenizer_config.json", added.to_string());
    // The model has no such token, which is an error that names it, not a silent cut into known ones.
    let ran = bench.run(CAPTURE);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("found 421, expected 0 to 420"),
        "{ran:?}"
    );
    bench.write("p.txt", "gave a\n");
    let ran = bench.run(CAPTURE);
    assert!(ran.stderr.contains("<|im_start|>"), "{ran:?}");
}

#[test]
fn chat_puts_prompts_into_the_template() {
    let bench = bench();
    bench.write("p.txt", "After breakfast and cycled\n");
    bench.fails(
        &format!("{CAPTURE} --chat"),
        "the model's tokenizer has no chat template: leave out --chat, or use the instruct version of the model",
    );
    let config = json!({
        "bos_token": "<bos>",
        "chat_template": "{{ bos_token }} {{ messages[0]['content'] }}{% if add_generation_prompt %} gave{% endif %}",
    });
    bench.write("m/tokenizer_config.json", config.to_string());
    let report = bench.json(&format!("{CAPTURE} --chat"));
    assert_eq!(report["lengths"], json!([6]));
    assert_eq!(report["prepend_bos"]["done"], false);
    assert_eq!(report["prepend_bos"]["chat"], true);
    let again = bench.json(&format!("{CAPTURE} --chat --prepend-bos true"));
    assert_eq!(again["lengths"], json!([6]));
    // What is in the template already is not put into it again.
    bench.write("p.txt", "gave a\n<bos> gave a\n");
    bench.fails(
        &format!("{CAPTURE} --chat"),
        "p.txt: prompt 2: found `<bos>`, which the chat template writes, expected a message without it: leave out --chat \
         where prompts are in the template already",
    );
    let discover = "discover --model m --task ioi --examples 4 --method mean-difference";
    let plain = bench.json(discover);
    let chat = bench.json(&format!("{discover} --chat"));
    assert_eq!(chat["settings"]["prepend_bos"]["chat"], true);
    assert_ne!(plain["heads"], chat["heads"]);
}

/// What SAELens 5 writes of the same dictionary has the same codes.
#[test]
fn dictionaries_of_older_saelens() {
    let bench = Bench::new();
    bench.activations("a.safetensors", &[1, 0, 1, 0]);
    bench.ok("train --activations a.safetensors --output sae --codes 6 --steps 2");
    let encode = "encode --sae sae --activations a.safetensors --output";
    bench.ok(&format!("{encode} six.safetensors"));
    let old = json!({
        "architecture": "standard", "d_in": 4, "d_sae": 6, "activation_fn_str": "relu", "apply_b_dec_to_input": true,
        "finetuning_scaling_factor": false, "context_size": 128, "model_name": "gpt2-small",
        "hook_name": "blocks.0.attn.hook_result", "hook_layer": 0, "hook_head_index": null, "prepend_bos": true,
        "dataset_path": "x", "dataset_trust_remote_code": null, "normalize_activations": "none", "dtype": "float32",
        "device": "cpu", "sae_lens_training_version": "5.3.0", "activation_fn_kwargs": {}, "neuronpedia_id": null,
        "model_from_pretrained_kwargs": {}, "seqpos_slice": [null],
    });
    bench.write("sae/cfg.json", old.to_string());
    bench.ok(&format!("{encode} five.safetensors"));
    let codes = |name: &str| fs_err::read(bench.path(name)).unwrap();
    assert_eq!(
        tail(&codes("six.safetensors")),
        tail(&codes("five.safetensors"))
    );

    let line = format!("{encode} x.safetensors");
    bench.set("sae/cfg.json", "activation_fn_str", json!("tanh-relu"));
    bench.fails(
        &line,
        "sae/cfg.json: this is a dictionary of SAELens 5.3.0 with activation_fn_str \"tanh-relu\", where \"relu\" and \"topk\" are read",
    );
    let sparsify = json!({
        "expansion_factor": 32, "normalize_decoder": true, "num_latents": 24, "k": 4, "multi_topk": false,
        "skip_connection": false, "d_in": 32,
    });
    bench.write("sae/cfg.json", sparsify.to_string());
    bench.fails(
        &line,
        "sae/cfg.json: this is a dictionary of sparsify, which lies in sae.safetensors, not in sae_weights.safetensors",
    );
}

/// Folders that SAELens, sparsify and Gemma Scope's formula made, with the codes that they give.
#[test]
fn dictionaries_of_other_tools() {
    const GOLDEN: &str = "../../crates/circuitscope-sae/tests/it/golden/dictionaries";
    let bench = Bench::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    let expected = fs_err::read(golden.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let x = expected.tensor("x").unwrap();
    bench.tensors(
        "a.safetensors",
        &[
            ("activations", Dtype::F32, &[6, 4, 12], x.data()),
            ("labels", Dtype::U8, &[6], &[1, 0, 1, 0, 1, 0]),
        ],
    );
    let gemma = "gemma-scope-2b-pt-res/layer_6/width_16k/average_l0_4";
    for (name, format, architecture, other_site) in [
        ("standard", "SAELens 6", "standard", false),
        ("topk", "SAELens 6", "topk", true),
        ("batchtopk-trained", "SAELens 6", "jumprelu", false),
        ("batchtopk-checkpoint", "SAELens 6", "batchtopk", false),
        ("jumprelu", "SAELens 6", "jumprelu", false),
        ("gated", "SAELens 6", "gated", false),
        ("saelens-5-gated", "SAELens 3 to 5", "gated", false),
        ("sparsify", "sparsify", "topk", false),
        ("layers.7.mlp", "sparsify", "topk", true),
        (gemma, "Gemma Scope", "jumprelu", true),
    ] {
        let folder = golden.join(name).display().to_string();
        let line = format!("--sae {folder} --activations a.safetensors");
        let encode = format!("encode {line} --output c.safetensors");
        let discover = format!("discover {line} --method sae-corrected --select top:1");
        if other_site {
            let ran = bench.run(&encode);
            assert_eq!(ran.code, Some(1), "{name}: {ran:?}");
            let both = ran
                .stderr
                .contains("found activations of attn.hook_result, width 12")
                && ran.stderr.contains("(--other-site takes it all the same)");
            assert!(both, "{name}: {ran:?}");
            assert_eq!(bench.run(&discover).code, Some(1), "{name}");
        }
        let more = if other_site { " --other-site" } else { "" };
        let report = bench.json(&format!("{encode}{more}"));
        assert_eq!(report["dictionary"]["format"], format, "{name}");
        assert_eq!(report["dictionary"]["architecture"], architecture, "{name}");
        let codes = fs_err::read(bench.path("c.safetensors")).unwrap();
        let codes = SafeTensors::deserialize(&codes).unwrap();
        let wanted = expected.tensor(&format!("{name}.codes")).unwrap();
        assert_eq!(
            codes.tensor("codes").unwrap().data(),
            wanted.data(),
            "{name}"
        );

        let found = bench.json(&format!("{discover}{more}"));
        assert_eq!(found["method"], "sae-corrected");
        assert_eq!(found["settings"]["dictionary"]["folder"], folder);
        let scored = bench.json("score --codes c.safetensors");
        for ranked in found["heads"].as_array().unwrap() {
            let nodes = scored["nodes"].as_array().unwrap();
            let node = nodes
                .iter()
                .find(|node| node["head"] == ranked["head"])
                .unwrap();
            assert_eq!(node["unique"].as_f64(), ranked["score"].as_f64(), "{name}");
        }
    }
}

/// A safetensors file without its header, which has times in it.
fn tail(file: &[u8]) -> &[u8] {
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    &rest[u64::from_le_bytes(*length) as usize..]
}
