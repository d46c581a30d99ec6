use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, Transaction};

use crate::read::{execute, floats};
use crate::{Error, Result, SparseAutoencoder};

/// The code of a vector on which no feature is active.
pub const INACTIVE: i32 = -1;

/// How [`SparseAutoencoder::encode_codes`] works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncodeConfig {
    /// Rows encoded at a time. Default 8192. It bounds the memory (see
    /// [`encode_codes`](SparseAutoencoder::encode_codes)) and changes no result.
    pub tile_rows: usize,
    /// Count the vectors whose two largest feature activations `f₁ ≥ f₂` differ by at most this
    /// share of the larger: `f₁ > 0` and `f₁ − f₂ ≤ tolerance · f₁`. Default: do not count.
    pub near_tie_tolerance: Option<f64>,
    /// Also return the activation of each row's largest feature. Default: no.
    pub amplitudes: bool,
}

impl Default for EncodeConfig {
    fn default() -> Self {
        Self {
            tile_rows: 8192,
            near_tie_tolerance: None,
            amplitudes: false,
        }
    }
}

impl EncodeConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Encoding `tile_rows` rows at a time.
    #[must_use]
    pub const fn with_tile_rows(mut self, tile_rows: usize) -> Self {
        self.tile_rows = tile_rows;
        self
    }

    /// Returning the largest activations, too.
    #[must_use]
    pub const fn with_amplitudes(mut self) -> Self {
        self.amplitudes = true;
        self
    }

    /// Counting near-ties within the relative tolerance `tolerance`.
    #[must_use]
    pub const fn with_near_ties(mut self, tolerance: f64) -> Self {
        self.near_tie_tolerance = Some(tolerance);
        self
    }
}

/// What [`SparseAutoencoder::encode_codes`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Codes {
    /// One for each row: the index of its largest feature, or [`INACTIVE`].
    pub codes: Vec<i32>,
    /// Number of rows on which no feature is active.
    pub inactive: usize,
    /// Number of rows whose two largest features are nearly equal, where it was asked for: on
    /// another backend, or after another rounding, their codes may be different.
    pub near_ties: Option<usize>,
    /// For each row the activation of its largest feature, 0 for inactive ones, where asked for.
    pub amplitudes: Option<Vec<f32>>,
}

impl<B: Backend> SparseAutoencoder<B> {
    /// The code of every row: the index of its largest feature activation, the first one on exact
    /// ties, [`INACTIVE`] where none is above zero.
    ///
    /// The paper's codes (arXiv 2405.12522) are these with 0 instead of −1, which makes inactive
    /// vectors look like those of feature 0.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`
    ///
    /// # Errors
    /// As [`encode_codes`](Self::encode_codes).
    ///
    /// # Examples
    /// ```
    /// use burn::tensor::Tensor;
    /// use circuitscope_sae::SparseAutoencoder;
    ///
    /// type B = burn_flex::Flex;
    /// let device = Default::default();
    /// let sae = SparseAutoencoder::<B> {
    ///     w_enc: Tensor::from_floats([[1.0, 0.0], [0.0, 1.0]], &device),
    ///     w_dec: Tensor::from_floats([[1.0, 0.0], [0.0, 1.0]], &device),
    ///     b_enc: Tensor::zeros([2], &device),
    ///     b_dec: Tensor::zeros([2], &device),
    /// };
    /// let x = Tensor::from_floats([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [-1.0, -2.0]], &device);
    /// assert_eq!(sae.codes(x)?, [0, 1, 0, -1]);
    /// # Ok::<(), circuitscope_sae::Error>(())
    /// ```
    pub fn codes(&self, x: Tensor<B, 2>) -> Result<Vec<i32>> {
        Ok(self.encode_codes(x, &EncodeConfig::default())?.codes)
    }

    /// [`codes`](Self::codes), with what they rest on.
    ///
    /// Runs on the device, tile by tile; only the codes and a few counts come back, once, at the
    /// end.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`
    ///
    /// # Errors
    /// - [`Error::Width`] if `x` is not `d_in` wide;
    /// - [`Error::Config`] if a setting is out of range;
    /// - [`Error::NonFinite`] if `x` holds NaN or infinite values, which would otherwise pass for
    ///   inactive vectors;
    /// - [`Error::Device`] if the codes cannot be read back.
    ///
    /// # Memory
    /// One `[tile_rows, d_in]` and about four `[tile_rows, d_sae]` matrices.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "tensors are handles, passed by value as everywhere in burn"
    )]
    pub fn encode_codes(&self, x: Tensor<B, 2>, config: &EncodeConfig) -> Result<Codes> {
        let EncodeConfig {
            tile_rows,
            near_tie_tolerance,
            amplitudes,
        } = *config;
        if tile_rows == 0 {
            return Err(Error::Config {
                field: "tile_rows",
                found: tile_rows.to_string(),
                expected: "at least 1",
            });
        }
        if let Some(tolerance) = near_tie_tolerance
            && !(0.0..1.0).contains(&tolerance)
        {
            return Err(Error::Config {
                field: "near_tie_tolerance",
                found: tolerance.to_string(),
                expected: "a number in [0, 1)",
            });
        }
        let [rows, width] = x.dims();
        if width != self.d_in() {
            return Err(Error::Width {
                expected: self.d_in(),
                found: width,
            });
        }
        if rows == 0 {
            return Ok(Codes {
                codes: Vec::new(),
                inactive: 0,
                near_ties: near_tie_tolerance.map(|_| 0),
                amplitudes: amplitudes.then(Vec::new),
            });
        }

        let mut tiles = Tiles::default();
        for start in (0..rows).step_by(tile_rows) {
            let end = rows.min(start + tile_rows);
            let tile = self.tile(x.clone().slice_dim(0, start..end), config);
            tiles.codes.push(tile.codes);
            tiles.sums.push(tile.sum);
            tiles.near_ties.extend(tile.near_ties);
            tiles.amplitudes.extend(tile.amplitudes);
        }
        tiles.read(rows, tile_rows, near_tie_tolerance.is_some())
    }

    fn tile(&self, x: Tensor<B, 2>, config: &EncodeConfig) -> Tile<B> {
        // The arg-max of the activations is that of the pre-activations wherever one is positive.
        let pre = self.pre_activations(x);
        let sum = pre.clone().sum();
        // All of burn's backends take the first of equal values here; a test holds them to it.
        let (largest, index) = pre.clone().max_dim_with_indices(1);
        let near_ties = config.near_tie_tolerance.map(|tolerance| {
            let features = Tensor::<B, 1, Int>::arange(0..self.d_sae() as i64, &pre.device())
                .unsqueeze_dim::<2>(0);
            let rest = pre
                .mask_fill(index.clone().equal(features), f32::NEG_INFINITY)
                .max_dim(1);
            let near = (largest.clone() - rest)
                .lower_equal(largest.clone().mul_scalar(tolerance))
                .bool_and(largest.clone().greater_elem(0.0));
            near.float().sum()
        });
        Tile {
            amplitudes: config.amplitudes.then(|| largest.clone().clamp_min(0.0)),
            codes: index.mask_fill(largest.lower_equal_elem(0.0), INACTIVE),
            sum,
            near_ties,
        }
    }
}

/// One tile, still on the device.
struct Tile<B: Backend> {
    /// `[rows, 1]`
    codes: Tensor<B, 2, Int>,
    /// Of all pre-activations: not finite if any of them is not.
    sum: Tensor<B, 1>,
    near_ties: Option<Tensor<B, 1>>,
    /// `[rows, 1]`
    amplitudes: Option<Tensor<B, 2>>,
}

struct Tiles<B: Backend> {
    codes: Vec<Tensor<B, 2, Int>>,
    sums: Vec<Tensor<B, 1>>,
    near_ties: Vec<Tensor<B, 1>>,
    amplitudes: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Default for Tiles<B> {
    fn default() -> Self {
        Self {
            codes: Vec::new(),
            sums: Vec::new(),
            near_ties: Vec::new(),
            amplitudes: Vec::new(),
        }
    }
}

impl<B: Backend> Tiles<B> {
    fn read(self, rows: usize, tile_rows: usize, counted: bool) -> Result<Codes> {
        let mut transaction = Transaction::default()
            .register(Tensor::cat(self.codes, 0))
            .register(Tensor::cat(self.sums, 0));
        if counted {
            transaction = transaction.register(Tensor::cat(self.near_ties, 0));
        }
        if !self.amplitudes.is_empty() {
            transaction = transaction.register(Tensor::cat(self.amplitudes, 0));
        }
        let mut read = execute(transaction)?.into_iter();
        let codes: Vec<i32> = read
            .next()
            .map(|codes| codes.iter::<i32>().collect())
            .unwrap_or_default();
        let mut rest = floats(read.collect()).into_iter();
        let sums = rest.next().unwrap_or_default();
        if let Some(tile) = sums.iter().position(|sum| !sum.is_finite()) {
            let start = tile * tile_rows;
            return Err(Error::NonFinite {
                rows: start..rows.min(start + tile_rows),
            });
        }
        let near_ties = if counted { rest.next() } else { None };
        Ok(Codes {
            amplitudes: rest
                .next()
                .map(|amplitudes| amplitudes.iter().map(|&a| a as f32).collect()),
            inactive: codes.iter().filter(|code| **code == INACTIVE).count(),
            near_ties: near_ties.map(|counts| counts.iter().sum::<f64>() as usize),
            codes,
        })
    }
}
