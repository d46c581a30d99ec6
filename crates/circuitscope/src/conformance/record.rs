//! The record, and how a device makes one.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Exec, NoProgress, Seed};
use circuitscope_files::{Entry, Metadata, Reader, Writer};
use circuitscope_hooks::{Capture, NoTap, Reduce, Site, Tap};
use circuitscope_model::{LoadSettings, PaddingSide, Processing, TokenBatch, capture_head_means};
use circuitscope_sae::{Encoder as _, SaeConfig, TrainConfig, train};
use circuitscope_tasks::{TASKS, Vocabulary, generate};

use super::{Check, Conformance, Error, NEAR_TIE, Worst};
use crate::load_reference;

/// The record inside this crate, made by `circuitscope doctor --write-record` on a CPU.
const SHIPPED: &[u8] = circuitscope_reference::CONFORMANCE;

const SEED: Seed = Seed::new(0);
const HEAD_MEANS: &str = "head_means";
const LOSS: &str = "sae.loss";
const CODES: &str = "sae.codes";
const MARGINS: &str = "sae.margins";
const MODEL: &str = "model_sha256";

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its entries, row-major.
    pub data: Vec<f32>,
}

/// What the reference model, one training and one encoding give on fixed input.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// SHA-256 of the reference model's weights.
    pub model: String,
    /// Mean over positions at each site, last position for the logits; first axis: prompts.
    pub activations: BTreeMap<Site, Values>,
    /// Mean output of every head, `[prompts, heads, d_model]`.
    pub head_means: Values,
    /// Loss at each step of a training on the head means.
    pub loss: Vec<f32>,
    /// Codes of the head means under an untrained dictionary, `[prompts * heads]`.
    pub codes: Vec<i32>,
    /// For each code, how far the second largest feature is below the largest, relative to it; 1
    /// where fewer than two features are active.
    pub margins: Vec<f32>,
}

impl Record {
    /// The record inside this crate.
    ///
    /// # Errors
    /// [`Error::File`], which no release has.
    pub fn shipped() -> Result<Self, Error> {
        Self::of(&Reader::embedded("conformance.safetensors", SHIPPED)?)
    }

    /// Does the work on a device. Training and codes start from `head_means`, or from those just
    /// computed.
    ///
    /// # Errors
    /// [`Error::Run`] or [`Error::Device`].
    pub fn measure<B: Backend>(
        device: &B::Device,
        exec: Exec,
        head_means: Option<&Values>,
    ) -> Result<Self, Error> {
        Self::measure_with::<B, _>(device, exec, head_means, NoTap)
    }

    /// The same with a tap in the model that may change what it computes, as a wrong kernel would.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn measure_with<B: Backend, T: Tap<B>>(
        device: &B::Device,
        exec: Exec,
        head_means: Option<&Values>,
        fault: T,
    ) -> Result<Self, Error> {
        let settings = LoadSettings::from(Processing::Folded).with_exec(exec);
        let loaded = load_reference::<B>(settings, device)?;
        let weights = loaded.provenance.files.iter();
        let model = weights
            .filter(|file| file.name.ends_with(".safetensors"))
            .map(|file| file.sha256.as_str())
            .collect();
        let tokenizer = loaded.tokenizer().map_err(crate::Error::from)?;
        let texts = prompts()?;
        let tokens = texts
            .iter()
            .map(|text| tokenizer.encode(text, true))
            .collect::<Result<Vec<_>, _>>()
            .map_err(crate::Error::from)?;

        // Prompts of different length in one batch: padding is part of what is checked.
        let batch = TokenBatch::new(&tokens, PaddingSide::Right, device);
        let batch = batch.map_err(crate::Error::from)?;
        let sites = sites(loaded.model.config().n_layers);
        let mut tap = (
            fault,
            Capture::<B>::new(sites).with_reduce(Reduce::Mean),
            Capture::<B>::new([Site::Logits]).with_reduce(Reduce::Last),
        );
        loaded.model.forward(&batch, &mut tap);
        let mut activations = BTreeMap::new();
        for capture in [tap.1, tap.2] {
            let captured = capture.finish().map_err(circuitscope_model::Error::from);
            for (site, tensor) in captured.map_err(crate::Error::from)? {
                activations.insert(site, Values::new(tensor.into_data())?);
            }
        }
        let means = capture_head_means(&loaded.model, &tokens, 1 << 16, device, &NoProgress);
        let means = Values::new(means.map_err(crate::Error::from)?.into_data())?;

        let x = head_means.unwrap_or(&means).rows::<B>(device);
        let config = SaeConfig::new(x.dims()[1]);
        let steps = TrainConfig::new().with_steps(20).with_exec(exec);
        let trained = train(
            &config.clone().with_d_sae(64),
            &steps,
            x.clone(),
            SEED.stream("conformance/train"),
            &NoProgress,
        );
        let history = trained.map_err(crate::Error::from)?.history;
        let dictionary = config
            .init::<B>(SEED.stream("conformance/codes"), device)
            .map_err(crate::Error::from)?;
        let codes = dictionary.codes(x.clone()).map_err(crate::Error::from)?;
        let features = Values::new(dictionary.encode(x).into_data())?;
        Ok(Self {
            model,
            activations,
            head_means: means,
            loss: history.loss.iter().map(|&loss| loss as f32).collect(),
            codes,
            margins: features.data.chunks(config.d_sae).map(margin).collect(),
        })
    }

    /// Compares what a device did with this record.
    ///
    /// # Errors
    /// [`Error::OtherModel`] if the two belong to different weights.
    pub fn compare(&self, found: &Self) -> Result<Conformance, Error> {
        if self.model != found.model {
            return Err(Error::OtherModel {
                found: self.model.clone(),
                expected: found.model.clone(),
            });
        }
        let nothing = Values {
            shape: Vec::new(),
            data: Vec::new(),
        };
        let mut checks: Vec<Check> = self
            .activations
            .iter()
            .map(|(site, expected)| {
                let found = found.activations.get(site).unwrap_or(&nothing);
                Check::absolute(&site.to_string(), expected, found)
            })
            .collect();
        checks.push(Check::absolute(
            "head outputs, mean over positions",
            &self.head_means,
            &found.head_means,
        ));
        checks.push(Check::loss(&self.loss, &found.loss));
        checks.push(self.check_codes(found));
        Ok(Conformance {
            near_ties: self.near_ties().filter(|near| *near).count(),
            checks,
        })
    }

    fn near_ties(&self) -> impl Iterator<Item = bool> {
        self.margins
            .iter()
            .map(|&margin| f64::from(margin) <= NEAR_TIE)
    }

    fn check_codes(&self, found: &Self) -> Check {
        let same_length = self.codes.len() == found.codes.len();
        let pairs = self.codes.iter().zip(&found.codes).zip(self.near_ties());
        let wrong: Vec<usize> = pairs
            .enumerate()
            .filter(|(_, ((expected, found), near_tie))| expected != found && !near_tie)
            .map(|(at, _)| at)
            .collect();
        Check {
            name: "codes".to_owned(),
            difference: wrong.len() as f64,
            tolerance: 0.0,
            passed: same_length && wrong.is_empty(),
            worst: wrong.first().map(|&at| Worst {
                index: vec![at],
                found: f64::from(found.codes[at]),
                expected: f64::from(self.codes[at]),
            }),
        }
    }

    /// Writes the record as safetensors, atomically.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let sites = self.activations.iter();
        let sites = sites.map(|(site, values)| (site.to_string(), values));
        let values: Vec<(String, &Values)> = sites
            .chain([(HEAD_MEANS.to_owned(), &self.head_means)])
            .collect();
        let lists = [(LOSS, &self.loss), (MARGINS, &self.margins)];
        let entries = values.iter();
        let entries = entries.map(|(name, values)| Entry::of::<f32>(name, &values.shape));
        let entries = entries
            .chain(lists.map(|(name, list)| Entry::of::<f32>(name, &[list.len()])))
            .chain([Entry::of::<i32>(CODES, &[self.codes.len()])]);
        let metadata = Metadata::from([(MODEL.to_owned(), self.model.clone().into())]);
        let mut file = Writer::create(path, entries.collect(), metadata)?;
        for (name, values) in &values {
            file.fill(name, &values.data)?;
        }
        for (name, list) in lists {
            file.fill(name, list)?;
        }
        file.fill(CODES, &self.codes)?;
        Ok(file.finish()?)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::of(&Reader::open(path)?)
    }

    fn of(file: &Reader) -> Result<Self, Error> {
        let values = |name: &str| -> Result<Values, Error> {
            let tensor = file.tensor(name)?;
            Ok(Values {
                shape: tensor.dims().to_vec(),
                data: tensor.f32()?,
            })
        };
        let mut activations = BTreeMap::new();
        for name in file.names() {
            if let Ok(site) = name.parse::<Site>() {
                activations.insert(site, values(&name)?);
            }
        }
        let codes = file.tensor(CODES)?;
        let entries = codes.integers::<i32>()?.into_iter();
        let entries = entries.map(|code| {
            let found = || codes.wrong(code.to_string(), "a feature index or -1 (inactive)");
            i32::try_from(code).ok().ok_or_else(found)
        });
        Ok(Self {
            model: file.text(MODEL)?.to_owned(),
            activations,
            head_means: values(HEAD_MEANS)?,
            loss: values(LOSS)?.data,
            codes: entries.collect::<Result<_, _>>()?,
            margins: values(MARGINS)?.data,
        })
    }
}

impl Values {
    pub(super) fn new(data: TensorData) -> Result<Self, Error> {
        let shape = data.shape.to_vec();
        let data = data.convert::<f32>().into_vec::<f32>();
        let data = data.map_err(|error| Error::Device(format!("{error:?}")))?;
        Ok(Self { shape, data })
    }

    /// `[prompts * heads, d_model]`.
    fn rows<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        let d = self.shape.last().copied().unwrap_or(1);
        let rows = self.data.len() / d;
        Tensor::from_data(TensorData::new(self.data.clone(), [rows, d]), device)
    }
}

/// One pair of prompts of each task.
pub(super) fn prompts() -> Result<Vec<String>, Error> {
    let mut texts = Vec::new();
    for task in TASKS {
        let set = generate(task, Vocabulary::Reference, 1, SEED, None);
        texts.extend(set.map_err(crate::Error::from)?.labelled().texts);
    }
    Ok(texts)
}

fn sites(n_layers: usize) -> Vec<Site> {
    let layers = (0..n_layers).flat_map(|layer| {
        [
            Site::Q(layer),
            Site::K(layer),
            Site::V(layer),
            Site::Z(layer),
            Site::AttnOut(layer),
            Site::MlpOut(layer),
            Site::ResidPost(layer),
        ]
    });
    [Site::Embed].into_iter().chain(layers).collect()
}

/// See [`Record::margins`].
fn margin(features: &[f32]) -> f32 {
    let (mut first, mut second) = (0.0f32, 0.0f32);
    for &x in features {
        if x > first {
            (first, second) = (x, first);
        } else if x > second {
            second = x;
        }
    }
    if second > 0.0 {
        (first - second) / first
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_compare_the_two_largest() {
        assert_eq!(margin(&[0.0, 2.0, 1.0, 0.0]), 0.5);
        assert_eq!(margin(&[3.0, 3.0]), 0.0);
        assert_eq!(margin(&[0.0, 2.0]), 1.0);
        assert_eq!(margin(&[0.0, 0.0]), 1.0);
    }
}
