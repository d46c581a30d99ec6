//! Text of files as contexts of tokens.

use anyhow::{Context as _, Result, bail};
use circuitscope::features::{contexts, read_texts};
use circuitscope::model::Loaded;

use super::bos;
use crate::args::{ModelArgs, TextArgs};
use crate::device::B;
use crate::output::note;
use crate::provenance::Provenance;

/// Tokens of a context where none are asked for.
const CONTEXT: usize = 128;

/// The contexts, and whether a beginning-of-text token stands at the begin of each.
pub(super) fn read(
    args: &TextArgs,
    of_model: &ModelArgs,
    model: &Loaded<B>,
    provenance: &mut Provenance,
) -> Result<(Vec<Vec<u32>>, bool)> {
    let most = model.model.config().n_ctx;
    let length = args.context.unwrap_or(CONTEXT.min(most));
    if length > most || length < 2 {
        bail!("--context {length}: expected 2 to {most}, as many tokens as the model takes");
    }
    let mut texts = Vec::new();
    for path in &args.text {
        provenance.input(path)?;
        texts.extend(read_texts(path)?);
    }
    let names: Vec<String> = args
        .text
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let start = bos::settle(model, of_model, false, &mut [], |_| names.join(", "))?;
    let tokenizer = model.tokenizer()?;
    let bos = if start.done { tokenizer.bos() } else { None };
    let cut = contexts(tokenizer, &texts, bos, length, args.tokens);
    let cut = cut.with_context(|| names.join(", "))?;
    let tokens: usize = cut.iter().map(Vec::len).sum();
    if tokens + length < args.tokens {
        note(&format!(
            "note: {}: {tokens} tokens, fewer than the {} of --tokens",
            names.join(", "),
            args.tokens
        ));
    }
    if cut.is_empty() {
        bail!(
            "{}: found too little text for one context: texts of less than 8 tokens are left out",
            names.join(", ")
        );
    }
    Ok((cut, start.done))
}

/// Tokens of the longest context.
pub(super) fn longest(contexts: &[Vec<u32>]) -> usize {
    contexts.iter().map(Vec::len).max().unwrap_or(0)
}
