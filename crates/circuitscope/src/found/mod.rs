//! What `discover` finds: kept as `discovery.json`, shown on a page, written in the forms of other tools.

mod concluded;
mod examine;
mod exports;
mod gathered;
mod loud;
mod page;

use std::time::Instant;

use circuitscope_core::{HeadGrid, HeadId, Polarity, Seed};
use circuitscope_eval::causal::Ablation;
use circuitscope_eval::methods::MethodSettings;
use circuitscope_eval::{Chosen, CircuitQuality, CircuitTests, KeptBySize, Verdict};
use circuitscope_measures::cards::Cards;
use circuitscope_measures::{DictionaryReport, GraphScores, Scores};
use circuitscope_model::ModelProvenance;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

pub use examine::{ExamineSettings, Examined, Judging, examine};
pub use exports::{IMPORTANCES_FILE, PROMPTS_FILE, SCORES_FILE, Shape, VIEWER_FILE};
pub use gathered::Gathered;

use crate::{
    DictionaryOrigin, Discovery, KnownAs, KnownCircuits, MetricChoice, PromptBehaviour,
    PromptStart, Provenance,
};

/// The form of `discovery.json`.
pub const DISCOVERY_SCHEMA: u32 = 1;

/// What is printed, and kept as `discovery.json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "discovery.json")]
#[non_exhaustive]
pub struct Found {
    /// The form of this file, changed whenever a reader of an earlier one would go wrong.
    pub schema: u32,
    /// The task, or the files that show the behaviour.
    pub examples: String,
    /// What the task is, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// What limits what can be found with these prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompt_warnings: Vec<String>,
    /// How well the model shows the behaviour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub behaviour: Option<PromptBehaviour>,
    /// Pairs that the model gets right, and of how many, where only they are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_correct: Option<OnlyCorrect>,
    /// What is read from the output, and why that, where the model is run on pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub metric: Option<MetricChoice>,
    /// What takes the place of ablated heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ablation: Option<Ablation>,
    /// Name of the method.
    pub method: String,
    /// Layers of the model.
    pub n_layers: usize,
    /// Heads of each layer.
    pub n_heads: usize,
    /// Positive examples.
    pub positives: usize,
    /// Negative examples.
    pub negatives: usize,
    /// From the highest score to the lowest.
    pub heads: Vec<RankedHead>,
    /// Their scores, layer by layer.
    #[serde(skip)]
    pub nodes: Vec<f64>,
    /// How far the predictions after the two prompts of a pair are apart, in nats (Jeffreys divergence, mean
    /// over pairs): what `differs` and `used` of heads are shares of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// The circuit, and what its choice rests on; absent where the work stopped before.
    #[serde(flatten)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub chosen: Option<Chosen>,
    /// Heads of the known circuit that were found and not found, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
    /// Signed scores of the whole graph, MLPs and ports included, where the method has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub graph: Option<GraphScores>,
    /// What the circuit keeps, where it was run with the rest ablated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub quality: Option<CircuitQuality>,
    /// What the best heads keep, fewer and more than were chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_by_size: Option<KeptBySize>,
    /// Tests of the circuit, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub tests: Option<CircuitTests>,
    /// What the heads of the circuit do, where the model is run on pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cards: Option<Cards>,
    /// Scores of pairs of heads, where the method has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Vec<f64>>>")]
    pub edges: Option<Pairs>,
    /// The count by head that the authors' code calls an edge score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paper_edge_head_counts: Option<Vec<u32>>,
    /// What the dictionary did, where the method has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub dictionary: Option<DictionaryReport>,
    /// The model, where one was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub model: Option<ModelProvenance>,
    /// Whose known circuit the heads are set beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub known_circuit: Option<KnownAs>,
    /// What the result depends on, apart from the inputs.
    #[schemars(with = "serde_json::Value")]
    pub settings: Settings,
    /// Seconds of each stage, in order.
    pub stages: Vec<Stage>,
    /// What made it.
    #[schemars(with = "serde_json::Value")]
    pub provenance: Provenance,
}

/// What the result depends on, apart from the inputs.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    /// What stands before prompts.
    pub prepend_bos: Option<PromptStart>,
    /// Settings of the methods.
    pub methods: MethodSettings,
    /// The dictionary that was there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<DictionaryOrigin>,
    /// The seed of every random choice.
    pub seed: Seed,
}

/// Pairs that the model gets right.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct OnlyCorrect {
    /// Pairs that are used.
    pub kept: usize,
    /// Pairs that there were.
    pub of: usize,
}

/// Scores of pairs of heads: as JSON `[heads][heads]`, writer by reader, heads layer by layer; 0 unless the writer is
/// in an earlier layer.
#[derive(Debug, Clone)]
pub struct Pairs {
    heads: usize,
    /// `[heads * heads]`.
    pub scores: Vec<f64>,
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.scores.chunks(self.heads))
    }
}

/// A head with its score.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RankedHead {
    /// The head.
    #[schemars(with = "String")]
    pub head: HeadId,
    /// Its score.
    pub score: f64,
    /// The score with its sign, where the method has one: below 0 for a head that works against the
    /// behaviour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<f64>,
    /// Share of the difference between predictions that it carries by what it does differently on the two
    /// prompts, where the method tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<f64>,
    /// The same by what it does beyond its mean, alike on both prompts or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<f64>,
    /// Mean length of what it puts out over all prompts, for methods that read it: heads that are loud on any prompt may
    /// lead for that alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<f64>,
    /// Whether it is in the circuit.
    pub selected: bool,
}

/// Chosen heads beside those of the known circuit.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Known {
    /// Which account of the circuit this is.
    pub variant: String,
    /// Its heads.
    #[schemars(with = "Vec<String>")]
    pub heads: Vec<HeadId>,
    /// Chosen and known.
    pub found: usize,
    /// Chosen and not known.
    pub others: usize,
    /// How many of as many heads, drawn at random, are known on average.
    pub found_by_chance: f64,
}

/// A stage with its time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Wall time.
    pub seconds: f64,
}

impl Found {
    /// Before anything is known but the examples: positives and negatives by `labels`.
    #[must_use]
    pub fn new(
        examples: String,
        method: String,
        grid: HeadGrid,
        labels: &[Polarity],
        settings: Settings,
        provenance: Provenance,
    ) -> Self {
        let positives = labels.iter().filter(|label| label.label() == 1).count();
        Self {
            schema: DISCOVERY_SCHEMA,
            examples,
            summary: None,
            prompt_warnings: Vec::new(),
            behaviour: None,
            only_correct: None,
            metric: None,
            ablation: None,
            method,
            n_layers: grid.n_layers,
            n_heads: grid.n_heads,
            positives,
            negatives: labels.len() - positives,
            heads: Vec::new(),
            nodes: Vec::new(),
            divergence: None,
            chosen: None,
            known: None,
            quality: None,
            kept_by_size: None,
            tests: None,
            cards: None,
            graph: None,
            edges: None,
            paper_edge_head_counts: None,
            dictionary: None,
            model: None,
            known_circuit: None,
            settings,
            stages: Vec::new(),
            provenance,
        }
    }

    /// Ends a stage that began at `start`.
    pub fn stage(&mut self, name: &'static str, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        self.stages.push(Stage { name, seconds });
    }

    /// Puts in the scores of heads; the rest of `scores` is put in by [`complete`](Self::complete).
    ///
    /// `norms` are those of what the method read, if that is heads' outputs.
    pub fn rank(&mut self, scores: &Scores, norms: Option<&[f64]>) {
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
    pub fn complete(&mut self, discovery: Discovery, known: Option<&KnownCircuits>) {
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
    pub fn circuit(&self) -> Vec<HeadId> {
        let selected = self.heads.iter().filter(|ranked| ranked.selected);
        selected.map(|ranked| ranked.head).collect()
    }

    /// Shape of the model.
    pub const fn grid(&self) -> HeadGrid {
        HeadGrid::new(self.n_layers, self.n_heads)
    }

    /// What the model makes of the prompts, in sentences; those that warn begin with `warning:`.
    pub fn behaviour_sentences(&self) -> Vec<String> {
        let behaviour = self.behaviour.as_ref();
        let mut sentences = behaviour.map_or_else(Vec::new, PromptBehaviour::sentences);
        if let Some(OnlyCorrect { kept, of }) = self.only_correct {
            sentences.push(format!(
                "only the {kept} of {of} pairs that the model gets right are used"
            ));
        }
        if let Some(metric) = &self.metric {
            sentences.push(format!("metric: {} ({})", metric.metric, metric.why));
        }
        sentences.extend(
            self.settings
                .prepend_bos
                .as_ref()
                .map(PromptStart::sentence),
        );
        let warnings = self.prompt_warnings.iter();
        sentences.extend(warnings.map(|warning| format!("warning: {warning}")));
        sentences
    }

    /// The circuit and why it is chosen, in sentences; those that warn begin with `warning:`.
    pub fn circuit_sentences(&self) -> Vec<String> {
        let mut sentences = self
            .chosen
            .as_ref()
            .map_or_else(Vec::new, Chosen::sentences);
        let verdict = self.chosen.as_ref().map(|chosen| &chosen.verdict);
        if let Some(Verdict::TooMany(_)) = verdict {
            sentences.push("another rule, or a limit on their number, shows the best".to_owned());
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

    /// What the circuit keeps, in sentences; those that warn begin with `warning:`.
    pub fn quality_sentences(&self) -> Vec<String> {
        let Some(quality) = &self.quality else {
            return Vec::new();
        };
        let mut sentences = quality.sentences();
        let sizes = self.kept_by_size.as_ref();
        sentences.extend(sizes.and_then(|sizes| sizes.better(quality)));
        sentences.extend(quality.members());
        sentences
    }
}

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
