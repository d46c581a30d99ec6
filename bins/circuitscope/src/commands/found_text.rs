//! What `discover` found, printed as text.

use std::time::Instant;

use circuitscope::eval::Verdict;
use circuitscope::found::{Found, Stage};
use circuitscope::measures::cards::{HeadCard, quoted};
use circuitscope::{HeadId, TRAINING, human_bytes};

use crate::output::{count, indented, table};
use crate::progress::Terminal;

/// What was found, as text.
pub(super) trait FoundText {
    /// What the model makes of the prompts, before any score.
    fn behaviour_text(&self) -> String;
    /// The best heads.
    fn ranking_text(&self, top: usize) -> String;
    /// The circuit and why it is chosen.
    fn circuit_text(&self) -> String;
    /// What heads of the circuit do, and all that is known of those asked about.
    fn cards_text(&self, explain: &[HeadId]) -> String;
    /// Where time went.
    fn stages_text(&self) -> String;
}

/// Seconds of each stage of the work, in order.
pub(super) struct Stages(pub(super) Vec<Stage>);

impl Stages {
    /// Ends a stage that began at `start`.
    pub(super) fn add(&mut self, name: &'static str, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        self.0.push(Stage { name, seconds });
    }

    /// The method's time, with training told apart where there was one.
    pub(super) fn split(&mut self, start: Instant, progress: &Terminal) {
        let all = start.elapsed().as_secs_f64();
        let training = progress.seconds(TRAINING);
        if let Some(seconds) = training {
            self.0.push(Stage {
                name: "train",
                seconds,
            });
        }
        self.0.push(Stage {
            name: if training.is_some() {
                "encode and score"
            } else {
                "score"
            },
            seconds: all - training.unwrap_or(0.0),
        });
    }
}

impl FoundText for Found {
    fn behaviour_text(&self) -> String {
        let Some(behaviour) = &self.behaviour else {
            return String::new();
        };
        let mut text = format!("what the model makes of {}:\n", self.examples);
        text.push_str(&indented(&self.behaviour_sentences()));
        let shown = behaviour.failing.iter().take(FAILING);
        let mut lines: Vec<String> = shown.map(|prompt| format!("  {}", prompt.line())).collect();
        let rest = behaviour.failing.len().saturating_sub(FAILING);
        if rest > 0 {
            lines.push(format!(
                "  and {rest} more (all of them in the JSON and on the page)"
            ));
        }
        if !lines.is_empty() {
            text.push_str("  wrong answers after ");
            text.push_str(&count(behaviour.failing.len(), "prompt"));
            text.push_str(":\n");
            text.push_str(&indented(&lines));
        }
        text
    }

    fn ranking_text(&self, top: usize) -> String {
        let signs = self.heads.iter().any(|head| head.signed.is_some());
        let figure = |score: f64| format!("{}", (score * 1e4).round() / 1e4);
        let rows: Vec<Vec<String>> = self
            .heads
            .iter()
            .take(top)
            .enumerate()
            .map(|(rank, head)| {
                let mut row = vec![(rank + 1).to_string(), head.head.to_string()];
                row.push(figure(head.score));
                if signs {
                    row.push(head.signed.map_or_else(|| "–".to_owned(), figure));
                }
                let shares = [head.differs, head.used].into_iter().flatten();
                row.extend(shares.map(|share| format!("{:.1} %", 100.0 * share)));
                row.extend(head.norm.map(|norm| format!("{norm:.2}")));
                row
            })
            .collect();
        let mut header = vec!["rank", "head", "score"];
        if signs {
            header.push("with sign");
        }
        if self.heads.iter().any(|head| head.differs.is_some()) {
            header.extend(["differs", "used"]);
        }
        if self.heads.iter().any(|head| head.norm.is_some()) {
            header.push("norm");
        }
        let mut text = format!(
            "\n{} against {}, {} layers of {}, method {}\n\n{}",
            count(self.positives, "positive example"),
            count(self.negatives, "negative one"),
            self.n_layers,
            count(self.n_heads, "head"),
            self.method,
            table(&header, &rows),
        );
        if let Some(total) = self.divergence.filter(|total| *total > 0.0) {
            let said = format!(
                "differs: what a head does differently on the two prompts carries so much of the {} nats \
                 that the predictions are apart;\nused: the same of what it does beyond its mean over all \
                 prompts; what one head carries another may carry on, so that shares need not add up to 100 \
                 %;\nscore: the root of the sum of their squares, in nats\n",
                figure(total)
            );
            text.push_str(&said);
        }
        let constant = self.dictionary.as_ref().map(|report| report.constant_heads);
        if let Some(constant) = constant.filter(|constant| *constant > 0) {
            let all = self.grid().len();
            let said = format!(
                "{constant} of {all} heads have one and the same code on every prompt and so cannot score\n"
            );
            text.push_str(&said);
        }
        text
    }

    fn circuit_text(&self) -> String {
        let heads: Vec<String> = self.circuit().iter().map(ToString::to_string).collect();
        let names = match self.chosen.as_ref().map(|chosen| chosen.verdict) {
            Some(Verdict::Chosen) => heads.join(" "),
            _ => "no circuit shown".to_owned(),
        };
        let what = if self.is_untold() {
            "heads above the others, which so few prompts cannot tell from chance"
        } else {
            "circuit"
        };
        format!(
            "\n{what} ({}): {names}\n{}",
            count(heads.len(), "head"),
            indented(&self.circuit_sentences())
        )
    }

    fn cards_text(&self, explain: &[HeadId]) -> String {
        let Some(cards) = &self.cards else {
            return String::new();
        };
        let circuit = self.circuit();
        let members = cards.heads.iter();
        let members: Vec<&HeadCard> = members
            .filter(|card| circuit.contains(&card.head))
            .collect();
        let mut text = String::new();
        if !members.is_empty() {
            let rest = match members.len().saturating_sub(READ) {
                0 => String::new(),
                rest => format!(
                    "{} more in the JSON and on the page;\n",
                    count(rest, "head")
                ),
            };
            let rows = members.iter().take(READ).map(|card| {
                let raised = card.writes.promotes.iter().take(3);
                let raised: Vec<String> = raised.map(|token| quoted(token)).collect();
                vec![
                    card.head.to_string(),
                    card.effect_words(),
                    format!(
                        "{}{}",
                        card.patched_words(),
                        if card.signs_disagree() { " !" } else { "" }
                    ),
                    card.role_words(),
                    raised.join(" "),
                ]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            text = format!(
                "\nwhat its heads do, on {}\n\n{}{rest}{}\n",
                count(cards.pairs, "pair"),
                table(
                    &[
                        "head",
                        "effect by gradient",
                        "patched alone",
                        "attends",
                        "raises"
                    ],
                    &rows
                ),
                CARDS.join(";\n")
            );
        }
        let explained = cards.heads.iter();
        for card in explained.filter(|card| explain.contains(&card.head)) {
            text.push('\n');
            let lines = card.lines(cards, EXPLAINED);
            text.push_str(&indented(&lines));
        }
        text
    }

    fn stages_text(&self) -> String {
        let stages: Vec<String> = self
            .stages
            .iter()
            .map(|stage| format!("{} {:.2} s", stage.name, stage.seconds))
            .collect();
        let memory = self.provenance.peak_memory_bytes;
        let memory = memory.map_or_else(String::new, |bytes| {
            format!("; peak memory {}", human_bytes(bytes))
        });
        format!("time: {}{memory}\n", stages.join(", "))
    }
}

/// Heads of which it is printed what they do.
const READ: usize = 20;

/// Patterns, links and codes that --explain prints of a head.
const EXPLAINED: usize = 6;

/// What the columns of the table of cards mean.
pub(super) const CARDS: [&str; 4] = [
    "effect by gradient: what the head moves the prediction by, a share of what the predictions after the two prompts are apart, with a \
     95 % interval over pairs; against what it puts out on the negative prompt (differs) or its mean (used); with its sign, so that pairs of different \
     sign cancel, where differs and used of the ranking are means of sizes",
    "patched alone: the exact effect of this head, on some of the pairs; where it has the other sign (!), it is the one that counts",
    "attends: where its effect arises, and the pattern that is more than chance there and, times the effect, more than in heads \
     without one; in brackets the share of what it does that reads there, and what chance gives",
    "raises: the tokens that it raises most above its mean over both prompts; --explain HEAD prints all that is known of a head",
];

/// Wrong answers that are printed.
const FAILING: usize = 5;
