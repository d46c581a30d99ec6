//! Running the program, and making the files it reads.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program under test: the one that cargo built beside the tests, or the one that `CIRCUITSCOPE_PROGRAM` names, such
/// as a release build with all backends.
pub(crate) fn program() -> OsString {
    let named = std::env::var_os("CIRCUITSCOPE_PROGRAM");
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_circuitscope").into())
}

/// The program, in a folder of its own.
pub(crate) struct Bench {
    folder: TempDir,
}

/// What a run of it left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with arguments separated by spaces, to be run in the folder.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(program());
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env_remove("CIRCUITSCOPE_MODEL")
            .env_remove("CIRCUITSCOPE_CONFIG")
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE");
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        Ran::of(self.command(line).output().unwrap())
    }

    /// Runs a command that must succeed, and returns its stdout.
    pub(crate) fn ok(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "{line}\n{ran:?}");
        ran.stdout
    }

    /// Runs a command that must succeed with `--format json`.
    pub(crate) fn json(&self, line: &str) -> Value {
        let stdout = self.ok(&format!("{line} --format json"));
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs a command that must fail with code 1 and this one line on stderr.
    pub(crate) fn fails(&self, line: &str, message: &str) {
        let before = self.listing();
        let ran = self.run(line);
        assert_eq!(ran.stderr, format!("error: {message}\n"), "{line}");
        assert_eq!(ran.code, Some(1), "{line}");
        assert_eq!(ran.stdout, "", "{line}");
        assert_eq!(self.listing(), before, "{line}: nothing half-written");
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "tests make broken files on purpose"
        )]
        std::fs::write(path, content).unwrap();
    }

    /// Every file and folder below the folder.
    pub(crate) fn listing(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                }
                files.push(path);
            }
        }
        let mut files = Vec::new();
        walk(self.folder.path(), &mut files);
        files.sort();
        files
    }

    /// Copies the reference model into the folder `name`.
    pub(crate) fn reference_model(&self, name: &str) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/reference");
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            self.write(
                &format!("{name}/{file}"),
                fs_err::read(source.join(file)).unwrap(),
            );
        }
    }

    /// A GPT-2 of `layers` layers × `heads` heads of width 2, with weights that mean nothing, whose tokens
    /// are the bytes 0 to 255 and `<|endoftext|>`.
    pub(crate) fn model_of_bytes(&self, name: &str, layers: usize, heads: usize) {
        let (width, positions, vocabulary) = (2 * heads, 256, 257);
        let config = json!({
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": width,
            "n_head": heads, "n_layer": layers, "n_positions": positions, "vocab_size": vocabulary,
            "bos_token_id": 256, "eos_token_id": 256, "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new",
        });
        self.write(&format!("{name}/config.json"), config.to_string());
        let mut tensors: Vec<(String, Vec<usize>)> = vec![
            ("wte.weight".to_owned(), vec![vocabulary, width]),
            ("wpe.weight".to_owned(), vec![positions, width]),
            ("ln_f.weight".to_owned(), vec![width]),
            ("ln_f.bias".to_owned(), vec![width]),
        ];
        for layer in 0..layers {
            for (part, shape) in [
                ("ln_1", vec![width]),
                ("attn.c_attn", vec![width, 3 * width]),
                ("attn.c_proj", vec![width, width]),
                ("ln_2", vec![width]),
                ("mlp.c_fc", vec![width, 4 * width]),
                ("mlp.c_proj", vec![4 * width, width]),
            ] {
                let bias = vec![shape[shape.len() - 1]];
                tensors.push((format!("h.{layer}.{part}.weight"), shape));
                tensors.push((format!("h.{layer}.{part}.bias"), bias));
            }
        }
        let data: Vec<Vec<u8>> = tensors
            .iter()
            .enumerate()
            .map(|(tensor, (_, shape))| {
                let entries = 0..shape.iter().product::<usize>();
                let entry = |at: usize| (1.7 * at as f32 + tensor as f32).sin();
                bytes(&entries.map(entry).collect::<Vec<f32>>())
            })
            .collect();
        let views = tensors.iter().zip(&data).map(|((name, shape), data)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data).unwrap();
            (format!("transformer.{name}"), view)
        });
        let file = safetensors::serialize(views, None).unwrap();
        self.write(&format!("{name}/model.safetensors"), file);
        // Printable characters stand for themselves, the other bytes for those after U+00FF.
        let mut others = 256..;
        let mut letters: Vec<(char, usize)> = Vec::new();
        for byte in 0u32..256 {
            let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let code = if printable { Some(byte) } else { others.next() };
            letters.push((code.and_then(char::from_u32).unwrap(), byte as usize));
        }
        let vocabulary: serde_json::Map<String, Value> = letters
            .into_iter()
            .map(|(letter, byte)| (letter.to_string(), json!(byte)))
            .collect();
        let level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [{
                "id": 256, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            }],
            "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": [],
            },
        });
        self.write(&format!("{name}/tokenizer.json"), tokenizer.to_string());
    }

    /// Changes one key of a JSON file.
    pub(crate) fn set(&self, name: &str, key: &str, value: Value) {
        let mut json: Value =
            serde_json::from_slice(&fs_err::read(self.path(name)).unwrap()).unwrap();
        json[key] = value;
        self.write(name, serde_json::to_vec(&json).unwrap());
    }

    /// An activations file of 2 layers × 2 heads of width 4, whose head L1H0 tells the classes apart.
    pub(crate) fn activations(&self, name: &str, labels: &[u8]) {
        let data: Vec<f32> = labels
            .iter()
            .enumerate()
            .flat_map(|(example, &label)| {
                (0..16).map(move |at| {
                    let wave = ((example * 16 + at) as f32).sin();
                    if at / 4 == 2 && label == 1 {
                        wave + 5.0 * at as f32
                    } else {
                        wave
                    }
                })
            })
            .collect();
        let shape = [labels.len(), 4, 4];
        self.tensors(
            name,
            &[
                ("activations", Dtype::F32, &shape, &bytes(&data)),
                ("labels", Dtype::U8, &[labels.len()], labels),
            ],
        );
    }

    /// A safetensors file with the metadata of 2 layers × 2 heads.
    pub(crate) fn tensors(&self, name: &str, tensors: &[(&str, Dtype, &[usize], &[u8])]) {
        self.tensors_of(name, [2, 2], tensors);
    }

    /// The same of this many layers and heads in each.
    pub(crate) fn tensors_of(
        &self,
        name: &str,
        [n_layers, n_heads]: [usize; 2],
        tensors: &[(&str, Dtype, &[usize], &[u8])],
    ) {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (
                *name,
                TensorView::new(*dtype, shape.to_vec(), data).unwrap(),
            )
        });
        let metadata = [("n_layers", n_layers), ("n_heads", n_heads)];
        let metadata = metadata.map(|(key, number)| (key.to_owned(), number.to_string()));
        let metadata = metadata.into_iter().collect();
        let file = safetensors::serialize(views, Some(metadata)).unwrap();
        self.write(name, file);
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Ctrl-C.
#[cfg(unix)]
pub(crate) fn interrupt(child: &std::process::Child) {
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
}

/// Six pairs, a line each, whose negatives are the positives of others.
pub(crate) fn rotated_pairs() -> String {
    let countries = ["France", "Spain", "Italy", "Japan", "Chile", "Egypt"];
    let rotated = (0..6).map(|at| {
        let (positive, negative) = (countries[at], countries[(at + 1) % 6]);
        format!("{{\"positive\": \"{positive} is\", \"negative\": \"{negative} is\"}}\n")
    });
    rotated.collect()
}

pub(crate) fn bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Name, shape and values of every tensor of a safetensors file, read as f32.
pub(crate) fn floats(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs_err::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), Dtype::F32, "{name}");
            let words = view.data().as_chunks::<4>().0.iter();
            let values = words.map(|word| f32::from_le_bytes(*word)).collect();
            (name, (view.shape().to_vec(), values))
        })
        .collect()
}

/// A `tokenizer.json` whose token `i` is the word `t{i}`.
pub(crate) fn word_tokenizer(words: u64) -> String {
    let vocabulary: serde_json::Map<String, Value> =
        (0..words).map(|id| (format!("t{id}"), id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null, "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "t0" },
    })
    .to_string()
}
