//! GGUF, the format of llama.cpp: weights, configuration and tokenizer in one file.
//!
//! The header is parsed by the crate `anamnesis`. From the metadata a configuration in Hugging Face's
//! layout is made and the tensors get the names that go with it, so that the families read them as they
//! read any other; what llama.cpp's converter rewrote is undone as a tensor is read.

mod arch;
mod bpe;
mod metadata;
pub(crate) mod sentencepiece;
pub(crate) mod tensor;
mod tokenizer;
mod vocabulary;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use anamnesis::{GgufFrontMatter, GgufTensorInfo, parse_gguf_front_matter_from_reader};
use serde_json::{Map, Value};

use crate::bytes::{Bytes, map};
use crate::source::{Encoding, Source, Stored};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use arch::{Arch, Facts};
use metadata::Metadata;
use tensor::{GgufTensor, Rewritten};

/// Factors of the wave lengths of a rotation: part of the configuration elsewhere.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// First bytes of a GGUF file.
const MAGIC: &[u8] = b"GGUF";

/// A GGUF file, taken apart.
pub(crate) struct Gguf {
    /// As a Hugging Face `config.json`.
    pub(crate) config: Map<String, Value>,
    pub(crate) source: Source<'static>,
    pub(crate) tokenizer: Option<Tokenizer>,
    /// What was assumed, passed over or done, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// Whether a file is GGUF: by its first bytes, or by its name where there are none to tell.
pub fn is_gguf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut start = [0; 4];
    let read = fs_err::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    let named = path
        .extension()
        .is_some_and(|extension| extension == "gguf");
    named || (read.is_ok() && start == MAGIC)
}

impl Gguf {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        let front = front_matter(path, &bytes)?;
        let metadata = Metadata::new(path, &front.metadata)?;
        let arch = Arch::of(&metadata)?;
        if let Some(parts) = metadata.whole("split.count")?
            && parts > 1
        {
            let expected = "one file: join the parts with llama.cpp's `llama-gguf-split --merge`";
            return Err(metadata.unsupported("split.count", parts.to_string(), expected));
        }
        let has = |name: &str| front.tensor_infos.iter().any(|info| info.name == name);
        let rope_factors = rope_factors(path, &front, &bytes)?;
        let facts = Facts {
            vocabulary: rows_of(&front, path, "token_embd.weight")?,
            has: &has,
            rope_factors: rope_factors.as_deref(),
        };
        let config = arch.config(&metadata, &facts)?;
        let mut notes = Vec::new();
        let tokenizer = tokenizer::read(&metadata, facts.vocabulary, &mut notes)?;
        let unread = metadata.unread();
        if !unread.is_empty() {
            notes.push(format!(
                "metadata keys that are not read: {}",
                unread.join(", ")
            ));
        }
        if let Some(note) = quantised_note(&front) {
            notes.push(note);
        }
        let source = source(path, bytes, &front, arch, &metadata)?;
        Ok(Self {
            config,
            source,
            tokenizer,
            notes,
        })
    }
}

fn front_matter(path: &Path, bytes: &[u8]) -> Result<GgufFrontMatter> {
    parse_gguf_front_matter_from_reader(Cursor::new(bytes)).map_err(|error| Error::NotGguf {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn rows_of(front: &GgufFrontMatter, path: &Path, name: &str) -> Result<usize> {
    let info = front.tensor_infos.iter().find(|info| info.name == name);
    match info.map(shape_of).as_deref() {
        Some([rows, _]) => Ok(*rows),
        Some(shape) => Err(Error::Weights {
            path: path.to_owned(),
            problems: vec![format!("{name}: shape {shape:?}, expected two dimensions")],
        }),
        None => Err(Error::Weights {
            path: path.to_owned(),
            problems: vec![format!("{name}: missing")],
        }),
    }
}

/// The shape of a tensor, the slowest dimension first: GGUF has the fastest first.
fn shape_of(info: &GgufTensorInfo) -> Vec<usize> {
    info.shape.iter().rev().copied().collect()
}

/// `rope_freqs.weight`, if it is there.
fn rope_factors(path: &Path, front: &GgufFrontMatter, bytes: &[u8]) -> Result<Option<Vec<f32>>> {
    let info = front
        .tensor_infos
        .iter()
        .find(|info| info.name == ROPE_FACTORS);
    let Some(info) = info else {
        return Ok(None);
    };
    let tensor = tensor(info, Rewritten::No);
    let values = match tensor.problem() {
        Some(problem) => Err(problem),
        None => tensor.values(&bytes[tensor.bytes().clone()]),
    };
    values.map(Some).map_err(|problem| Error::Weights {
        path: path.to_owned(),
        problems: vec![format!("{ROPE_FACTORS}: {problem}")],
    })
}

/// Where a tensor lies. The parser made sure that its bytes lie within the file.
fn tensor(info: &GgufTensorInfo, rewritten: Rewritten) -> GgufTensor {
    let start = info.data_offset as usize;
    let shape = shape_of(info);
    let (cols, rows) = match shape.split_last() {
        Some((cols, rows)) => (*cols, rows.iter().product()),
        None => (1, 1),
    };
    // The rows of a vector that are to be put in order are its entries.
    let (rows, cols) = match rewritten {
        Rewritten::Interleaved { .. } if shape.len() == 1 => (cols, 1),
        _ => (rows, cols),
    };
    GgufTensor {
        dtype: info.dtype,
        bytes: start..start + info.byte_len.unwrap_or(0) as usize,
        rows,
        cols,
        rewritten,
    }
}

/// All tensors under the names of the Hugging Face layout.
fn source(
    path: &Path,
    bytes: Bytes<'static>,
    front: &GgufFrontMatter,
    arch: &'static Arch,
    metadata: &Metadata<'_>,
) -> Result<Source<'static>> {
    let mut index = BTreeMap::new();
    let mut problems = Vec::new();
    for info in &front.tensor_infos {
        if info.name == ROPE_FACTORS {
            continue;
        }
        let tensor = tensor(info, arch.rewritten(&info.name, metadata)?);
        let mut shape = shape_of(info);
        if tensor.is_transposed() {
            shape.reverse();
        }
        let name = arch.hugging_face(&info.name);
        let stored = Stored::new(0, shape, Encoding::Gguf(tensor));
        let name = name.unwrap_or_else(|| info.name.clone());
        if index.insert(name, stored).is_some() {
            problems.push(format!("{}: twice in the file", info.name));
        }
    }
    let label = |name: &str| arch.gguf(name).unwrap_or_else(|| name.to_owned());
    Ok(Source::of(
        path.to_owned(),
        vec![(path.to_owned(), bytes)],
        index,
        problems,
    )
    .labelled(label))
}

/// Which tensors were not stored as plain numbers.
fn quantised_note(front: &GgufFrontMatter) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for info in &front.tensor_infos {
        if info.dtype.is_quantized() {
            *counts.entry(info.dtype.to_string()).or_default() += 1;
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(dtype, count)| format!("{count} of type {dtype}"))
        .collect();
    (!counts.is_empty()).then(|| format!("tensors dequantised: {}", counts.join(", ")))
}

#[cfg(test)]
mod tests;
