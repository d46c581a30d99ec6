//! What stands before prompts, and saying so.

use anyhow::{Context as _, Result};
use circuitscope::model::{Loaded, PrependBos};
use serde::Serialize;

use crate::args::ModelArgs;
use crate::device::B;
use crate::output::note;

/// `--prepend-bos` and `--chat`, and what they came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bos {
    asked: PrependBos,
    /// Whether the token was put before prompts.
    pub(crate) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// How many prompts began with it and so got no second one.
    there_already: usize,
    /// Whether prompts became messages in the tokenizer's chat template.
    chat: bool,
    /// The date that the template wrote into them.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_date: Option<String>,
}

impl Bos {
    /// Puts prompts into the chat template, if asked for, and settles what comes before them. A note says how many begin
    /// with the token already.
    pub(crate) fn settle(
        model: &Loaded<B>,
        args: &ModelArgs,
        chat: bool,
        texts: &mut [String],
        place: impl Fn(usize) -> String,
    ) -> Result<Self> {
        let tokenizer = model.tokenizer()?;
        let asked = args.prepend_bos;
        let mut chat_date = None;
        if chat {
            for text in texts.iter_mut() {
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
        if let (true, Some(token)) = (done, &token) {
            for (at, text) in texts.iter().enumerate() {
                let begins = tokenizer.begins_with_bos(text);
                let begins = begins.with_context(|| place(at))?;
                there_already += usize::from(begins);
            }
            if there_already > 0 {
                let all = match texts.len() {
                    1 => "1 prompt began".to_owned(),
                    all => format!("{all} prompts began"),
                };
                note(&format!(
                    "note: {there_already} of {all} with {token} already and got no second one"
                ));
            }
        }
        Ok(Self {
            asked,
            done,
            token,
            there_already,
            chat,
            chat_date,
        })
    }

    /// For the library.
    pub(crate) const fn setting(&self) -> PrependBos {
        if self.done {
            PrependBos::Always
        } else {
            PrependBos::Never
        }
    }

    /// One line.
    pub(crate) fn text(&self) -> String {
        let before = match (self.done, &self.token) {
            (true, Some(token)) => token.as_str(),
            _ => "nothing",
        };
        let chat = if self.chat {
            "; as a message in the chat template"
        } else {
            ""
        };
        format!(
            "before each prompt: {before} (--prepend-bos {}){chat}",
            self.asked
        )
    }
}
