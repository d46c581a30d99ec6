//! Models and dictionaries that tests are made on.

use std::path::{Path, PathBuf};

use burn::tensor::activation::relu;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::draw::normal_pair;
use circuitscope_core::{NoProgress, Seed};
use circuitscope_hooks::{Capture, Site, Tap};
use circuitscope_model::{Decoder, Loaded, PaddingSide, Processing, TokenBatch, load_dir};
use circuitscope_sae::{Encoder, Reads};

pub(crate) type B = burn_flex::Flex;

pub(crate) const TOKENS: [u32; 7] = [1, 5, 2, 9, 2, 7, 3];

/// Families with different norms, wirings, positions and numbers of key/value heads.
pub(crate) const FAMILIES: [&str; 9] = [
    "llama",
    "llama_biases",
    "qwen2",
    "qwen3",
    "gpt_neox",
    "gpt_neox_sequential",
    "gptj",
    "gemma2",
    "opt",
];

pub(crate) fn device() -> burn_flex::FlexDevice {
    burn_flex::FlexDevice
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../circuitscope-model/tests/it/golden")
        .join(name)
}

/// A small golden model: GPT-2, or one of the families.
pub(crate) fn model(name: &str, processing: Processing) -> Decoder<B> {
    let folder = match name {
        "gpt2" => golden("gpt2_tiny"),
        name => golden("families").join(name),
    };
    load(&folder, processing)
}

pub(crate) fn load(folder: &Path, processing: Processing) -> Decoder<B> {
    load_dir(folder, processing, &device(), &NoProgress)
        .unwrap()
        .model
}

/// The same with what is known of it.
pub(crate) fn loaded(name: &str, processing: Processing) -> Loaded<B> {
    assert_eq!(name, "gpt2");
    load_dir(&golden("gpt2_tiny"), processing, &device(), &NoProgress).unwrap()
}

/// All names of [`model`] in both processings.
pub(crate) fn models() -> Vec<(String, Decoder<B>)> {
    let names = FAMILIES.into_iter().chain(["gpt2"]);
    let both = names.flat_map(|name| [(name, Processing::Raw), (name, Processing::Folded)]);
    both.map(|(name, processing)| (format!("{name}, {processing}"), model(name, processing)))
        .collect()
}

/// What a pass over `tokens` shows at a site, flat.
pub(crate) fn captured(model: &Decoder<B>, tokens: &[u32], site: Site) -> Vec<f32> {
    let batch = TokenBatch::new(&[tokens], PaddingSide::Right, &device()).unwrap();
    let mut capture = Capture::new([site]);
    model.forward(&batch, &mut capture);
    let data = capture.take(site).unwrap().into_data();
    data.iter::<f32>().collect()
}

/// The same of a pass that a tap changes.
pub(crate) fn spliced<T: Tap<B>>(model: &Decoder<B>, tokens: &[u32], tap: &mut T) -> Vec<f32> {
    let batch = TokenBatch::new(&[tokens], PaddingSide::Right, &device()).unwrap();
    let mut capture = Capture::new([Site::Logits]);
    let mut both = (tap, &mut capture);
    model.forward(&batch, &mut both);
    let data = capture.take(Site::Logits).unwrap().into_data();
    data.iter::<f32>().collect()
}

/// A dictionary with random weights, or others.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) w_enc: Tensor<B, 2>,
    pub(crate) b_enc: Tensor<B, 1>,
    pub(crate) w_dec: Tensor<B, 2>,
    pub(crate) b_dec: Tensor<B, 1>,
    /// `[d_in, d_out]`
    pub(crate) skip: Option<Tensor<B, 2>>,
}

pub(crate) fn normal<const D: usize>(shape: [usize; D], std: f64, seed: u64) -> Tensor<B, D> {
    let mut rng = Seed::new(seed).stream("features/tests").rng();
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| (std * normal_pair(&mut rng)[0]) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

impl Small {
    pub(crate) fn random(d_in: usize, d_sae: usize, d_out: usize, seed: u64) -> Self {
        Self {
            w_enc: normal([d_in, d_sae], 0.5, seed),
            b_enc: normal([d_sae], 0.3, seed + 100),
            w_dec: normal([d_sae, d_out], 0.2, seed + 200),
            b_dec: normal([d_out], 0.2, seed + 300),
            skip: None,
        }
    }

    pub(crate) fn with_skip(mut self, seed: u64) -> Self {
        let shape = [self.w_enc.dims()[0], self.w_dec.dims()[1]];
        self.skip = Some(normal(shape, 0.2, seed + 400));
        self
    }
}

impl Encoder<B> for Small {
    fn d_in(&self) -> usize {
        self.w_enc.dims()[0]
    }

    fn d_out(&self) -> usize {
        self.w_dec.dims()[1]
    }

    fn n_codes(&self) -> usize {
        self.w_enc.dims()[1]
    }

    fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        relu(x.matmul(self.w_enc.clone()) + self.b_enc.clone().unsqueeze())
    }

    fn decode(&self, features: Tensor<B, 2>, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        let y = features.matmul(self.w_dec.clone()) + self.b_dec.clone().unsqueeze();
        Some(match &self.skip {
            Some(skip) => y + x.matmul(skip.clone()),
            None => y,
        })
    }

    fn reads(&self) -> Option<Reads<B>> {
        Some(Reads {
            weight: self.w_enc.clone(),
            bias: self.b_enc.clone(),
        })
    }

    fn atoms(&self) -> Option<Tensor<B, 2>> {
        Some(self.w_dec.clone())
    }
}
