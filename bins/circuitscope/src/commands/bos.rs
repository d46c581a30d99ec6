//! What stands before prompts, and saying so.

use anyhow::Result;
use circuitscope::PromptStart;
use circuitscope::model::Loaded;

use crate::args::ModelArgs;
use crate::device::B;
use crate::output::note;

/// [`PromptStart::settle`] as the command line asks for it; what is to be told of it is.
pub(crate) fn settle(
    model: &Loaded<B>,
    args: &ModelArgs,
    chat: bool,
    texts: &mut [String],
    place: impl Fn(usize) -> String,
) -> Result<PromptStart> {
    let (start, notes) = PromptStart::settle(model, args.prepend_bos, chat, texts, place)?;
    for said in notes {
        note(&format!("note: {said}"));
    }
    Ok(start)
}
