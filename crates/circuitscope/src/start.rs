//! What stands before prompts.

use burn::tensor::backend::Backend;
use circuitscope_model::{Loaded, PrependBos};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What stands before prompts: what was asked for, and what it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptStart {
    /// What was asked for.
    pub asked: PrependBos,
    /// Whether the token was put before prompts.
    pub done: bool,
    /// The token, where the tokenizer has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// How many prompts began with it and so got no second one.
    pub there_already: usize,
    /// Whether prompts became messages in the tokenizer's chat template.
    pub chat: bool,
    /// The date that the template wrote into them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_date: Option<String>,
}

impl PromptStart {
    /// Puts prompts into the chat template, if asked for and none is in it already, and settles what comes before them;
    /// `place` says where a prompt stands. Beside it, what is to be told of it, one sentence each.
    ///
    /// # Errors
    /// [`Error::InTemplate`]; [`Error::At`] for what cannot be tokenised; a model without tokenizer or template.
    pub fn settle<B: Backend>(
        model: &Loaded<B>,
        asked: PrependBos,
        chat: bool,
        texts: &mut [String],
        place: impl Fn(usize) -> String,
    ) -> Result<(Self, Vec<String>)> {
        let tokenizer = model.tokenizer()?;
        let mut notes = Vec::new();
        let mut chat_date = None;
        if chat {
            let marks = tokenizer.chat_marks()?;
            for (at, text) in texts.iter_mut().enumerate() {
                if let Some(mark) = marks.iter().find(|mark| text.contains(*mark)) {
                    let (place, mark) = (place(at), mark.clone());
                    return Err(Error::InTemplate { place, mark });
                }
                let prompt = tokenizer.chat_prompt(text)?;
                *text = prompt.text;
                chat_date = prompt.date;
            }
        }
        if let Some(date) = &chat_date {
            notes.push(format!(
                "the chat template writes the date into prompts: {date} (UTC)"
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
            let begins = begins.map_err(|error| Error::At {
                place: place(at),
                source: Box::new(error.into()),
            })?;
            there_already += usize::from(begins && done);
        }
        if let Some(token) = token.as_ref().filter(|_| there_already > 0) {
            let all = match texts.len() {
                1 => "1 prompt began".to_owned(),
                all => format!("{all} prompts began"),
            };
            notes.push(format!(
                "{there_already} of {all} with {token} already and got no second one"
            ));
        }
        let start = Self {
            asked,
            done,
            token,
            there_already,
            chat,
            chat_date,
        };
        Ok((start, notes))
    }

    /// For captures: what was done is what is to be done.
    #[must_use]
    pub const fn setting(&self) -> PrependBos {
        if self.done {
            PrependBos::Always
        } else {
            PrependBos::Never
        }
    }

    /// What was asked for and what it came to, in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
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
            "before each prompt: {before} (prepend-bos: {}){chat}",
            self.asked
        )
    }
}
