//! Prompts as a model reads them: tokens, answers, and how the prompts of a pair correspond.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::Metric;
use circuitscope_eval::causal::{Alignment, TokenPair};
use circuitscope_eval::{About, Unaligned};
use circuitscope_model::{Error as ModelError, Loaded, PrependBos};
use circuitscope_tasks::{AnswerToken, LabelledPrompts, PromptWarning, TaskSpec, prompt_warnings};
use derive_setters::Setters;

use crate::Result;
use crate::align::alignment;
use crate::answers::{ChangedAnswers, MetricChoice, metric_choice, more, read_answers};

/// How prompts are made ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct PrepareSettings {
    /// What is read from the model's output. Default: by the task ([`TaskSpec::metric`]); for
    /// prompts of one's own the logit difference, the log-probability where no pair has wrong answers, the contrast
    /// where answers are not known.
    pub metric: Option<Metric>,
    /// Whether the model's beginning-of-sequence token is put before each prompt; its position counts
    /// in means. Default: as the model's own tokenizer does, and yes for GPT-2 and TransformerLens
    /// models, as in the paper.
    pub prepend_bos: PrependBos,
}

/// Prompts as one model reads them, made by [`prepare`] alone: every stage after it starts from the same tokens, and
/// none has a text to read another way.
///
/// ```compile_fail,E0451
/// // Not by hand, and not of texts.
/// let prompts = circuitscope::PreparedPrompts { tokens: Vec::new() };
/// ```
#[derive(Debug, Clone)]
pub struct PreparedPrompts {
    prompts: LabelledPrompts,
    tokens: Arc<Vec<Vec<u32>>>,
    /// How many of them stand before each text.
    before: Vec<usize>,
    /// How the prompts of each pair correspond, or why that cannot be said.
    aligned: Vec<Result<Option<Alignment>, Unaligned>>,
    metric: MetricChoice,
    changed: Vec<ChangedAnswers>,
    notes: Vec<String>,
}

/// Makes prompts ready for a model: chooses the metric ([`metric_choice`]), makes answers tokens
/// ([`ChangedAnswers`]), tokenises every text once, and aligns the prompts of each pair: position by position, by the
/// spans that they name, or around the one span in which they differ.
///
/// Prompts of a pair that cannot be aligned are no error here, for means over positions can be compared all the same:
/// what runs the model on pairs refuses them ([`PreparedPrompts::pairs`]).
///
/// # Errors
/// If there is no tokenizer, or it fails; those of [`metric_choice`]; where the metric reads answers,
/// [`Error::Answers`](crate::Error::Answers), which names file, line and field, for a token beyond the vocabulary, an
/// empty answer, or answers that no token tells apart.
pub fn prepare<B: Backend>(
    loaded: &Loaded<B>,
    mut prompts: LabelledPrompts,
    task: Option<&TaskSpec>,
    settings: PrepareSettings,
) -> Result<PreparedPrompts> {
    let tokenizer = loaded.tokenizer()?;
    let metric = metric_choice(settings.metric, task, &prompts)?;
    let mut notes = prompts.notes.clone();
    let (changed, said) = read_answers(loaded, &mut prompts, metric.metric)?;
    notes.extend(said);

    let bos = if loaded.prepends_bos(settings.prepend_bos) {
        Some(tokenizer.bos().ok_or(ModelError::NoBos)?)
    } else {
        None
    };
    let (mut tokens, mut before) = (Vec::new(), Vec::new());
    for text in &prompts.texts {
        let own = tokenizer.encode(text, false)?;
        let bos = bos.filter(|bos| own.first() != Some(bos));
        before.push(usize::from(bos.is_some()));
        tokens.push(bos.into_iter().chain(own).collect::<Vec<u32>>());
    }
    for (&(positive, negative), appended) in prompts.pairs.iter().zip(&prompts.appended) {
        tokens[positive].extend(appended);
        tokens[negative].extend(appended);
    }
    let aligned = (0..prompts.pairs.len())
        .map(|pair| alignment(tokenizer, &prompts, pair, &tokens, &before))
        .collect::<Result<Vec<_>>>()?;
    notes.extend(unequal(&prompts, &tokens, &before, &aligned));
    Ok(PreparedPrompts {
        prompts,
        tokens: Arc::new(tokens),
        before,
        aligned,
        metric,
        changed,
        notes,
    })
}

impl PreparedPrompts {
    /// The prompts. Answers are numbers of tokens; where those of a pair begin alike, that beginning is
    /// in [`LabelledPrompts::appended`].
    pub const fn prompts(&self) -> &LabelledPrompts {
        &self.prompts
    }

    /// The tokens of each prompt, what stands before and after its text included.
    pub const fn tokens(&self) -> &Arc<Vec<Vec<u32>>> {
        &self.tokens
    }

    /// How many tokens stand before a text.
    pub(crate) fn before(&self, row: usize) -> usize {
        self.before[row]
    }

    /// What is read from the output, and why that.
    pub const fn metric(&self) -> &MetricChoice {
        &self.metric
    }

    /// Pairs whose answers are not simply one token each.
    pub fn changed(&self) -> &[ChangedAnswers] {
        &self.changed
    }

    /// What was assumed, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What limits what `method` can find with these prompts: [`prompt_warnings`], but for what is no limit there. Prompts of a task of
    /// this program are matched in their own way, but may be few; methods that run the model compare each prompt with its
    /// partner, whatever it shares with others.
    pub fn warnings(&self, task: Option<&TaskSpec>, method: &About) -> Vec<PromptWarning> {
        let mut warnings = prompt_warnings(&self.prompts);
        let ours = task.is_some_and(|task| task.files.is_empty());
        warnings.retain(|warning| match warning {
            PromptWarning::FewPairs { .. } => true,
            PromptWarning::SameSentences { .. } => !ours && !method.needs.model,
            _ => !ours,
        });
        warnings
    }

    /// That there are few pairs, where there are: what limits prompts that are matched otherwise.
    pub fn few_pairs(&self) -> Option<PromptWarning> {
        let warnings = prompt_warnings(&self.prompts).into_iter();
        let mut few = warnings.filter(|warning| matches!(warning, PromptWarning::FewPairs { .. }));
        few.next()
    }

    /// Pairs that tests of a circuit run it on, of which there may be `patch_pairs`.
    ///
    /// # Errors
    /// [`circuitscope_eval::Error::NoTests`] for a metric that no test can be made with.
    pub fn tested(&self, patch_pairs: usize) -> Result<usize> {
        match self.metric.metric {
            metric @ Metric::Kl => Err(circuitscope_eval::Error::NoTests { metric }.into()),
            _ => Ok(self.prompts.pairs.len().min(patch_pairs)),
        }
    }

    /// The pairs as what runs the model on them reads them, each with its alignment.
    ///
    /// # Errors
    /// [`circuitscope_eval::Error::Unaligned`] for the first pair whose tokens cannot be said to correspond.
    pub fn pairs(&self) -> Result<(Vec<TokenPair>, Vec<Option<Alignment>>)> {
        let aligned = self.aligned.iter().cloned();
        let aligned = aligned.collect::<Result<Vec<_>, Unaligned>>();
        let aligned = aligned.map_err(circuitscope_eval::Error::from)?;
        let ids = |answers: &[AnswerToken]| {
            let ids = answers.iter().filter_map(|answer| match answer {
                AnswerToken::Id(id) => Some(*id),
                AnswerToken::Word(_) => None,
            });
            ids.collect()
        };
        let pairs = self.prompts.pairs.iter().enumerate().map(|(at, &rows)| {
            let answers = self.prompts.answers.get(at).cloned().unwrap_or_default();
            TokenPair::new(
                rows,
                self.tokens[rows.0].clone(),
                self.tokens[rows.1].clone(),
            )
            .with_right(ids(&answers.right))
            .with_wrong(ids(&answers.wrong))
        });
        Ok((pairs.collect(), aligned))
    }

    /// Some pairs of matched prompts, in the order of `pairs`, and nothing else.
    ///
    /// # Panics
    /// If there is no such pair.
    #[must_use]
    pub fn only(&self, pairs: &[usize]) -> Self {
        let rows = pairs.iter().map(|&pair| self.prompts.pairs[pair]);
        let rows: Vec<usize> = rows.flat_map(|(p, n)| [p, n]).collect();
        let changed = self.changed.iter().filter_map(|changed| {
            let pair = pairs.iter().position(|pair| *pair == changed.pair)?;
            Some(ChangedAnswers {
                pair,
                ..changed.clone()
            })
        });
        Self {
            prompts: self.prompts.only_pairs(pairs),
            tokens: Arc::new(rows.iter().map(|&row| self.tokens[row].clone()).collect()),
            before: rows.iter().map(|&row| self.before[row]).collect(),
            aligned: of_pairs(&self.aligned, pairs),
            metric: self.metric.clone(),
            changed: changed.collect(),
            notes: self.notes.clone(),
        }
    }
}

/// What to say of pairs whose texts differ in length, or name spans.
fn unequal(
    prompts: &LabelledPrompts,
    tokens: &[Vec<u32>],
    before: &[usize],
    aligned: &[Result<Option<Alignment>, Unaligned>],
) -> Option<String> {
    let lengths = |&(positive, negative): &(usize, usize)| {
        [positive, negative].map(|row| tokens[row].len() - before[row])
    };
    let differs = |(_, rows): &(usize, &(usize, usize))| {
        let [positive, negative] = lengths(rows);
        positive != negative
    };
    let mut unequal = prompts.pairs.iter().enumerate().filter(differs);
    let (pair, rows) = unequal.next()?;
    let [positive, negative] = lengths(rows);
    let how = match &aligned[pair] {
        Ok(_)
            if prompts
                .spans
                .get(pair)
                .is_some_and(|spans| !spans.is_empty()) =>
        {
            "methods that run the model align them by their spans"
        }
        Ok(_) => "methods that run the model align them around the one span in which they differ",
        Err(_) => "methods that run the model cannot align them",
    };
    Some(format!(
        "{}: its prompts have {positive} and {negative} tokens{}: means over positions are compared; {how}",
        prompts.place(pair),
        more(unequal.count())
    ))
}

/// What there is for each pair, if anything, for some pairs.
fn of_pairs<T: Clone>(all: &[T], pairs: &[usize]) -> Vec<T> {
    pairs
        .iter()
        .filter_map(|&pair| all.get(pair).cloned())
        .collect()
}
