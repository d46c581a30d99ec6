use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use circuitscope_core::{Polarity, Progress, Seed};
use circuitscope_eval::Behaviour;
use circuitscope_eval::causal::CausalEvidence;
use circuitscope_hooks::{Capture, Site, wide};
use circuitscope_model::{Loaded, PaddingSide, TokenBatch, Tokenizer, check_finite};
use circuitscope_tasks::{AnswerToken, LabelledPrompts};
use serde::{Deserialize, Serialize};

use crate::{Error, PreparedPrompts, Result};

/// What a model makes of the prompts, before any head is scored: whether it shows the behaviour, and the
/// prompts as it sees them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PromptBehaviour {
    /// The first positive prompt.
    pub positive: SeenPrompt,
    /// The first negative prompt.
    pub negative: SeenPrompt,
    /// All pairs; absent where prompts are not matched, so that nothing can be compared.
    #[serde(flatten)]
    pub measured: Option<Behaviour>,
    /// Positive prompts after which the model gives a wrong answer.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub failing: Vec<FailingPrompt>,
}

/// A prompt as the model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SeenPrompt {
    /// Its text.
    pub text: String,
    /// Its tokens, the beginning of the sequence included.
    pub tokens: Vec<String>,
    /// The model's loss on them, in nats a token; of a prompt of more than 64, on the last of them. Absent
    /// where nothing is predicted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<f64>,
    /// How many tokens the model chooses from.
    #[serde(default)]
    pub vocabulary: usize,
    /// The most likely next tokens with their probabilities.
    pub next: Vec<(String, f64)>,
}

/// A positive prompt after which the model gives a wrong answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailingPrompt {
    /// Its pair, counted from 1.
    pub pair: usize,
    /// Its text.
    pub text: String,
    /// The most likely next tokens with their probabilities.
    pub next: Vec<(String, f64)>,
    /// The right answers, and their probability together.
    pub right: (Vec<String>, f64),
}

/// Next tokens that are shown.
const TOP: usize = 3;
/// Positions of the first prompt that are unembedded.
const READ: usize = 64;

impl PromptBehaviour {
    /// Reads the model's predictions: on all pairs of `causal`, which were made from `prompts`, and on the
    /// first prompt of each class.
    ///
    /// # Errors
    /// Prompts that do not fit the model; a device that fails; a request to stop.
    pub fn measure<B: Backend>(
        loaded: &Loaded<B>,
        prepared: &PreparedPrompts,
        causal: Option<&CausalEvidence<B>>,
        device: &B::Device,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let tokenizer = loaded.tokenizer()?;
        let prompts = prepared.prompts();
        let first = |class: Polarity| {
            let at = prompts.labels.iter().position(|label| *label == class);
            let at = at.ok_or(circuitscope_eval::Error::EmptyClass { polarity: class })?;
            seen(loaded, &prompts.texts[at], &prepared.tokens()[at], device)
        };
        let (positive, negative) = (first(Polarity::Positive)?, first(Polarity::Negative)?);
        let measured = match causal {
            None => None,
            Some(causal) => {
                let meant = with_space(tokenizer, prompts);
                Some(Behaviour::measure(causal, &meant, seed, progress)?)
            }
        };
        let failing = match (&measured, causal) {
            (Some(behaviour), Some(causal)) => failing(tokenizer, prompts, behaviour, causal),
            _ => Vec::new(),
        };
        Ok(Self {
            positive,
            negative,
            measured,
            failing,
        })
    }

    /// Everything in sentences without full stops; those that warn begin with `warning:`.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if let Some(behaviour) = &self.measured {
            sentences.extend(behaviour.sentences());
        }
        sentences.push(format!("first prompt: {}", self.positive.line()));
        if self
            .measured
            .as_ref()
            .is_none_or(|measured| measured.metric.is_none())
        {
            sentences.push(format!("first negative prompt: {}", self.negative.line()));
        }
        // A model that answers reads its tokens well enough: small ones may know nothing else.
        let answered = self
            .measured
            .as_ref()
            .and_then(|measured| measured.answered);
        if answered.is_none_or(|answered| answered.share < Behaviour::ANSWERED) {
            sentences.extend(self.positive.strange());
        }
        match &self.measured {
            Some(behaviour) => {
                let warnings = behaviour.warnings.iter();
                sentences.extend(warnings.map(|warning| format!("warning: {warning}")));
            }
            None => sentences.push(
                "prompts are not in pairs: what the model answers cannot be compared, and no circuit can \
                 be run"
                    .to_owned(),
            ),
        }
        sentences
    }
}

impl SeenPrompt {
    /// Tokens one by one, then what the model expects next.
    pub fn line(&self) -> String {
        let tokens: Vec<String> = self.tokens.iter().map(|token| quoted(token)).collect();
        format!("{} → {}", tokens.join(" "), likely(&self.next))
    }

    /// A warning where the model finds the prompt less likely than words drawn at random.
    fn strange(&self) -> Option<String> {
        let (loss, uniform) = (self.loss?, (self.vocabulary as f64).ln());
        (self.vocabulary > 0 && loss > uniform + 1.0).then(|| {
            format!(
                "warning: the first prompt costs the model {loss:.1} nats a token, where a guess among all tokens \
                 costs {uniform:.1}: is this the tokenizer that it was trained with?"
            )
        })
    }
}

impl FailingPrompt {
    /// The prompt, what the model expects, and what would be right.
    pub fn line(&self) -> String {
        let right: Vec<String> = self.right.0.iter().map(|token| quoted(token)).collect();
        format!(
            "pair {}: {:?} → {}; right: {} {}",
            self.pair,
            self.text,
            likely(&self.next),
            right.join(" "),
            percent(self.right.1)
        )
    }
}

/// A token between ticks, what cannot be seen escaped.
pub(crate) fn quoted(token: &str) -> String {
    // Quotes can be seen.
    let shown = token.escape_debug().to_string();
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

fn likely(next: &[(String, f64)]) -> String {
    let next = next
        .iter()
        .map(|(token, p)| format!("{} {}", quoted(token), percent(*p)));
    next.collect::<Vec<_>>().join(", ")
}

fn percent(p: f64) -> String {
    if p < 0.0005 {
        format!("{p:.0e}")
    } else {
        format!("{:.1} %", 100.0 * p)
    }
}

/// The text of a token: what it decodes to, or its name where that is nothing.
pub(crate) fn text(tokenizer: &Tokenizer, token: u32) -> String {
    match tokenizer.decode(&[token]) {
        Ok(text) if !text.is_empty() => text,
        _ => tokenizer.token(token).unwrap_or_default(),
    }
}

fn seen<B: Backend>(
    loaded: &Loaded<B>,
    prompt: &str,
    tokens: &[u32],
    device: &B::Device,
) -> Result<SeenPrompt> {
    let tokenizer = loaded.tokenizer()?;
    loaded.model.config().check_tokens(&[tokens])?;
    let batch = TokenBatch::new(&[tokens], PaddingSide::Right, device)?;
    let last = Site::ResidPost(loaded.model.config().n_layers - 1);
    let mut capture = Capture::new([last]);
    loaded.model.forward(&batch, &mut capture);
    let stream = capture.take(last).and_then(|stream| stream.get::<3>());
    let stream = stream.unwrap_or_else(|| unreachable!("the pass ends at the last stream"));
    let first = tokens.len().saturating_sub(READ);
    let logits = loaded
        .model
        .unembed(stream.slice_dim(1, first..tokens.len()));
    let logs = log_softmax(wide(logits), 2).into_data();
    let logs = logs.convert::<f32>().into_vec::<f32>();
    let logs = logs.map_err(|error| Error::Device {
        reason: format!("{error:?}"),
    })?;
    if logs.iter().any(|log| log.is_nan()) {
        check_finite(&loaded.model, &[tokens], device)?;
    }
    let vocabulary = loaded.model.config().d_vocab_out;
    let mut rows = logs.chunks(vocabulary);
    let last = rows.next_back().unwrap_or_default();
    let costs = rows.zip(&tokens[first + 1..]);
    // A model may read tokens that it cannot put out: then there is no loss.
    let costs = costs.map(|(row, &token)| Some(-f64::from(*row.get(token as usize)?)));
    let costs = costs.collect::<Option<Vec<f64>>>();
    let costs = costs.filter(|costs| !costs.is_empty());
    let mut order: Vec<u32> = (0..last.len() as u32).collect();
    order.sort_by(|&a, &b| last[b as usize].total_cmp(&last[a as usize]));
    let next = order.into_iter().take(TOP);
    Ok(SeenPrompt {
        text: prompt.to_owned(),
        tokens: tokens.iter().map(|&token| text(tokenizer, token)).collect(),
        next: next
            .map(|token| {
                (
                    text(tokenizer, token),
                    f64::from(last[token as usize]).exp(),
                )
            })
            .collect(),
        loss: costs.map(|costs| costs.iter().sum::<f64>() / costs.len() as f64),
        vocabulary,
    })
}

fn failing<B: Backend>(
    tokenizer: &Tokenizer,
    prompts: &LabelledPrompts,
    behaviour: &Behaviour,
    causal: &CausalEvidence<B>,
) -> Vec<FailingPrompt> {
    let of = |pair: usize| {
        let (found, tokens) = (&behaviour.of_pairs[pair], &causal.pairs()[pair]);
        let next = found.top.iter();
        FailingPrompt {
            pair: pair + 1,
            text: prompts.texts[tokens.rows.0].clone(),
            next: next
                .map(|&(token, p)| (text(tokenizer, token), p))
                .collect(),
            right: (
                tokens
                    .right
                    .iter()
                    .map(|&token| text(tokenizer, token))
                    .collect(),
                found.probability.unwrap_or_default(),
            ),
        }
    };
    behaviour.failing().into_iter().map(of).collect()
}

/// For each pair, the first tokens of its right answers with a space before them, where they have none and
/// that makes another token.
fn with_space(tokenizer: &Tokenizer, prompts: &LabelledPrompts) -> Vec<Vec<u32>> {
    // Not every vocabulary has such words.
    let first = |word: &str| tokenizer.encode(word, false).ok()?.first().copied();
    let meant = prompts.answers.iter().map(|answers| {
        let mut meant = Vec::new();
        for answer in &answers.right {
            let (word, token) = match answer {
                AnswerToken::Word(word) => (word.clone(), first(word)),
                AnswerToken::Id(id) => (text(tokenizer, *id), Some(*id)),
            };
            // As vocabularies write a space.
            let stored = token.and_then(|token| tokenizer.token(token));
            let spaced =
                |word: &str| word.starts_with(['Ġ', '▁']) || word.starts_with(char::is_whitespace);
            if spaced(&word) || stored.is_some_and(|stored| spaced(&stored)) {
                continue;
            }
            let other = first(&format!(" {word}"));
            meant.extend(other.filter(|_| other != token));
        }
        meant
    });
    meant.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_costs_more_than_guessing_is_strange() {
        let seen = |loss, vocabulary| SeenPrompt {
            text: String::new(),
            tokens: Vec::new(),
            loss,
            vocabulary,
            next: Vec::new(),
        };
        for (loss, vocabulary) in [(Some(4.0), 50), (Some(4.5), 50), (None, 50), (Some(9.0), 0)] {
            assert_eq!(seen(loss, vocabulary).strange(), None);
        }
        let said = seen(Some(9.04), 50).strange().unwrap();
        assert!(
            said.contains("9.0 nats a token") && said.contains("3.9"),
            "{said}"
        );
    }
}
