//! What may be concluded of a discovered circuit: the first screen of its page.

use circuitscope_eval::{Behaviour, CircuitQuality, Verdict as Choice};
use circuitscope_report::{Figure, Verdict};

use super::Found;
use crate::text::count;

/// A circuit keeps the behaviour from this share on.
const KEEPS: f64 = 0.8;
/// Nothing much is left without it below this one.
const LEFT: f64 = 0.2;
/// So many of ten random circuits that keep as much are too many.
const AS_GOOD: usize = 10;

impl Found {
    /// The numbers that matter most, what may be concluded from them, and what to beware of.
    pub fn verdict(&self) -> Verdict {
        let said = self.behaviour_sentences();
        let all = said.into_iter().chain(self.circuit_sentences());
        let all = all.chain(self.quality_sentences());
        let warnings = all.filter_map(|said| Some(said.strip_prefix(WARNING)?.to_owned()));
        let quality = self.quality.as_ref();
        let better = quality.and_then(|quality| self.kept_by_size.as_ref()?.better(quality));
        Verdict {
            figures: self.figures(),
            conclusion: self.conclusion(),
            // The rest is told further down.
            sentences: better.into_iter().collect(),
            warnings: warnings.collect(),
        }
    }

    fn behaviour_measured(&self) -> Option<&Behaviour> {
        self.behaviour.as_ref()?.measured.as_ref()
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let figure = |label: &str, value: String, note: String| Figure {
            label: label.to_owned(),
            value,
            note,
        };
        if let Some(answered) = self.behaviour_measured().and_then(|of| of.answered) {
            figures.push(figure(
                "the model answers right in",
                percent(answered.share),
                format!("{} of {} pairs", answered.count, answered.of),
            ));
        } else if let Some(behaviour) = self.behaviour_measured() {
            figures.push(figure(
                "the predictions are apart by",
                format!("{:.2} nats", behaviour.divergence.mean),
                "of the two prompts of a pair".to_owned(),
            ));
        }
        figures.push(figure(
            "the circuit has",
            count(self.circuit().len(), "head"),
            format!("of {}", self.grid().len()),
        ));
        let Some(quality) = &self.quality else {
            return figures;
        };
        let share = |value: f64| (value - quality.empty) / (quality.full - quality.empty);
        // Shares of next to nothing, or far from 0 to 1, say less than the metric.
        let readable = !quality.is_weak() && (-0.05..=1.5).contains(&share(quality.circuit));
        let shown = |value: f64| {
            if readable {
                percent(share(value))
            } else {
                format!("{value:.2}")
            }
        };
        let of = format!("{}, whole model {:.2}", quality.metric, quality.full);
        figures.push(figure("it keeps", shown(quality.circuit), of));
        figures.push(figure(
            "without it are left",
            shown(quality.without),
            format!("{:.2} with all heads ablated", quality.empty),
        ));
        if !quality.random.is_empty() {
            let mean = quality.random.iter().sum::<f64>() / quality.random.len() as f64;
            figures.push(figure(
                "random circuits of its size keep",
                shown(mean),
                format!(
                    "{} of {} keep as much as it",
                    quality.random_as_good(),
                    quality.random.len()
                ),
            ));
        }
        figures
    }

    /// What may be concluded, in one sentence.
    pub fn conclusion(&self) -> String {
        let circuit = self.circuit();
        let words = Words::of(circuit.len());
        let Words { these, s, .. } = &words;
        let unanswered = self.behaviour_measured().and_then(|of| of.answered);
        if unanswered.is_some_and(|answered| answered.share < Behaviour::ANSWERED) {
            return "The model does not show the behaviour on these prompts: whatever heads tell them apart, \
                    they do not implement it."
                .to_owned();
        }
        let verdict = self.chosen.as_ref().map(|chosen| chosen.verdict);
        if circuit.is_empty() || !matches!(verdict, Some(Choice::Chosen)) {
            return "No circuit is shown: no heads stand out from the others by this method on these prompts."
                .to_owned();
        }
        if self.is_untold() {
            return format!(
                "{these} stand{s} above the others, but so few prompts cannot tell that from chance: nothing may be concluded."
            );
        }
        let Some(quality) = &self.quality else {
            return format!(
                "{these} tell{s} the two classes of prompts apart; no circuit was run, so that nothing \
                 says that the behaviour needs them."
            );
        };
        let as_good = quality.random_as_good() * AS_GOOD >= quality.random.len().max(1);
        concluded(quality, &words, as_good)
    }
}

/// A circuit as the subject of a sentence.
struct Words {
    /// `These 3 heads`.
    these: String,
    /// What verbs end with.
    s: &'static str,
    are: &'static str,
    they: &'static str,
    them: &'static str,
}

impl Words {
    fn of(heads: usize) -> Self {
        let (these, [s, are, they, them]) = if heads == 1 {
            ("This head".to_owned(), ["s", "is", "it", "it"])
        } else {
            (
                format!("These {}", count(heads, "head")),
                ["", "are", "they", "them"],
            )
        };
        Self {
            these,
            s,
            are,
            they,
            them,
        }
    }
}

fn concluded(quality: &CircuitQuality, words: &Words, as_good: bool) -> String {
    let Words {
        these,
        s,
        are,
        they,
        them,
    } = words;
    let share = |value: f64| (value - quality.empty) / (quality.full - quality.empty);
    let (kept, left) = (share(quality.circuit), share(quality.without));
    if quality.is_weak() {
        return format!(
            "{these} matter{s} by a gradient, but ablating all heads hardly changes the {}: what {they} keep{s} \
             of it cannot be told; another metric or reference may tell more.",
            quality.metric
        );
    }
    if as_good {
        return format!(
            "{these} alone {are} not shown to implement the behaviour: circuits drawn at random keep as much."
        );
    }
    if kept >= KEEPS && left <= LEFT {
        return format!(
            "{these} {are} enough for the behaviour on these prompts, and it is gone without {them}: {they} \
             implement{s} it here."
        );
    }
    if kept >= KEEPS {
        return format!(
            "{these} {are} enough for the behaviour on these prompts, but without {them} {} of it are left: \
             other heads can do it, too.",
            percent(left)
        );
    }
    if left <= LEFT {
        return format!(
            "The behaviour is gone without {}, but alone {they} keep{s} {} of it: other heads are needed, \
             too.",
            these.replacen('T', "t", 1),
            percent(kept)
        );
    }
    format!(
        "{these} {are} a part of what implements the behaviour: alone {they} keep{s} {} of it, and without {them} {} \
         are left.",
        percent(kept),
        percent(left)
    )
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share + 0.0)
}

/// How sentences that warn begin.
const WARNING: &str = "warning: ";
