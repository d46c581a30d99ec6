use std::borrow::Cow;
use std::fmt;

use circuitscope_core::Metric;

use crate::{Choice, Error, Result};

/// What is known of a method before one is made: what help texts, tables and pages show of it, and what has to be
/// there for it.
///
/// ```
/// use circuitscope_eval::{About, Needs, Passes};
///
/// static LOUDEST: About = About::new("loudest", "largest entry of the head's output on positives")
///     .control()
///     .without_seed()
///     .resamples(50);
/// assert!(LOUDEST.control && !LOUDEST.uses_seed);
/// assert_eq!(LOUDEST.needs, Needs::default());
/// assert_eq!(LOUDEST.passes, Passes::None);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent answers to yes-or-no questions"
)]
pub struct About {
    /// The name used on the command line and in every file.
    pub name: Cow<'static, str>,
    /// What the score is, in a sentence without its end.
    pub summary: Cow<'static, str>,
    /// Whether it is there to be beaten: something trivial that any method should surpass.
    pub control: bool,
    /// Whether it takes seconds, so that an evaluation runs it unless told otherwise.
    pub quick: bool,
    /// Whether anything is drawn at random. What does not depend on the seed is measured once for all seeds.
    pub uses_seed: bool,
    /// How many half samples of the prompts an evaluation takes at most. Methods whose
    /// [`Measured::scores`](crate::Measured::scores) has to run the model again say 0.
    pub resamples: usize,
    /// The rule that suits its scores, where one is known to: taken unless another one is asked for.
    pub choice: Option<Choice>,
    /// Whether it can be scored under other labels of the same examples without starting anew
    /// ([`Measured::relabelled`](crate::Measured::relabelled)).
    pub relabels: bool,
    /// What has to be there.
    pub needs: Needs,
    /// What it costs beside the capture of activations.
    pub passes: Passes,
    /// The method that takes its place where no model runs prompts in pairs.
    pub without_model: Option<&'static Self>,
}

/// What a method needs of evidence and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent answers to yes-or-no questions"
)]
pub struct Needs {
    /// It runs the model on prompts in pairs: [`Evidence::with_causal`](crate::Evidence::with_causal).
    pub model: bool,
    /// How it differentiates the metric.
    pub gradient: Gradient,
    /// It reads what heads put out at the last position: [`Evidence::with_last`](crate::Evidence::with_last).
    pub last: bool,
    /// It compares the prompts of a pair.
    pub pairs: bool,
    /// It reads the answers, whatever the metric.
    pub answers: bool,
    /// It reads all activations once, but for a few examples, so that it loses little where they are not held
    /// ([`Evidence::streamed`](crate::Evidence::streamed)).
    pub reads_once: bool,
}

/// Where a method differentiates the metric that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Gradient {
    /// Nowhere.
    #[default]
    None,
    /// It differentiates a metric of its own, whatever was asked for.
    Own,
    /// At points other than the unchanged prompts.
    Elsewhere,
    /// At the unchanged prompts alone, where a metric that compares with them is flat.
    AtPrompts,
}

/// What a method costs in runs of the model, beside the capture of activations; a backward pass counts as two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Passes {
    /// No run.
    #[default]
    None,
    /// So many for each pair.
    EachPair(usize),
    /// So many for each pair and step, of which the settings say the number.
    EachStep(usize),
    /// So many for each pair, step and stage, of which a layer has two.
    EachStage(usize),
    /// So many for each step, on a few pairs.
    Steps(usize),
    /// About one for each pair and node.
    EachNode,
    /// About one for each pair and edge.
    EachEdge,
}

impl fmt::Display for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::EachPair(passes) => write!(f, "{passes} a pair"),
            Self::EachStep(passes) => write!(f, "{passes} a pair and step"),
            Self::EachStage(passes) => write!(f, "{passes} a pair, step and stage"),
            Self::Steps(passes) => write!(f, "{passes} a step"),
            Self::EachNode => f.write_str("1 a pair and node"),
            Self::EachEdge => f.write_str("1 a pair and edge"),
        }
    }
}

impl Needs {
    /// Prompts in pairs and the model.
    #[must_use]
    pub const fn model() -> Self {
        let mut needs = Self::activations();
        needs.model = true;
        needs.pairs = true;
        needs
    }

    /// The model, and the gradient of the metric.
    #[must_use]
    pub const fn gradient(gradient: Gradient) -> Self {
        let mut needs = Self::model();
        needs.gradient = gradient;
        needs
    }

    /// The model, and the answers.
    #[must_use]
    pub const fn answers() -> Self {
        let mut needs = Self::model();
        needs.answers = true;
        needs
    }

    /// Activations that are read once.
    #[must_use]
    pub const fn codes() -> Self {
        let mut needs = Self::activations();
        needs.reads_once = true;
        needs
    }

    /// The same, and outputs at the last position.
    #[must_use]
    pub const fn and_last(mut self) -> Self {
        self.last = true;
        self
    }

    /// The same, and prompts in pairs.
    #[must_use]
    pub const fn and_pairs(mut self) -> Self {
        self.pairs = true;
        self
    }

    /// Activations alone, read as often as it takes.
    #[must_use]
    pub const fn activations() -> Self {
        Self {
            model: false,
            gradient: Gradient::None,
            last: false,
            pairs: false,
            answers: false,
            reads_once: false,
        }
    }

    /// What has to be there, in a word or two each, most demanding first; empty where activations are enough.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let words = [
            (self.model, "model"),
            (self.gradient != Gradient::None, "gradients"),
            (self.pairs, "pairs"),
            (self.answers, "answers"),
            (self.last, "last position"),
        ];
        let needed = words.into_iter().filter(|(needed, _)| *needed);
        needed.map(|(_, word)| word).collect()
    }
}

impl About {
    /// Fails if the method differentiates `metric` where it has no gradient, or none but zero. Can be asked before
    /// anything runs.
    ///
    /// # Errors
    /// [`Error::NoGradient`], [`Error::FlatMetric`].
    ///
    /// ```
    /// use circuitscope_eval::causal::Metric;
    /// use circuitscope_eval::methods::about;
    ///
    /// assert!(about("eap")?.check_metric(Metric::Accuracy).is_err());
    /// assert!(about("activation-patching")?.check_metric(Metric::Accuracy).is_ok());
    /// assert!(about("eap")?.check_metric(Metric::Kl).is_err());
    /// assert!(about("eap-ig")?.check_metric(Metric::Kl).is_ok());
    /// assert!(about("eap")?.check_metric(Metric::Contrast).is_ok());
    /// # Ok::<(), circuitscope_eval::Error>(())
    /// ```
    pub fn check_metric(&self, metric: Metric) -> Result<()> {
        let method = self.name.clone().into_owned();
        match self.needs.gradient {
            Gradient::Elsewhere | Gradient::AtPrompts if !metric.has_gradient() => {
                Err(Error::NoGradient { method, metric })
            }
            Gradient::AtPrompts if metric.is_flat_at_prompts() => Err(Error::FlatMetric { method }),
            _ => Ok(()),
        }
    }

    /// The method itself, or what takes its place where no model runs prompts in pairs ([`Self::without_model`]).
    ///
    /// ```
    /// use circuitscope_eval::methods::about;
    /// let recommended = about("recommended")?;
    /// assert_eq!(recommended.suited(true).name, "recommended");
    /// assert_eq!(recommended.suited(false).name, "recommended-activations");
    /// assert_eq!(about("eap")?.suited(false).name, "eap");
    /// # Ok::<(), circuitscope_eval::Error>(())
    /// ```
    #[must_use]
    pub fn suited(&self, runs: bool) -> &Self {
        self.without_model.filter(|_| !runs).unwrap_or(self)
    }

    /// That this method takes the place of the one `asked` for, in a sentence; nothing where it is that one.
    #[must_use]
    pub fn stands_in(&self, asked: &Self) -> Option<String> {
        (self != asked).then(|| {
            format!(
                "method {} runs the model on pairs of prompts; without, {} takes its place",
                asked.name, self.name
            )
        })
    }

    /// A method that draws at random, reads activations alone, and scores resamples without starting anew.
    #[must_use]
    pub const fn new(name: &'static str, summary: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            summary: Cow::Borrowed(summary),
            control: false,
            quick: false,
            uses_seed: true,
            resamples: 100,
            choice: None,
            relabels: true,
            needs: Needs::activations(),
            passes: Passes::None,
            without_model: None,
        }
    }

    /// Under a name that is made while the program runs, such as a file's.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Cow::Owned(name.into());
        self
    }

    /// It is there to be beaten.
    #[must_use]
    pub const fn control(mut self) -> Self {
        self.control = true;
        self
    }

    /// It takes seconds.
    #[must_use]
    pub const fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    /// Nothing is drawn at random.
    #[must_use]
    pub const fn without_seed(mut self) -> Self {
        self.uses_seed = false;
        self
    }

    /// So many resamples at most.
    #[must_use]
    pub const fn resamples(mut self, resamples: usize) -> Self {
        self.resamples = resamples;
        self
    }

    /// It would start anew on other labels, or has no null of labels.
    #[must_use]
    pub const fn without_null(mut self) -> Self {
        self.relabels = false;
        self
    }

    /// This rule suits its scores.
    #[must_use]
    pub const fn choice(mut self, choice: Choice) -> Self {
        self.choice = Some(choice);
        self
    }

    /// It needs this, at this cost.
    #[must_use]
    pub const fn needs(mut self, needs: Needs, passes: Passes) -> Self {
        self.needs = needs;
        self.passes = passes;
        self
    }

    /// That method takes its place where no model runs prompts in pairs.
    #[must_use]
    pub const fn without_model(mut self, other: &'static Self) -> Self {
        self.without_model = Some(other);
        self
    }
}
