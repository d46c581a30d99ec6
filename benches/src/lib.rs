//! What the benches share: named shapes, the compiled devices, and input of the right size.
//!
//! Bench names read `stage/shape/backend`. On a GPU work is queued, so every bench waits for the
//! device inside the timed region ([`sync`]), or ends with a result on the host.
//!
//! Inputs are random, which costs the same as real ones: no stage looks at the values.

#![recursion_limit = "256"]

pub mod causal;
mod folder;
pub mod workload;

use burn::DispatchDevice;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope::eval::Evidence;
use circuitscope::eval::causal::{Ablation, CausalEvidence, Metric, TokenPair};
use circuitscope::model::{Decoder, DecoderConfig};
use circuitscope::score::CodeTable;
use circuitscope::{Exec, HeadGrid, Polarity, Seed, draw};
use tempfile::TempDir;

use folder::model_folder;

/// A size of model and of prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// As it stands in bench names.
    pub name: &'static str,
    /// Layers and heads in each.
    pub grid: HeadGrid,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Tokens that the model knows.
    pub d_vocab: usize,
    /// Pairs of prompts.
    pub pairs: usize,
    /// Tokens of each prompt.
    pub tokens: usize,
    /// Features of the dictionary.
    pub codes: usize,
}

/// The shipped reference model on 100 pairs of prompts.
pub const TINY: Shape = Shape {
    name: "tiny",
    grid: HeadGrid::new(4, 8),
    d_model: 128,
    d_vocab: 421,
    pairs: 100,
    tokens: 16,
    codes: 200,
};

/// GPT-2 small on 16 pairs of prompts.
pub const GPT2_SMALL: Shape = Shape {
    name: "gpt2-small",
    grid: HeadGrid::new(12, 12),
    d_model: 768,
    d_vocab: 50257,
    pairs: 16,
    tokens: 16,
    codes: 200,
};

/// GPT-2 medium; encoded and scored only.
pub const MEDIUM: Shape = Shape {
    name: "medium",
    grid: HeadGrid::new(24, 16),
    d_model: 1024,
    ..GPT2_SMALL
};

/// As many heads as GPT-2 XL has; scored only.
pub const XL_HEADS: Shape = Shape {
    name: "xl-heads",
    grid: HeadGrid::new(48, 25),
    d_model: 1600,
    ..GPT2_SMALL
};

/// A model whose edges can be removed one by one in a second: for ACDC.
pub const SMALL: Shape = Shape {
    name: "2x4",
    grid: HeadGrid::new(2, 4),
    d_model: 64,
    d_vocab: 421,
    pairs: 4,
    tokens: 12,
    codes: 100,
};

/// Shapes whose models are run.
pub const SHAPES: [Shape; 2] = [TINY, GPT2_SMALL];

/// Shapes whose codes are scored.
pub const CODED: [Shape; 4] = [TINY, GPT2_SMALL, MEDIUM, XL_HEADS];

/// The devices of all compiled backends, by name.
#[must_use]
pub fn devices() -> Vec<(&'static str, DispatchDevice)> {
    vec![
        #[cfg(feature = "flex")]
        ("flex", burn::backend::flex::FlexDevice.into()),
        #[cfg(feature = "ndarray")]
        ("ndarray", burn::backend::ndarray::NdArrayDevice::Cpu.into()),
        #[cfg(feature = "wgpu")]
        ("wgpu", burn::backend::wgpu::WgpuDevice::default().into()),
        #[cfg(feature = "cuda")]
        ("cuda", burn::backend::cuda::CudaDevice::default().into()),
    ]
}

/// How work on a device is laid out: on all cores where it computes in the host's memory.
pub fn exec<B: Backend>(device: &B::Device) -> Exec {
    let name = B::name(device);
    if ["flex", "ndarray"].iter().any(|host| name.contains(host)) {
        Exec::all_cores()
    } else {
        Exec::serial()
    }
}

/// Waits until the device has done all that was asked of it.
///
/// # Panics
/// If the device failed.
pub fn sync<B: Backend>(device: &B::Device) {
    if let Err(error) = B::sync(device) {
        panic!("the device failed: {error:?}");
    }
}

impl Shape {
    /// Number of prompts, both classes together.
    #[must_use]
    pub const fn prompts(&self) -> usize {
        2 * self.pairs
    }

    /// A GPT-2 of this size with random weights.
    #[must_use]
    pub fn model<B: Backend>(&self, device: &B::Device) -> Decoder<B> {
        let HeadGrid { n_layers, n_heads } = self.grid;
        DecoderConfig::gpt2(n_layers, n_heads, self.d_model, 64, self.d_vocab)
            .init::<B>(Seed::new(0), device)
            .with_exec(exec::<B>(device))
    }

    /// Random token ids, one row for each prompt.
    #[must_use]
    pub fn sequences(&self) -> Vec<Vec<u32>> {
        let mut rng = Seed::new(0).stream("bench/tokens").rng();
        let mut row = || -> Vec<u32> {
            (0..self.tokens)
                .map(|_| draw::index(&mut rng, self.d_vocab) as u32)
                .collect()
        };
        (0..self.prompts()).map(|_| row()).collect()
    }

    /// `[rows, d_model]`, uniform in ±1.
    #[must_use]
    pub fn rows<B: Backend>(&self, rows: usize, device: &B::Device) -> Tensor<B, 2> {
        let mut rng = Seed::new(0).stream("bench/rows").rng();
        let data: Vec<f32> = (0..rows * self.d_model)
            .map(|_| draw::between(&mut rng, -1.0, 1.0))
            .collect();
        Tensor::from_data(TensorData::new(data, [rows, self.d_model]), device)
    }

    /// The classes of all prompts: positives first.
    #[must_use]
    pub fn labels(&self) -> Vec<Polarity> {
        let class = |polarity| core::iter::repeat_n(polarity, self.pairs);
        class(Polarity::Positive)
            .chain(class(Polarity::Negative))
            .collect()
    }

    /// Head outputs of all prompts.
    ///
    /// # Panics
    /// Never: the parts fit.
    #[must_use]
    pub fn evidence<B: Backend>(&self, device: &B::Device) -> Evidence<B> {
        let heads = self.grid.len();
        let activations = self.rows::<B>(self.prompts() * heads, device).reshape([
            self.prompts(),
            heads,
            self.d_model,
        ]);
        let pairs = (0..self.pairs).map(|at| (at, self.pairs + at)).collect();
        match Evidence::new(self.grid, activations, self.labels(), pairs) {
            Ok(evidence) => evidence.with_exec(exec::<B>(device)),
            Err(error) => panic!("{error}"),
        }
    }

    /// The same, with the model itself and matched prompts.
    ///
    /// # Panics
    /// Never: the parts fit.
    #[must_use]
    pub fn causal_evidence<B: Backend>(&self, device: &B::Device) -> Evidence<B> {
        let sequences = self.sequences();
        let pairs = (0..self.pairs).map(|at| {
            TokenPair::new(
                (at, self.pairs + at),
                sequences[at].clone(),
                sequences[self.pairs + at].clone(),
            )
            .with_right(vec![1])
            .with_wrong(vec![2])
        });
        let causal = CausalEvidence::new(
            self.model::<B>(device),
            pairs.collect(),
            Metric::LogitDifference,
            Ablation::Negative,
            2 << 30,
            device,
        );
        match causal {
            Ok(causal) => self.evidence(device).with_causal(causal),
            Err(error) => panic!("{error}"),
        }
    }

    /// A model of this size as a folder in Hugging Face layout, with random weights.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn folder(&self) -> TempDir {
        match model_folder(self) {
            Ok(folder) => folder,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Random codes for `pairs` pairs of prompts.
    ///
    /// # Panics
    /// Never: the parts fit.
    #[must_use]
    pub fn codes(&self, pairs: usize) -> CodeTable {
        let shape = Self { pairs, ..*self };
        let mut rng = Seed::new(0).stream("bench/codes").rng();
        let codes = (0..shape.prompts() * shape.grid.len())
            .map(|_| draw::index(&mut rng, shape.codes + 1) as i32 - 1)
            .collect();
        match CodeTable::new(shape.grid, shape.labels(), codes) {
            Ok(table) => table,
            Err(error) => panic!("{error}"),
        }
    }
}
