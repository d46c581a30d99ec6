use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Baseline, CircuitFigures};

/// Where ablating all heads takes less than this share of the metric, shares of what it takes say little.
const LITTLE: f64 = 0.2;

/// What each circuit keeps in each run. A circuit that keeps as much in the other run as that run's own does the same work
/// there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KeptTable {
    /// A's circuit in A's model on A's prompts.
    pub a_in_a: Option<KeptIn>,
    /// A's circuit in B's model on B's prompts.
    pub a_in_b: Option<KeptIn>,
    /// B's circuit in A's model on A's prompts.
    pub b_in_a: Option<KeptIn>,
    /// B's circuit in B's model on B's prompts.
    pub b_in_b: Option<KeptIn>,
}

/// What a circuit keeps in a run, as shares of what all heads together do
/// ([`Baseline`](crate::Baseline)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct KeptIn {
    /// With all other heads ablated.
    pub kept: f64,
    /// With its heads ablated and all others kept: what is left without it.
    pub without: f64,
    /// Random circuits of its size, on average; absent where none were run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub random: Option<f64>,
    /// Random circuits that keep at least as much.
    pub random_as_good: usize,
    /// Random circuits that were run.
    pub randoms: usize,
    /// Whether ablating all heads takes less than a fifth of the metric, or raises it: the shares say little then.
    pub weak: bool,
    /// Name of the metric.
    pub metric: String,
    /// Pairs of prompts run.
    pub pairs: usize,
}

impl KeptIn {
    /// Shares of figures; `None` where ablating all heads changes nothing, or a figure is not finite.
    ///
    /// ```
    /// use circuitscope_measures::CircuitFigures;
    /// use circuitscope_measures::compare::KeptIn;
    ///
    /// let kept = KeptIn::of(&CircuitFigures {
    ///     metric: "logit-difference".to_owned(),
    ///     pairs: 20,
    ///     full: 4.0,
    ///     empty: 0.0,
    ///     circuit: 3.0,
    ///     without: 1.0,
    ///     random: vec![0.0, 0.5],
    /// });
    /// let kept = kept.unwrap();
    /// assert_eq!((kept.kept, kept.without, kept.random), (0.75, 0.25, Some(0.0625)));
    /// assert!(!kept.weak);
    /// ```
    #[must_use]
    pub fn of(figures: &CircuitFigures) -> Option<Self> {
        let CircuitFigures { full, empty, .. } = *figures;
        let share = |value: f64| {
            let share = Baseline { full, empty }.share(value).ok();
            share.filter(|share| share.is_finite())
        };
        let kept = share(figures.circuit)?;
        let random = figures.random.iter().map(|value| share(*value));
        let random: Vec<f64> = random.collect::<Option<_>>()?;
        let count = random.len();
        Some(Self {
            kept,
            without: share(figures.without)?,
            random: (count > 0).then(|| random.iter().sum::<f64>() / count as f64),
            random_as_good: random.iter().filter(|share| **share >= kept).count(),
            randoms: count,
            weak: full - empty < LITTLE * full.abs(),
            metric: figures.metric.clone(),
            pairs: figures.pairs,
        })
    }

    /// Whether it keeps more than nine of ten random circuits of its size do; absent where none were run.
    #[must_use]
    pub const fn beats_random(&self) -> Option<bool> {
        if self.randoms == 0 {
            return None;
        }
        Some(self.random_as_good * 10 < self.randoms)
    }
}
