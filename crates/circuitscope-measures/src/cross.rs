use core::fmt;

use circuitscope_score::stats::Interval;
use serde::{Deserialize, Serialize};

/// What circuits found on some tasks keep of the behaviour of each: rows are the tasks that are run, columns those whose circuit
/// is kept, all other heads ablated.
///
/// A circuit of its task keeps much on the diagonal and little beside it. Circuits that do as much on foreign tasks say
/// what every prompt needs, not what the behaviour needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CrossTask {
    /// What chose the circuits: a method, or `known circuit`.
    pub by: String,
    /// Names of the tasks.
    pub tasks: Vec<String>,
    /// Heads of each task's circuit.
    pub sizes: Vec<usize>,
    /// `[task that is run][task whose circuit is kept]`; absent where ablating all heads hardly lowers the metric.
    pub kept: Vec<Vec<Option<KeptShare>>>,
    /// What own circuits keep on average less what foreign ones do; absent where an entry is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specificity: Option<f64>,
}

/// The head share that a circuit keeps ([`Baseline`](crate::Baseline)).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KeptShare {
    /// Of all pairs that were run.
    pub share: f64,
    /// 95 %, from half samples of the pairs ([`Deviations`](circuitscope_score::stats::Deviations)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

/// To two digits; adding 0 takes the sign from what rounds to none.
fn two(value: f64) -> f64 {
    (100.0 * value).round() / 100.0 + 0.0
}

impl fmt::Display for KeptShare {
    /// `0.91 (0.85 to 0.97)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", two(self.share))?;
        match self.interval {
            None => Ok(()),
            Some(Interval { low, high, .. }) => {
                write!(f, " ({:.2} to {:.2})", two(low), two(high))
            }
        }
    }
}

impl CrossTask {
    /// Of what was kept, `[task that is run][task whose circuit is kept]`.
    ///
    /// ```
    /// use circuitscope_measures::{CrossTask, KeptShare};
    ///
    /// let kept = [[0.9, 0.1], [0.3, 0.7]].map(|row| row.map(|share| Some(KeptShare { share, interval: None })).to_vec());
    /// let tasks = ["ioi", "induction"].map(str::to_owned).to_vec();
    /// let cross = CrossTask::new("recommended", tasks, vec![8, 3], kept.to_vec());
    /// assert!((cross.specificity.unwrap() - 0.6).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn new(
        by: &str,
        tasks: Vec<String>,
        sizes: Vec<usize>,
        kept: Vec<Vec<Option<KeptShare>>>,
    ) -> Self {
        let mean = |own: bool| {
            let rows = kept.iter().enumerate();
            let cells = rows.flat_map(|(row, cells)| {
                let cells = cells.iter().enumerate();
                cells.filter(move |(column, _)| (row == *column) == own)
            });
            let shares: Option<Vec<f64>> = cells.map(|(_, cell)| Some((*cell)?.share)).collect();
            let shares = shares.filter(|shares| !shares.is_empty())?;
            Some(shares.iter().sum::<f64>() / shares.len() as f64)
        };
        Self {
            by: by.to_owned(),
            specificity: mean(true)
                .zip(mean(false))
                .map(|(own, foreign)| own - foreign),
            tasks,
            sizes,
            kept,
        }
    }

    /// What is kept of the `at`-th task, a cell for the circuit of each task.
    #[must_use]
    pub fn cells(&self, at: usize) -> Vec<String> {
        let kept = self.kept[at].iter();
        kept.map(|kept| kept.map_or_else(|| "–".to_owned(), |kept| kept.to_string()))
            .collect()
    }

    /// The specificity to two digits.
    #[must_use]
    pub fn specificity_text(&self) -> String {
        let specificity = self.specificity;
        specificity.map_or_else(|| "–".to_owned(), |value| format!("{:.2}", two(value)))
    }
}
