use core::fmt;
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use circuitscope_core::Metric;

use crate::LabelledPrompts;
use crate::data::DataFile;
use crate::generator::MakeGenerator;
use crate::templates::Templates;

/// λ of the dictionary's sparsity penalty, where a task asks for no other (O'Neill and Bui 2024, arXiv
/// 2405.12522).
const L1: f64 = 0.02;

/// A behaviour whose circuit is looked for: everything that is known of it, in one place.
///
/// The tasks of this crate are the entries of [`TASKS`](crate::TASKS); [`read_task`](crate::read_task)
/// makes one of a folder; [`TaskSpec::new`] makes one of a generator that is written elsewhere.
///
/// # Examples
/// ```
/// use circuitscope_core::Metric;
/// use circuitscope_tasks::{DOCSTRING, GREATER_THAN, task};
///
/// # fn main() -> Result<(), circuitscope_tasks::Error> {
/// assert_eq!(task("greater-than")?.name, GREATER_THAN.name);
/// assert_eq!(GREATER_THAN.metric, Some(Metric::ProbabilityDifference));
/// assert_eq!(DOCSTRING.l1_coefficient, 0.05);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskSpec {
    /// Its name in files and on the command line.
    pub name: Cow<'static, str>,
    /// What the behaviour is, in one sentence without a full stop.
    pub summary: Cow<'static, str>,
    /// What it needs of a tokenizer, as the end of a sentence that begins with "needs".
    pub needs: Cow<'static, str>,
    /// What causal methods read from the output. Without one the answers of the prompts decide.
    pub metric: Option<Metric>,
    /// λ of the dictionary's ℓ1 term. Default 0.02.
    pub l1_coefficient: f64,
    /// How many pairs are drawn where no other number is asked for. Default: as many as a command draws of
    /// any task.
    pub examples: Option<usize>,
    /// Circuits that its folder holds; the first that is of a model counts.
    pub circuits: Vec<OwnCircuit>,
    /// The files that it was read from, `task.toml` first; empty for a task of a program.
    pub files: Vec<PathBuf>,
    pub(crate) published: &'static [Published],
    pub(crate) prompts: Prompts,
}

/// A circuit that a task's folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCircuit {
    /// The file.
    pub file: PathBuf,
    /// Whose circuit it is: names of [`MODELS`](crate::MODELS), names on the Hugging Face hub
    /// (`owner/name`), or hashes of weights (`sha256:` and 64 hexadecimal digits).
    pub models: Vec<String>,
}

/// A file of circuits that this crate carries, and whose they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    /// One of [`MODELS`](crate::MODELS).
    pub(crate) model: &'static str,
    pub(crate) file: DataFile<'static>,
}

/// Where prompts come from.
#[derive(Debug, Clone)]
pub(crate) enum Prompts {
    Generator(MakeGenerator),
    Templates(Arc<Templates>),
    Pairs(Arc<LabelledPrompts>),
}

impl TaskSpec {
    /// A task whose prompts `make` draws: logit difference, λ = 0.02.
    ///
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_tasks::{Generator, PromptPair, TaskSpec, Vocabulary, draw};
    /// use rand::Rng;
    ///
    /// struct Twice;
    ///
    /// impl Generator for Twice {
    ///     fn pair(&self, index: usize, _: &mut dyn Rng) -> PromptPair {
    ///         let word = ["red", "blue"][index % 2];
    ///         let (twice, once) = (format!("{word} {word}"), format!("{word} green"));
    ///         PromptPair::new(twice, once, vec![format!(" {word}")], vec![" green".to_owned()])
    ///     }
    ///     fn notes(&self) -> Vec<String> {
    ///         Vec::new()
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), circuitscope_tasks::Error> {
    /// let task = TaskSpec::new("twice", "a word goes on as it did", "no words in particular", |_, _| {
    ///     Ok(Box::new(Twice))
    /// });
    /// let prompts = draw(&task, Vocabulary::Gpt2, 2, Seed::new(0), None)?;
    /// assert_eq!(prompts.texts, ["red red", "blue blue", "red green", "blue green"]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn new(
        name: &'static str,
        summary: &'static str,
        needs: &'static str,
        make: MakeGenerator,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            summary: Cow::Borrowed(summary),
            needs: Cow::Borrowed(needs),
            metric: Some(Metric::LogitDifference),
            l1_coefficient: L1,
            examples: None,
            circuits: Vec::new(),
            files: Vec::new(),
            published: &[],
            prompts: Prompts::Generator(make),
        }
    }

    /// With `metric`.
    #[must_use]
    pub const fn with_metric(mut self, metric: Metric) -> Self {
        self.metric = Some(metric);
        self
    }

    /// With the sparsity penalty weighted by `l1_coefficient`.
    #[must_use]
    pub const fn with_l1_coefficient(mut self, l1_coefficient: f64) -> Self {
        self.l1_coefficient = l1_coefficient;
        self
    }

    /// With circuits that this crate carries.
    #[must_use]
    pub(crate) const fn with_published(mut self, published: &'static [Published]) -> Self {
        self.published = published;
        self
    }

    /// A task that was read from files.
    pub(crate) fn of_files(name: String, summary: String, prompts: Prompts) -> Self {
        Self {
            name: Cow::Owned(name),
            summary: Cow::Owned(summary),
            needs: Cow::Borrowed("what its words need"),
            metric: None,
            l1_coefficient: L1,
            examples: None,
            circuits: Vec::new(),
            files: Vec::new(),
            published: &[],
            prompts,
        }
    }

    /// How many pairs it has; nothing where they are drawn without end.
    #[must_use]
    pub fn available(&self) -> Option<usize> {
        match &self.prompts {
            Prompts::Pairs(pairs) => Some(pairs.pairs.len()),
            Prompts::Generator(_) | Prompts::Templates(_) => None,
        }
    }

    /// How many pairs are drawn where no number is asked for and any task gives `usual`.
    #[must_use]
    pub fn examples_or(&self, usual: usize) -> usize {
        let wanted = self.examples.unwrap_or(usual);
        self.available().map_or(wanted, |most| wanted.min(most))
    }
}

impl fmt::Display for TaskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}
