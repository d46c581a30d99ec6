//! GGUF: the golden families as llama.cpp's converter writes them, tokenizers, and files that are broken.

#![expect(
    clippy::disallowed_types,
    reason = "what the writer of the format takes"
)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anamnesis::{
    GgufMetadataArray as MetaArray, GgufMetadataValue as Meta, GgufType, GgufWriteTensor,
    parse_gguf, write_gguf,
};
use circuitscope_core::{Exec, NoProgress};
use circuitscope_model::{Error, LoadSettings, Loaded, Processing, Tokenizer, load_gguf};
use circuitscope_testkit::{Golden, Values, assert_close_named, device, real_model};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::folder::ModelFolder;
use crate::{B, PARITY, golden_folder, load, right_padded};

fn file(name: &str) -> PathBuf {
    golden_folder("gguf").join(name)
}

fn try_gguf(file: &Path) -> Result<Loaded<B>, Error> {
    let settings = LoadSettings::from(Processing::Raw).with_exec(Exec::all_cores());
    load_gguf(file, settings, &device(), &NoProgress)
}

fn read_json(name: &str) -> Map<String, Value> {
    serde_json::from_slice(&fs_err::read(file(name)).unwrap()).unwrap()
}

/// File, folder that it was made from, family.
const MODELS: [(&str, &str, &str); 10] = [
    ("gemma", "families/gemma", "Gemma"),
    ("gemma2", "families/gemma2", "Gemma 2"),
    ("gpt2_tiny", "gpt2_tiny", "GPT-2"),
    ("llama", "families/llama", "Llama"),
    ("llama_biases", "families/llama_biases", "Llama"),
    ("llama_rope_linear", "families/llama_rope_linear", "Llama"),
    ("llama_rope_llama3", "families/llama_rope_llama3", "Llama"),
    ("phi3", "families/phi3", "Phi-3"),
    ("qwen2", "families/qwen2", "Qwen2"),
    ("qwen3", "families/qwen3", "Qwen3"),
];

#[test]
fn every_architecture_is_the_model_that_it_was_made_from() {
    for (name, folder, family) in MODELS {
        let loaded = try_gguf(&file(&format!("{name}.gguf"))).unwrap();
        assert_eq!(loaded.provenance.family, family, "{name}");
        let files: Vec<_> = loaded
            .provenance
            .files
            .iter()
            .map(|file| &file.name)
            .collect();
        assert_eq!(files, [&format!("{name}.gguf")]);
        let batch = right_padded(&[[3u32, 1, 4, 1, 5, 9, 2, 6]]);
        let logits = Values::from(loaded.model.logits(&batch));
        let reference = ModelFolder::copy_of(&golden_folder(folder));
        if name == "gemma2" {
            // The file cannot say another scale of the scores than that of a head's width.
            reference.edit_config(|config| {
                config.insert("query_pre_attn_scalar".into(), 8.into());
            });
        }
        let expected = load(reference.path(), Processing::Raw).logits(&batch);
        assert_close_named(name, &logits, &Values::from(expected), 1e-6);
    }
}

/// The same against what Hugging Face computed.
#[test]
fn architectures_match_hugging_face() {
    for (name, folder, _) in MODELS {
        let Some(folder) = folder.strip_prefix("families/") else {
            continue;
        };
        if folder == "gemma2" {
            continue;
        }
        let reference = golden_folder("families").join(folder);
        let golden = Golden::read(&reference.join("reference.safetensors"));
        let batch = right_padded(&golden.tokens("input_ids"));
        let model = try_gguf(&file(&format!("{name}.gguf"))).unwrap().model;
        let logits = Values::from(model.logits(&batch));
        assert_close_named(name, &logits, golden.floats("hf.logits"), PARITY);
    }
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Ids of every text of a golden file.
fn check_ids(tokenizer: &Tokenizer, texts: &Value, expected: &Value, what: &str) {
    let (texts, expected) = (texts.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(texts.len(), expected.len());
    for (text, expected) in texts.iter().zip(expected) {
        let text = text.as_str().unwrap();
        let found = tokenizer.encode(text, false).unwrap();
        assert_eq!(found, ids(expected), "{what}: {text:?}");
    }
}

/// A GGUF file that a test may spoil: metadata and tensors in F32, F16 or BF16.
struct Parts {
    metadata: HashMap<String, Meta>,
    tensors: BTreeMap<String, (Vec<usize>, GgufType, Vec<u8>)>,
}

impl Parts {
    fn of(name: &str) -> Self {
        let parsed = parse_gguf(file(name)).unwrap();
        let tensors = parsed.tensors().map(|tensor| {
            let rest = (tensor.shape.to_vec(), tensor.dtype, tensor.data.to_vec());
            (tensor.name.to_owned(), rest)
        });
        Self {
            metadata: parsed.metadata().clone(),
            tensors: tensors.collect(),
        }
    }

    fn set(mut self, key: &str, value: Meta) -> Self {
        self.metadata.insert(key.to_owned(), value);
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.metadata.remove(key).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded<B>, Error> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.gguf");
        let tensors: Vec<GgufWriteTensor<'_>> = self
            .tensors
            .iter()
            .map(|(name, (shape, dtype, data))| GgufWriteTensor {
                name,
                shape,
                dtype: *dtype,
                data,
            })
            .collect();
        write_gguf(&path, &tensors, &self.metadata).unwrap();
        try_gguf(&path)
    }

    fn tokenizer(&self) -> Tokenizer {
        self.load().unwrap().tokenizer.unwrap()
    }

    fn error(&self) -> String {
        let message = self.load().map(drop).unwrap_err().to_string();
        assert!(message.contains("model.gguf: "), "{message}");
        message
    }
}

fn text(text: &str) -> Meta {
    Meta::String(text.to_owned())
}

#[test]
fn byte_level_tokenizers_cut_words_as_the_file_says() {
    let golden = read_json("bpe.json");
    let ways = golden["ids"].as_object().unwrap();
    assert_eq!(ways.len(), 6);
    for (pre, expected) in ways {
        let parts = Parts::of("bpe.gguf").set("tokenizer.ggml.pre", text(pre));
        let tokenizer = parts.tokenizer();
        check_ids(&tokenizer, &golden["texts"], expected, pre);
        assert_eq!(tokenizer.bos(), Some(0));
        let words = "the  WORDS, 1752 of <|user|> naïve 🙂\n";
        let there = tokenizer.encode(words, false).unwrap();
        assert_eq!(tokenizer.decode(&there).unwrap(), words);
    }
    // Digits by themselves or not is a difference that the texts show.
    assert_ne!(ways["gpt-2"], ways["starcoder"]);
}

#[test]
fn sentencepiece_merges_the_best_pair_first() {
    let golden = read_json("sentencepiece.json");
    for prefix in [true, false] {
        let key = "tokenizer.ggml.add_space_prefix";
        let parts = Parts::of("sentencepiece.gguf").set(key, Meta::Bool(prefix));
        let tokenizer = parts.tokenizer();
        let expected = &golden["ids"][prefix.to_string().as_str()];
        check_ids(&tokenizer, &golden["texts"], expected, key);
        assert_eq!(tokenizer.bos(), Some(1));
        let words = "two words,  naïve 🙂\n";
        let there = tokenizer.encode(words, false).unwrap();
        assert_eq!(tokenizer.decode(&there).unwrap(), words);
        let control = tokenizer.encode("a<s>b", false).unwrap();
        assert!(control.contains(&1), "{control:?}");
    }
}

#[test]
fn a_file_without_vocabulary_has_no_tokenizer() {
    let loaded = try_gguf(&file("llama.gguf")).unwrap();
    assert!(matches!(loaded.tokenizer(), Err(Error::NotAModel { .. })));
    assert_eq!(loaded.provenance.notes, [""; 0]);
}

/// What the program says about a file whose metadata are wrong.
#[test]
fn metadata_that_cannot_be_used() {
    let llama = || Parts::of("llama.gguf");
    let bpe = || Parts::of("bpe.gguf");
    let pieces = || Parts::of("sentencepiece.gguf");
    let one = || Meta::U32(1);
    for (parts, expected) in [
        (
            llama().without("general.architecture"),
            "`general.architecture` is missing",
        ),
        (
            llama().set("general.architecture", one()),
            "`general.architecture` is no text",
        ),
        (
            llama().set("general.architecture", text("mamba")),
            "general.architecture = \"mamba\" is not supported, expected gemma, ",
        ),
        (
            llama().without("llama.block_count"),
            "metadata key `llama.block_count` is missing",
        ),
        (
            llama().set("llama.block_count", text("two")),
            "llama.block_count = \"two\" is not supported",
        ),
        (
            llama().set("llama.block_count", Meta::U64(u64::MAX)),
            "num_hidden_layers",
        ),
        (
            llama().set("llama.block_count", Meta::U32(3)),
            "blk.2.attn_norm.weight: missing",
        ),
        (
            llama().set("llama.attention.head_count", Meta::U32(0)),
            "num_attention_heads = 0",
        ),
        (
            llama().set("llama.attention.head_count", Meta::U32(3)),
            "num_key_value_heads",
        ),
        (
            llama().set("llama.attention.head_count", Meta::U32(u32::MAX)),
            "a total width below 2^32",
        ),
        (
            llama().set("llama.embedding_length", Meta::U32(20)),
            "token_embd.weight: shape",
        ),
        (
            llama().set("llama.attention.key_length", Meta::U32(u32::MAX)),
            "value_length",
        ),
        (
            llama().set("llama.expert_count", Meta::U32(8)),
            "llama.expert_count = 8 is not supported",
        ),
        (
            llama().set(
                "llama.attention.layer_norm_rms_epsilon",
                Meta::F32(f32::NAN),
            ),
            "a finite number",
        ),
        (
            llama().set("llama.rope.dimension_count", Meta::U32(2)),
            "the width of a head",
        ),
        (
            llama().set("llama.rope.scaling.type", text("yarn")),
            "llama.rope.scaling.type = \"yarn\"",
        ),
        (
            llama().set("llama.logit_scale", Meta::F32(0.5)),
            "llama.logit_scale = 0.5",
        ),
        (
            llama().set("split.count", Meta::U16(2)),
            "llama-gguf-split --merge",
        ),
        (
            bpe().set("tokenizer.ggml.pre", text("bloom")),
            "tokenizer.ggml.pre = \"bloom\" is not supported",
        ),
        (
            bpe().without("tokenizer.ggml.pre"),
            "`tokenizer.ggml.pre` is missing",
        ),
        (
            bpe().without("tokenizer.ggml.merges"),
            "`tokenizer.ggml.merges` is missing",
        ),
        (
            bpe().without("tokenizer.ggml.tokens"),
            "`tokenizer.ggml.tokens` is missing",
        ),
        (
            bpe().set("tokenizer.ggml.model", text("t5")),
            "tokenizer.ggml.model = \"t5\"",
        ),
        (
            bpe().set("tokenizer.ggml.token_type", one()),
            "tokenizer.ggml.token_type = 1",
        ),
        (
            bpe().set("tokenizer.ggml.bos_token_id", text("a")),
            "tokenizer.ggml.bos_token_id = \"a\"",
        ),
        (
            bpe().set("tokenizer.ggml.merges", strings(&["nospace"])),
            "an entry without a space",
        ),
        (
            bpe().set("tokenizer.ggml.merges", strings(&["no token"])),
            "out of vocabulary",
        ),
        (
            bpe().set("tokenizer.ggml.tokens", strings(&["a", "b"])),
            "expected 2, one for each token",
        ),
        (
            pieces().without("tokenizer.ggml.scores"),
            "`tokenizer.ggml.scores` is missing",
        ),
    ] {
        let message = parts.error();
        assert!(message.contains(expected), "{message}, expected {expected}");
    }
}

fn strings(list: &[&str]) -> Meta {
    let list = list.iter().map(|&text| text.to_owned()).collect();
    Meta::Array(Box::new(MetaArray::String(list)))
}

#[test]
fn keys_that_change_nothing_are_named() {
    let parts = Parts::of("llama.gguf").set("llama.some.new_key", Meta::U32(1));
    let notes = parts.load().unwrap().provenance.notes;
    assert_eq!(
        notes,
        ["metadata keys that are not read: llama.some.new_key"]
    );
}

#[test]
fn tensors_that_do_not_fit_are_named_as_in_the_file() {
    let mut parts = Parts::of("llama.gguf");
    parts.tensors.remove("blk.1.attn_q.weight").unwrap();
    let extra = parts.tensors["output_norm.weight"].clone();
    parts.tensors.insert("blk.0.extra.weight".to_owned(), extra);
    let gate = parts.tensors.get_mut("blk.0.ffn_gate.weight").unwrap();
    gate.0.reverse();
    let message = parts.error();
    for line in [
        "blk.1.attn_q.weight: missing, expected shape [16, 16]",
        "blk.0.extra.weight: unused",
        "blk.0.ffn_gate.weight: shape [16, 20], expected [20, 16]",
    ] {
        assert!(message.contains(line), "{message}");
    }

    let mut parts = Parts::of("llama.gguf");
    parts.tensors.remove("token_embd.weight").unwrap();
    assert!(parts.error().contains("token_embd.weight: missing"));

    let mut parts = Parts::of("llama.gguf");
    let (_, _, data) = parts.tensors.get_mut("blk.1.ffn_up.weight").unwrap();
    data[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
    let message = parts.error();
    assert!(
        message.contains("blk.1.ffn_up.weight: NaN at entry 10"),
        "{message}"
    );

    let mut parts = Parts::of("llama.gguf");
    let (shape, dtype, data) = parts.tensors.get_mut("blk.1.ffn_up.weight").unwrap();
    *dtype = GgufType::F64;
    data.resize(shape.iter().product::<usize>() * 8, 0);
    let message = parts.error();
    assert!(
        message.contains("blk.1.ffn_up.weight: type F64, expected F32, F16"),
        "{message}"
    );

    let mut parts = Parts::of("llama_rope_llama3.gguf");
    let (_, _, data) = parts.tensors.get_mut("rope_freqs.weight").unwrap();
    data[0..4].copy_from_slice(&3.0f32.to_le_bytes());
    assert!(
        parts
            .error()
            .contains("rope_freqs.weight = 4 factors of another rule")
    );
}

/// A file cut anywhere, and one with any byte changed in its header, is an error or a model, no panic.
#[test]
fn broken_files_are_errors() {
    let whole = fs_err::read(file("bpe.gguf")).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    // The last tensor is 8 bytes long, and 24 fill it up to a multiple of 32.
    let end = whole.len() - 24;
    let mut lengths: Vec<usize> = (0..end).step_by(211).collect();
    lengths.extend([1, 3, 4, 8, 16, 23, 24, end - 1]);
    for length in lengths {
        fs_err::write(&path, &whole[..length]).unwrap();
        let message = try_gguf(&path).map(drop).unwrap_err().to_string();
        assert!(message.contains("model.gguf"), "{length}: {message}");
    }
    for at in (4..whole.len()).step_by(97) {
        for value in [0, 0xff, whole[at] ^ 0x20] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            fs_err::write(&path, bytes).unwrap();
            if let Err(error) = try_gguf(&path) {
                assert!(error.to_string().contains("model.gguf"), "{at}: {error}");
            }
        }
    }
}

/// SmolLM2-135M-Instruct against transformers' reading of the same file
/// (`golden/gguf/real.py`): ids of 1,000 random texts.
#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn a_real_model_splits_texts_as_transformers_does() {
    let loaded = try_gguf(&real_model()).unwrap();
    let golden = read_json("real.json");
    let tokenizer = loaded.tokenizer().unwrap();
    assert_eq!(golden["texts"].as_array().unwrap().len(), 1000);
    check_ids(tokenizer, &golden["texts"], &golden["ids"], "transformers");
    let notes = &loaded.provenance.notes;
    assert!(
        notes.contains(&"tensors dequantised: 210 of type Q4_1, 1 of type Q8_0".to_owned()),
        "{notes:?}"
    );
}
