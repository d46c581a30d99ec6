//! What chosen heads signal, in the tokenizer's words.

use std::collections::BTreeMap;

use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::{HeadId, INACTIVE, Progress, Seed};
use circuitscope_eval::causal::CausalEvidence;
use circuitscope_eval::{CodeSignal, HeadSignals, SignalSettings, signals};
use circuitscope_model::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::behaviour::{quoted, text};
use crate::{Error, Result};

/// What heads signal ([`circuitscope_eval::signals`]), and what the tokens are that it speaks of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Signals {
    /// Head by head, in the order in which they were asked for.
    pub heads: Vec<HeadSignals>,
    /// The texts of all tokens there.
    pub tokens: BTreeMap<u32, String>,
}

/// Names of the columns of [`Signals::rows`].
pub const SIGNAL_COLUMNS: [&str; 8] = [
    "head",
    "its effect",
    "code",
    "of the code",
    "positives",
    "negatives",
    "read at",
    "promotes",
];

impl Signals {
    /// Reads `heads` on pairs of prompts where they matter.
    ///
    /// # Errors
    /// As [`circuitscope_eval::signals`].
    pub fn of<B: AutodiffBackend>(
        causal: &CausalEvidence<B::InnerBackend>,
        tokenizer: &Tokenizer,
        heads: &[HeadId],
        how: SignalSettings,
        (seed, device): (Seed, &B::Device),
        progress: &dyn Progress,
    ) -> Result<Self> {
        let heads =
            signals::<B>(causal, heads, how, seed, device, progress).map_err(Error::from)?;
        let codes = heads.iter().flat_map(|head| &head.codes);
        let tokens = codes.flat_map(|code| code.promotes.iter().chain([&code.token]));
        let tokens = tokens.map(|&token| (token, text(tokenizer, token)));
        Ok(Self {
            tokens: tokens.collect(),
            heads,
        })
    }

    /// A row for each of the `most` codes that carry most of each of the first `heads` heads, in the order of [`SIGNAL_COLUMNS`].
    #[must_use]
    pub fn rows(&self, heads: usize, most: usize) -> Vec<Vec<String>> {
        let rows = self.heads.iter().take(heads).flat_map(|head| {
            let codes = head.codes.iter().take(most).enumerate();
            codes.map(|(at, code)| self.row((at == 0).then_some(head), code))
        });
        rows.collect()
    }

    fn row(&self, head: Option<&HeadSignals>, code: &CodeSignal) -> Vec<String> {
        let named = |token: &u32| quoted(self.tokens.get(token).map_or("", String::as_str));
        let promotes: Vec<String> = code.promotes.iter().map(named).collect();
        vec![
            head.map_or_else(String::new, |head| head.head.to_string()),
            head.map_or_else(String::new, |head| {
                format!("{} {}", percent(head.effect), head.reference)
            }),
            match code.code {
                INACTIVE => "none".to_owned(),
                code => code.to_string(),
            },
            percent(code.effect),
            code.positives.to_string(),
            code.negatives.to_string(),
            format!(
                "{} ({} of {})",
                named(&code.token),
                code.at_token,
                code.positives
            ),
            promotes.join(" "),
        ]
    }
}

/// A share with a decimal, and no sign where that is nothing.
fn percent(share: f64) -> String {
    let tenths = (1000.0 * share).round() + 0.0;
    format!("{:.1} %", tenths / 10.0)
}
