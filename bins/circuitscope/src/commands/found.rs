//! What `discover` found: kept as JSON, printed as text.

use std::time::Instant;

use circuitscope::eval::causal::Ablation;
use circuitscope::eval::methods::MethodSettings;
use circuitscope::eval::{Chosen, CircuitQuality, CircuitTests, KeptBySize, Verdict};
use circuitscope::measures::cards::{Cards, HeadCard, quoted};
use circuitscope::measures::{DictionaryReport, GraphScores, Scores};
use circuitscope::model::ModelProvenance;
use circuitscope::{
    Discovery, KnownAs, KnownCircuits, MetricChoice, PromptBehaviour, PromptStart, TRAINING,
};
use circuitscope::{HeadGrid, HeadId, Seed};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::bos;
use super::dictionary::Origin;
use crate::output::{count, indented, table};
use crate::progress::Terminal;
use crate::provenance::{Provenance, human_bytes};

/// The form of `discovery.json`.
pub(super) const DISCOVERY_SCHEMA: u32 = 1;

/// What is printed, and kept as `discovery.json`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "discovery.json")]
pub(crate) struct Found {
    /// The form of this file, changed whenever a reader of an earlier one would go wrong.
    pub(crate) schema: u32,
    /// The task, or the files that show the behaviour.
    pub(crate) examples: String,
    /// What the task is, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<String>,
    /// What limits what can be found with these prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) prompt_warnings: Vec<String>,
    /// How well the model shows the behaviour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) behaviour: Option<PromptBehaviour>,
    /// Pairs that `--only-correct` kept, and of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) only_correct: Option<OnlyCorrect>,
    /// What is read from the output, and why that, where the model is run on pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) metric: Option<MetricChoice>,
    /// What takes the place of ablated heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) ablation: Option<Ablation>,
    pub(crate) method: String,
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) positives: usize,
    pub(crate) negatives: usize,
    /// From the highest score to the lowest.
    pub(crate) heads: Vec<RankedHead>,
    /// Their scores, layer by layer.
    #[serde(skip)]
    pub(crate) nodes: Vec<f64>,
    /// How far the predictions after the two prompts of a pair are apart, in nats (Jeffreys divergence, mean
    /// over pairs): what `differs` and `used` of heads are shares of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) divergence: Option<f64>,
    /// The circuit, and what its choice rests on; absent where the work stopped before.
    #[serde(flatten)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) chosen: Option<Chosen>,
    /// Heads of the known circuit that were found and not found, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<Known>,
    /// Signed scores of the whole graph, MLPs and ports included, where the method has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) graph: Option<GraphScores>,
    /// What the circuit keeps, where it was run with the rest ablated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) quality: Option<CircuitQuality>,
    /// What the best heads keep, fewer and more than were chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept_by_size: Option<KeptBySize>,
    /// Tests of the circuit, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) tests: Option<CircuitTests>,
    /// What the heads of the circuit do, where the model is run on pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cards: Option<Cards>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Vec<f64>>>")]
    pub(crate) edges: Option<Pairs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paper_edge_head_counts: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) dictionary: Option<DictionaryReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) model: Option<ModelProvenance>,
    /// Whose known circuit the heads are set beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(crate) known_circuit: Option<KnownAs>,
    #[schemars(with = "serde_json::Value")]
    pub(crate) settings: Settings,
    /// Seconds of each stage, in order.
    pub(crate) stages: Vec<Stage>,
    #[schemars(with = "serde_json::Value")]
    pub(crate) provenance: Provenance,
}

/// What the result depends on, apart from the inputs.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prepend_bos: Option<PromptStart>,
    pub(crate) methods: MethodSettings,
    /// The dictionary that was there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dictionary: Option<Origin>,
    pub(crate) seed: Seed,
}

/// Pairs that the model gets right.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct OnlyCorrect {
    pub(crate) kept: usize,
    pub(crate) of: usize,
}

/// Scores of pairs of heads: as JSON `[heads][heads]`, writer by reader, heads layer by layer; 0 unless the writer is
/// in an earlier layer.
#[derive(Debug)]
pub(crate) struct Pairs {
    heads: usize,
    pub(crate) scores: Vec<f64>,
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.scores.chunks(self.heads))
    }
}

/// A head with its score.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RankedHead {
    #[schemars(with = "String")]
    pub(crate) head: HeadId,
    pub(crate) score: f64,
    /// The score with its sign, where the method has one: below 0 for a head that works against the
    /// behaviour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signed: Option<f64>,
    /// Share of the difference between predictions that it carries by what it does differently on the two
    /// prompts, where the method tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) differs: Option<f64>,
    /// The same by what it does beyond its mean, alike on both prompts or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<f64>,
    /// Mean length of what it puts out over all prompts, for methods that read it: heads that are loud on any prompt may
    /// lead for that alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) norm: Option<f64>,
    /// Whether it is in the circuit.
    pub(crate) selected: bool,
}

/// Chosen heads beside those of the known circuit.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Known {
    /// Which account of the circuit this is.
    pub(crate) variant: String,
    #[schemars(with = "Vec<String>")]
    pub(crate) heads: Vec<HeadId>,
    /// Chosen and known.
    pub(crate) found: usize,
    /// Chosen and not known.
    pub(crate) others: usize,
    /// How many of as many heads, drawn at random, are known on average.
    pub(crate) found_by_chance: f64,
}

/// A stage with its time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) seconds: f64,
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

impl Found {
    /// Puts in the scores of heads; the rest of `scores` is put in by [`complete`](Self::complete).
    ///
    /// `norms` are those of what the method read, if that is heads' outputs.
    pub(crate) fn rank(&mut self, scores: &Scores, norms: Option<&[f64]>) {
        let signed = scores.graph.as_ref().map(GraphScores::signed_heads);
        let contrast = scores.contrast.as_ref();
        self.divergence = contrast.map(|contrast| contrast.total);
        let ranking = scores.ranking().into_iter();
        let ranked = ranking.map(|(head, score)| {
            let of = |values: &[f64]| values.get(scores.grid.index(head)?).copied();
            let share =
                |values: &[f64], total: f64| Some(of(values)? / total).filter(|x| x.is_finite());
            RankedHead {
                head,
                score,
                signed: signed.as_deref().and_then(of),
                differs: contrast.and_then(|found| share(&found.differs, found.total)),
                used: contrast.and_then(|found| share(&found.used, found.total)),
                norm: norms.and_then(of),
                selected: false,
            }
        });
        self.heads = ranked.collect();
        self.nodes.clone_from(&scores.nodes);
        self.dictionary.clone_from(&scores.dictionary);
    }

    /// Puts in everything that was found.
    pub(crate) fn complete(&mut self, discovery: Discovery, known: Option<&KnownCircuits>) {
        let Discovery { scores, chosen, .. } = discovery;
        let norms = self.norms();
        self.rank(&scores, norms.as_deref());
        let members: Vec<HeadId> = chosen.circuit.heads().collect();
        for ranked in &mut self.heads {
            ranked.selected = members.contains(&ranked.head);
        }
        let truth = known.and_then(|known| known.truths.first());
        self.known = truth.map(|truth| {
            let heads: Vec<HeadId> = truth.circuit.heads().collect();
            let found = members.iter().filter(|head| heads.contains(head)).count();
            Known {
                variant: truth.variant.clone(),
                found,
                others: members.len() - found,
                found_by_chance: (members.len() * heads.len()) as f64 / scores.grid.len() as f64,
                heads,
            }
        });
        self.chosen = Some(chosen);
        let heads = scores.grid.len();
        self.edges = scores.edges.map(|scores| Pairs { heads, scores });
        self.graph = scores.graph;
        self.paper_edge_head_counts = scores.paper_edge_head_counts;
    }

    /// Heads of the circuit, in the order of rank.
    pub(crate) fn circuit(&self) -> Vec<HeadId> {
        let selected = self.heads.iter().filter(|ranked| ranked.selected);
        selected.map(|ranked| ranked.head).collect()
    }

    pub(crate) const fn grid(&self) -> HeadGrid {
        HeadGrid::new(self.n_layers, self.n_heads)
    }

    /// What the model makes of the prompts, before any score.
    pub(crate) fn behaviour_text(&self) -> String {
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

    /// The same without single prompts.
    pub(crate) fn behaviour_sentences(&self) -> Vec<String> {
        let behaviour = self.behaviour.as_ref();
        let mut sentences = behaviour.map_or_else(Vec::new, PromptBehaviour::sentences);
        if let Some(OnlyCorrect { kept, of }) = self.only_correct {
            sentences.push(format!(
                "only the {kept} of {of} pairs that the model gets right are used (--only-correct)"
            ));
        }
        if let Some(metric) = &self.metric {
            sentences.push(format!("metric: {} ({})", metric.metric, metric.why));
        }
        sentences.extend(self.settings.prepend_bos.as_ref().map(bos::text));
        let warnings = self.prompt_warnings.iter();
        sentences.extend(warnings.map(|warning| format!("warning: {warning}")));
        sentences
    }

    /// The best heads.
    pub(crate) fn ranking_text(&self, top: usize) -> String {
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

    /// The circuit and why it is chosen.
    pub(crate) fn circuit_text(&self) -> String {
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

    pub(crate) fn circuit_sentences(&self) -> Vec<String> {
        let mut sentences = self
            .chosen
            .as_ref()
            .map_or_else(Vec::new, Chosen::sentences);
        let verdict = self.chosen.as_ref().map(|chosen| &chosen.verdict);
        if let Some(Verdict::TooMany(_)) = verdict {
            sentences.push("--select or --max-heads shows the best".to_owned());
        }
        sentences.extend(self.loudness());
        let against = self.heads.iter().filter(|ranked| ranked.selected);
        let against = against.filter(|ranked| ranked.signed.is_some_and(|signed| signed < 0.0));
        let against: Vec<String> = against.map(|ranked| ranked.head.to_string()).collect();
        if !against.is_empty() {
            // What is not a score of the metric says nothing of the metric.
            let what = if self.divergence.is_some() {
                "by the sign of their scores these move the prediction towards that after the negative prompt"
            } else {
                "by the sign of their scores these work against the behaviour"
            };
            sentences.push(format!("{what}: {}", against.join(", ")));
        }
        if let Some(known) = &self.known {
            sentences.push(format!(
                "{} of the {} heads of the known circuit ({}{}) are among them, and {}; of as many heads drawn at random \
                 {:.1} would be",
                known.found,
                known.heads.len(),
                self.known_circuit
                    .as_ref()
                    .map_or_else(String::new, |of| format!("{}: ", of.model)),
                known.variant,
                match known.others {
                    1 => "1 other".to_owned(),
                    others => format!("{others} others"),
                },
                known.found_by_chance
            ));
        }
        sentences
    }

    pub(crate) fn quality_sentences(&self) -> Vec<String> {
        let Some(quality) = &self.quality else {
            return Vec::new();
        };
        let mut sentences = quality.sentences();
        let sizes = self.kept_by_size.as_ref();
        sentences.extend(sizes.and_then(|sizes| sizes.better(quality)));
        sentences.extend(quality.members());
        sentences
    }

    /// What heads of the circuit do.
    pub(crate) fn cards_text(&self, explain: &[HeadId]) -> String {
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

    /// Where time went.
    pub(crate) fn stages_text(&self) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema in the docs is that of what is written. `UPDATE_SNAPSHOTS=1` writes it anew.
    #[test]
    fn the_schema_in_the_docs_is_this() {
        let schema = schemars::schema_for!(Found);
        let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/schemas/discovery.schema.json"
        );
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs_err::write(path, &schema).unwrap();
        }
        let kept = fs_err::read_to_string(path).unwrap_or_default();
        assert!(
            kept == schema,
            "{path} is another schema than that of discovery.json"
        );
    }
}
