use core::fmt;
use core::str::FromStr;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::loaded::Loaded;

/// Whether the beginning-of-sequence token is put before prompts. One that begins with it already
/// never gets a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PrependBos {
    /// As the model's own tokenizer does. For GPT-2 and TransformerLens models yes, as in the paper and
    /// as TransformerLens does, although GPT-2's tokenizer puts nothing before a text.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Before every prompt.
    #[serde(rename = "true")]
    Always,
    /// Before none.
    #[serde(rename = "false")]
    Never,
}

impl PrependBos {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Auto, "auto"),
        (Self::Always, "true"),
        (Self::Never, "false"),
    ];
}

impl fmt::Display for PrependBos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "true",
            Self::Never => "false",
        })
    }
}

impl FromStr for PrependBos {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.iter().find(|(_, name)| *name == text);
        let choice = named.map(|(choice, _)| *choice);
        choice.ok_or_else(|| "expected auto, true or false".to_owned())
    }
}

impl<B: Backend> Loaded<B> {
    /// What [`PrependBos`] comes to with this model: whether
    /// [`Tokenizer::encode`](crate::Tokenizer::encode) is to put the beginning-of-sequence token before a
    /// prompt. [`PrependBos::Auto`] is no where there is no such token.
    pub fn prepends_bos(&self, asked: PrependBos) -> bool {
        match asked {
            PrependBos::Auto => self
                .tokenizer
                .as_ref()
                .is_some_and(|tokenizer| tokenizer.bos().is_some() && tokenizer.adds_bos()),
            PrependBos::Always => true,
            PrependBos::Never => false,
        }
    }
}
