use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};
use circuitscope_measures::DictionaryReport;
use circuitscope_measures::Scores;
use circuitscope_sae::{
    Dictionary, EncodeConfig, History, INACTIVE, SaeConfig, SparseAutoencoder, TrainConfig,
    TrainJob, train_many,
};
use circuitscope_score::{CodeTable, node_scores, pair_scores};
use rand::seq::index;
use serde::{Deserialize, Serialize};

use super::coded::{Coded, place};
use crate::{About, Discover, Error, Evidence, Measured, Needs, Passes, Result};

/// What is known of `sae`.
pub(super) static PAPER: About = About::new(
    "sae",
    "codes seen on positives only, trained dictionary, conventions of the authors' code",
)
.quick()
.needs(Needs::codes(), Passes::None);
/// Of `sae-corrected`.
pub(super) static CORRECTED: About = About::new(
    "sae-corrected",
    "codes seen on positives only, trained dictionary, unit-norm atoms, inactive is a code",
)
.quick()
.needs(Needs::codes(), Passes::None);
/// Of `untrained`.
pub(super) static UNTRAINED: About = About::new(
    "untrained",
    "the same with the dictionary as initialised, never trained",
)
.control()
.quick()
.needs(Needs::codes(), Passes::None);

/// Settings of the dictionary, shared by every method that has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaeSettings {
    /// Number of features, default 200.
    pub n_codes: usize,
    /// λ of the ℓ1 term, default 0.02 (the authors use 0.05 for docstring).
    pub l1_coefficient: f64,
    /// Examples that the dictionary is trained on, drawn at random from both classes, default 10.
    pub train_examples: usize,
    /// Full-batch Adam steps, default 500.
    pub steps: usize,
}

impl Default for SaeSettings {
    fn default() -> Self {
        Self {
            n_codes: 200,
            l1_coefficient: 0.02,
            train_examples: 10,
            steps: 500,
        }
    }
}

/// Whether a dictionary is trained before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// Trained on a few examples.
    Trained,
    /// As initialised: the control that tells what training adds.
    Untrained,
}

/// Discrete codes of one small sparse autoencoder: the method of arXiv 2405.12522.
///
/// Train the autoencoder on the head outputs of a few examples, turn every head output into the
/// index of its strongest feature, and score each head by the number of codes that occur on
/// positive examples and never on negative ones; a pair of heads by the number of such code pairs.
///
/// - `sae` ([`Sae::paper`]) follows the authors' code: decoder rows of unit norm, and an example on
///   which no feature is active counts as code 0.
/// - `sae-corrected` ([`Sae::corrected`]) has dictionary atoms of unit norm and lets *no feature
///   active* be a code of its own.
/// - `untrained` ([`Sae::untrained`]) is `sae` with zero training steps: same initialisation, same
///   scoring.
///
/// # Complexity
/// Training `O(steps · train_examples · heads · d · n_codes)`, encoding
/// `O(examples · heads · d · n_codes)`, pairs `O(examples · heads²)`.
#[derive(Debug, Clone)]
pub struct Sae {
    about: &'static About,
    training: Training,
    dictionary: Dictionary,
    settings: SaeSettings,
}

impl Sae {
    /// The method as the authors' code has it.
    pub const fn paper(settings: SaeSettings) -> Self {
        Self {
            about: &PAPER,
            training: Training::Trained,
            dictionary: Dictionary::PaperCompatible,
            settings,
        }
    }

    /// The method with unit-norm atoms and a code for inactivity.
    pub const fn corrected(settings: SaeSettings) -> Self {
        Self {
            about: &CORRECTED,
            training: Training::Trained,
            dictionary: Dictionary::UnitNormAtoms,
            settings,
        }
    }

    /// The control without training.
    pub const fn untrained(settings: SaeSettings) -> Self {
        Self {
            about: &UNTRAINED,
            training: Training::Untrained,
            dictionary: Dictionary::PaperCompatible,
            settings,
        }
    }

    /// Makes one dictionary for each seed and encodes all evidence with it, once: the evidence keeps the
    /// results for whoever asks for the same dictionary and seed. Those to be trained are trained
    /// together ([`train_many`]).
    ///
    /// The training examples are drawn from stream `sae/examples` of each seed, the initial weights from
    /// `sae/weights`.
    ///
    /// # Errors
    /// [`Error::Shape`] if fewer examples exist than the dictionary is to be trained on.
    pub fn encode<B: Backend>(
        &self,
        evidence: &Evidence<B>,
        seeds: &[Seed],
        progress: &dyn Progress,
    ) -> Result<Vec<Arc<Encoded<B>>>> {
        let recipe = |&seed: &Seed| Recipe {
            settings: self.settings.clone(),
            dictionary: self.dictionary,
            training: self.training,
            seed,
        };
        let recipes: Vec<Recipe> = seeds.iter().map(recipe).collect();
        let make = |missing: &[Recipe]| self.make(evidence, missing, progress);
        evidence.made().all(&recipes, make)
    }

    /// Dictionaries with nothing different but their seeds.
    fn make<B: Backend>(
        &self,
        evidence: &Evidence<B>,
        recipes: &[Recipe],
        progress: &dyn Progress,
    ) -> Result<Vec<Encoded<B>>> {
        if recipes.is_empty() {
            return Ok(Vec::new());
        }
        let settings = &self.settings;
        let config = SaeConfig::new(evidence.d())
            .with_d_sae(settings.n_codes)
            .with_l1_coefficient(settings.l1_coefficient)
            .with_dictionary(self.dictionary);
        let weights = |recipe: &Recipe| recipe.seed.stream("sae/weights");
        if self.training == Training::Untrained {
            let untrained = |recipe| Ok((config.init(weights(recipe), &evidence.device())?, None));
            let dictionaries = recipes.iter().map(untrained).collect::<Result<_>>()?;
            return self.encoded(evidence, dictionaries, progress);
        }
        let examples = evidence.labels().len();
        if examples < settings.train_examples {
            return Err(Error::Shape {
                what: "examples to train the dictionary on (--train-examples)",
                found: examples,
                expected: settings.train_examples,
            });
        }
        let job = |recipe: &Recipe| {
            let mut rng = recipe.seed.stream("sae/examples").rng();
            let chosen = index::sample(&mut rng, examples, settings.train_examples).into_vec();
            Ok(TrainJob {
                config: config.clone(),
                x: evidence.rows(&chosen)?,
                seed: weights(recipe),
            })
        };
        let jobs = recipes.iter().map(job).collect::<Result<Vec<_>>>()?;
        let steps = TrainConfig::new().with_steps(settings.steps);
        let trained = train_many(&jobs, &steps, progress)?.into_iter();
        let dictionaries = trained.map(|trained| (trained.sae, Some(trained.history)));
        self.encoded(evidence, dictionaries.collect(), progress)
    }

    /// Encodes all evidence with each of the dictionaries, reading it once.
    fn encoded<B: Backend>(
        &self,
        evidence: &Evidence<B>,
        dictionaries: Vec<(SparseAutoencoder<B>, Option<History>)>,
        progress: &dyn Progress,
    ) -> Result<Vec<Encoded<B>>> {
        if dictionaries.is_empty() {
            return Ok(Vec::new());
        }
        let (heads, d) = (evidence.grid().len(), evidence.d());
        let entries = evidence.labels().len() * heads;
        let mut tables = vec![(vec![0; entries], vec![0.0; entries]); dictionaries.len()];
        let config = EncodeConfig::new().with_amplitudes();
        evidence.for_each_block(progress, |rows, x| {
            let x = x.reshape([rows.len() * heads, d]);
            for ((sae, _), (codes, amplitudes)) in dictionaries.iter().zip(&mut tables) {
                let found = sae.encode_codes(x.clone(), &config)?;
                place(codes, rows, &found.codes);
                place(amplitudes, rows, &found.amplitudes.unwrap_or_default());
            }
            Ok(())
        })?;
        let made = dictionaries.into_iter().zip(tables);
        made.map(|((sae, history), (codes, amplitudes))| {
            let table = CodeTable::new(evidence.grid(), evidence.labels().to_vec(), codes)?;
            let table = table.with_amplitudes(amplitudes)?;
            let table = match self.dictionary {
                Dictionary::PaperCompatible => table.paper_compatible(),
                Dictionary::UnitNormAtoms => table,
            };
            Ok(Encoded {
                sae,
                history,
                table,
            })
        })
        .collect()
    }
}

/// All that codes of given evidence depend on.
#[derive(Debug, Clone, PartialEq)]
struct Recipe {
    settings: SaeSettings,
    dictionary: Dictionary,
    training: Training,
    seed: Seed,
}

/// A dictionary and what it makes of the evidence.
#[derive(Debug, Clone)]
pub struct Encoded<B: Backend> {
    /// The dictionary.
    pub sae: SparseAutoencoder<B>,
    /// Its training; `None` for a dictionary that was not trained.
    pub history: Option<History>,
    /// One code for each example and head.
    pub table: CodeTable,
}

impl<B: Backend> Encoded<B> {
    /// What the dictionary looked like.
    pub fn report(&self) -> DictionaryReport {
        let codes = self.table.codes();
        let used: BTreeSet<i32> = codes
            .iter()
            .copied()
            .filter(|code| *code != INACTIVE)
            .collect();
        let heads = self.table.grid().len();
        let constant = (0..heads).filter(|&head| {
            let mut of_head = codes.iter().skip(head).step_by(heads);
            let first = of_head.next();
            of_head.all(|code| Some(code) == first)
        });
        let inactive = codes.iter().filter(|code| **code == INACTIVE).count();
        let last = |values: fn(&History) -> &Vec<f64>| {
            self.history
                .as_ref()
                .and_then(|history| values(history).last().copied())
        };
        DictionaryReport {
            n_codes: self.sae.d_sae(),
            codes_used: used.len(),
            inactive_share: inactive as f64 / codes.len() as f64,
            constant_heads: constant.count(),
            loss: last(|history| &history.loss),
            l0: last(|history| &history.l0),
            explained_variance: last(|history| &history.explained_variance),
            dead: self
                .history
                .as_ref()
                .and_then(|history| history.dead.last().copied()),
        }
    }
}

impl<B: Backend> Discover<B> for Sae {
    fn about(&self) -> &About {
        self.about
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let encoded = self.encode(evidence, &[seed], progress)?;
        Ok(of_dictionary(&encoded[0]))
    }
}

/// The paper's scores of heads.
pub(super) fn unique_counts(table: &CodeTable) -> Result<Vec<f64>> {
    let scores = node_scores(table)?;
    Ok(scores.iter().map(|score| f64::from(score.unique)).collect())
}

/// The paper's scores of heads and pairs.
pub(super) fn unique_codes(table: &CodeTable) -> Result<Scores> {
    let nodes = unique_counts(table)?;
    let pairs = pair_scores(table)?;
    let heads = table.grid().len();
    let mut scores = Scores::of_nodes(table.grid(), nodes)
        .with_edges(|source, destination| f64::from(pairs.unique()[source * heads + destination]));
    scores.paper_edge_head_counts = Some(pairs.paper_head_counts(None));
    Ok(scores)
}

/// The paper's scores of one dictionary's codes.
fn of_dictionary<B: Backend>(encoded: &Encoded<B>) -> Box<dyn Measured> {
    let report = encoded.report();
    Box::new(Coded {
        tables: vec![encoded.table.clone()],
        score: move |tables: &[CodeTable]| {
            let mut scores = unique_codes(&tables[0])?;
            scores.dictionary = Some(report.clone());
            Ok(scores)
        },
        nodes: |tables: &[CodeTable]| unique_counts(&tables[0]),
    })
}
