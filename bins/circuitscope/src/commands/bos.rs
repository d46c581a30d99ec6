//! What stands before prompts, and saying so.

use anyhow::{Context as _, Result, bail};
use circuitscope::PromptStart;
use circuitscope::model::{Loaded, PrependBos};

use crate::args::ModelArgs;
use crate::device::B;
use crate::output::note;

/// Puts prompts into the chat template, if asked for and none is in it already, and settles what comes before them. A note says how many begin
/// with the token already.
pub(crate) fn settle(
    model: &Loaded<B>,
    args: &ModelArgs,
    chat: bool,
    texts: &mut [String],
    place: impl Fn(usize) -> String,
) -> Result<PromptStart> {
    let tokenizer = model.tokenizer()?;
    let asked = args.prepend_bos;
    let mut chat_date = None;
    if chat {
        let marks = tokenizer.chat_marks()?;
        for (at, text) in texts.iter_mut().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| text.contains(*mark)) {
                bail!(
                    "{}: found `{mark}`, which the chat template writes, expected a message without it: leave out --chat where \
                     prompts are in the template already",
                    place(at)
                );
            }
            let prompt = tokenizer.chat_prompt(text)?;
            *text = prompt.text;
            chat_date = prompt.date;
        }
    }
    if let Some(date) = &chat_date {
        note(&format!(
            "note: the chat template writes the date into prompts: {date} (UTC)"
        ));
    }
    // A template has the token where it wants it.
    let done = model.prepends_bos(match asked {
        PrependBos::Auto if chat => PrependBos::Never,
        asked => asked,
    });
    let token = tokenizer.bos().and_then(|bos| tokenizer.token(bos));
    let mut there_already = 0;
    // What cannot be tokenised is found here, where its place is known.
    for (at, text) in texts.iter().enumerate() {
        let begins = tokenizer.begins_with_bos(text);
        let begins = begins.with_context(|| place(at))?;
        there_already += usize::from(begins && done);
    }
    if let Some(token) = token.as_ref().filter(|_| there_already > 0) {
        let all = match texts.len() {
            1 => "1 prompt began".to_owned(),
            all => format!("{all} prompts began"),
        };
        note(&format!(
            "note: {there_already} of {all} with {token} already and got no second one"
        ));
    }
    Ok(PromptStart {
        asked,
        done,
        token,
        there_already,
        chat,
        chat_date,
    })
}

/// `--prepend-bos` and `--chat`, and what they came to, in one line.
pub(crate) fn text(start: &PromptStart) -> String {
    let before = match (start.done, &start.token) {
        (true, Some(token)) => token.as_str(),
        _ => "nothing",
    };
    let chat = if start.chat {
        "; as a message in the chat template"
    } else {
        ""
    };
    format!(
        "before each prompt: {before} (--prepend-bos {}){chat}",
        start.asked
    )
}
