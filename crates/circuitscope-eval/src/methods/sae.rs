use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed, draw};
use circuitscope_sae::{Dictionary, SaeConfig, TrainConfig, TrainJob, train_many};

use super::coded::{Inactive, Made, encoded, of_dictionary};
use crate::encodings::{Encoded, Recipe, SaeSettings, Training};
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
            let untrained = |recipe| {
                let sae = config.init::<B>(weights(recipe), &evidence.device())?;
                Ok(Made::of(Arc::new(sae), None))
            };
            let dictionaries = recipes.iter().map(untrained).collect::<Result<_>>()?;
            return encoded(evidence, dictionaries, self.inactive(), progress);
        }
        let examples = evidence.labels().len();
        if examples < settings.train_examples {
            return Err(Error::TooFewExamples {
                what: "examples to train the dictionary on",
                found: examples,
                expected: settings.train_examples,
            });
        }
        let job = |recipe: &Recipe| {
            let mut rng = recipe.seed.stream("sae/examples").rng();
            let chosen = draw::sample(&mut rng, examples, settings.train_examples);
            Ok(TrainJob {
                config: config.clone(),
                x: evidence.rows(&chosen)?,
                seed: weights(recipe),
            })
        };
        let jobs = recipes.iter().map(job).collect::<Result<Vec<_>>>()?;
        let steps = TrainConfig::new()
            .with_steps(settings.steps)
            .with_exec(evidence.exec());
        let trained = train_many(&jobs, &steps, progress)?.into_iter();
        let dictionaries = trained.map(|made| Made::of(Arc::new(made.sae), Some(made.history)));
        encoded(evidence, dictionaries.collect(), self.inactive(), progress)
    }

    const fn inactive(&self) -> Inactive {
        match self.dictionary {
            Dictionary::PaperCompatible => Inactive::IsFeatureZero,
            _ => Inactive::IsACode,
        }
    }
}

/// The codes that the scores of a method of this name rest on, made with these settings and this seed; nothing for methods without a
/// trained dictionary. Where the method ran on the same evidence, they are those of that run.
///
/// # Errors
/// As [`Sae::encode`].
pub fn own_codes<B: Backend>(
    method: &str,
    evidence: &Evidence<B>,
    settings: &SaeSettings,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Option<Arc<Encoded<B>>>> {
    let made = match method {
        "sae" => Sae::paper(settings.clone()),
        "sae-corrected" => Sae::corrected(settings.clone()),
        _ => return Ok(None),
    };
    Ok(made.encode(evidence, &[seed], progress)?.pop())
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
