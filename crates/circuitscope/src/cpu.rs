//! The whole way on the CPU, without a type parameter: compiled once with this crate, so that a program that calls it is built
//! anew in seconds.
//!
//! Everything else here is generic over burn's backends and compiled in the crate that names one, which takes a minute
//! after each change. What this module lacks is there, too: [`Model::loaded`] and [`Run::evidence`] are the generic values, on
//! the backend `burn-flex`.
//!
//! ```
//! use circuitscope::cpu::Model;
//! use circuitscope::prelude::*;
//!
//! # fn main() -> Result<(), circuitscope::Error> {
//! let model = Model::reference()?;
//! let prompts = model.task(&INDUCTION, 12, Seed::new(0), PrepareSettings::default())?;
//! let run = model.run(&prompts, CaptureSettings::default(), &NoProgress)?;
//!
//! let found = run.discover(&DiscoverSettings::default(), &NoProgress)?;
//! let circuit: Vec<HeadId> = found.chosen.circuit.heads().collect();
//! assert!(circuit.contains(&HeadId::new(2, 5)), "the planted induction head");
//!
//! let cards = run.cards(&[(HeadId::new(2, 5), 1)], &Default::default(), Seed::new(0), &NoProgress)?;
//! let role = cards.heads[0].main_roles()[0].pattern.to_string();
//! assert_eq!(role, "induction-1");
//! # Ok(())
//! # }
//! ```

use std::path::Path;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{Exec, HeadId, Progress, Seed};
use circuitscope_eval::{
    CardSettings, CircuitQuality, Evidence, PromptParts, QualitySettings, circuit_quality,
};
use circuitscope_measures::cards::Cards;
use circuitscope_model::{LoadSettings, Loaded, load_dir, load_gguf};
use circuitscope_tasks::{LabelledPrompts, TaskSpec};

use crate::{
    CaptureSettings, DiscoverSettings, Discovery, PrepareSettings, PreparedPrompts,
    PromptBehaviour, Result,
};

type Training = Autodiff<Flex>;

/// A model on the CPU.
#[derive(Debug, Clone)]
pub struct Model(Loaded<Flex>);

impl Model {
    /// The small model inside this crate, whose circuits are known.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn reference() -> Result<Self> {
        let settings = LoadSettings::default().with_exec(Exec::all_cores());
        Ok(Self(crate::load_reference(settings, &FlexDevice)?))
    }

    /// A folder in Hugging Face layout, or a GGUF file.
    ///
    /// # Errors
    /// As [`load_dir`] and [`load_gguf`].
    pub fn load(path: &Path, settings: LoadSettings, progress: &dyn Progress) -> Result<Self> {
        let settings = settings.with_exec(Exec::all_cores());
        let loaded = if path.is_dir() {
            load_dir(path, settings, &FlexDevice, progress)?
        } else {
            load_gguf(path, settings, &FlexDevice, progress)?
        };
        Ok(Self(loaded))
    }

    /// The model itself.
    pub const fn loaded(&self) -> &Loaded<Flex> {
        &self.0
    }

    /// Makes prompts ready: [`prepare`](crate::prepare).
    ///
    /// # Errors
    /// As there.
    pub fn prepare(
        &self,
        prompts: LabelledPrompts,
        task: Option<&TaskSpec>,
        settings: PrepareSettings,
    ) -> Result<PreparedPrompts> {
        crate::prepare(&self.0, prompts, task, settings)
    }

    /// Draws prompts of a task: [`prepare_task`](crate::prepare_task).
    ///
    /// # Errors
    /// As there.
    pub fn task(
        &self,
        task: &TaskSpec,
        pairs: usize,
        seed: Seed,
        settings: PrepareSettings,
    ) -> Result<PreparedPrompts> {
        crate::prepare_task(&self.0, task, pairs, seed, settings)
    }

    /// Runs the model on prompts: what methods start from. Where prompts are in pairs, causal methods can run them.
    ///
    /// # Errors
    /// As [`capture`](crate::capture) and [`causal_evidence`](crate::causal_evidence).
    pub fn run(
        &self,
        prompts: &PreparedPrompts,
        settings: CaptureSettings,
        progress: &dyn Progress,
    ) -> Result<Run> {
        let mut evidence = crate::capture(&self.0, prompts, settings, &FlexDevice, progress)?;
        if !prompts.prompts().pairs.is_empty() {
            let causal = crate::causal_evidence(&self.0, prompts, settings, &FlexDevice)?;
            evidence = evidence.with_causal(causal);
        }
        Ok(Run {
            parts: prompts.parts(self.0.tokenizer()?)?,
            prompts: prompts.clone(),
            model: self.clone(),
            evidence,
        })
    }
}

/// A model and what it made of some prompts.
#[derive(Debug)]
pub struct Run {
    model: Model,
    prompts: PreparedPrompts,
    parts: PromptParts,
    evidence: Evidence<Flex>,
}

impl Run {
    /// What methods start from.
    pub const fn evidence(&self) -> &Evidence<Flex> {
        &self.evidence
    }

    /// Whether the model shows the behaviour: [`PromptBehaviour::measure`].
    ///
    /// # Errors
    /// As there.
    pub fn behaviour(&self, seed: Seed, progress: &dyn Progress) -> Result<PromptBehaviour> {
        let causal = self.evidence.causal("behaviour").ok();
        PromptBehaviour::measure(
            &self.model.0,
            &self.prompts,
            causal,
            &FlexDevice,
            seed,
            progress,
        )
    }

    /// Scores every head and chooses a circuit: [`discover`](crate::discover).
    ///
    /// # Errors
    /// As there.
    pub fn discover(
        &self,
        settings: &DiscoverSettings,
        progress: &dyn Progress,
    ) -> Result<Discovery> {
        crate::discover::<Training>(&self.evidence, settings, &FlexDevice, progress)
    }

    /// What a circuit keeps, what is left without it, what random ones keep: [`circuit_quality`].
    ///
    /// # Errors
    /// As there.
    pub fn quality(
        &self,
        circuit: &[HeadId],
        settings: QualitySettings,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<CircuitQuality> {
        let causal = self.evidence.causal("quality")?;
        Ok(circuit_quality(causal, circuit, settings, seed, progress)?)
    }

    /// What heads do: [`cards`](crate::cards).
    ///
    /// # Errors
    /// As there.
    pub fn cards(
        &self,
        heads: &[(HeadId, usize)],
        settings: &CardSettings,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Cards> {
        let causal = self.evidence.causal("cards")?;
        let words = (&self.parts, self.model.0.tokenizer()?);
        crate::cards::<Training>(
            causal,
            words,
            None,
            heads,
            settings,
            (seed, &FlexDevice),
            progress,
        )
    }
}
