//! What any dictionary does: vectors in, feature activations and codes out.

use core::fmt::Debug;
use core::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, Transaction};

use crate::read::{execute, floats};
use crate::{Error, Result};

pub use circuitscope_core::INACTIVE;

/// How [`Encoder::encode_codes`] works.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct EncodeConfig {
    /// Rows encoded at a time. Default 8192. It bounds the memory (see
    /// [`encode_codes`](Encoder::encode_codes)) and changes no result.
    pub tile_rows: usize,
    /// Count the vectors whose two largest [strengths](Encoder::strengths) `f₁ ≥ f₂` differ by at most
    /// this share of the larger: `f₁ > 0` and `f₁ − f₂ ≤ tolerance · f₁`. Default: do not count.
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

/// What [`Encoder::encode_codes`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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

/// What features read: see [`Encoder::reads`].
#[derive(Debug, Clone)]
pub struct Reads<B: Backend> {
    /// `[d_in, n_codes]`, one column for each feature.
    pub weight: Tensor<B, 2>,
    /// `[n_codes]`
    pub bias: Tensor<B, 1>,
}

impl<B: Backend> Reads<B> {
    /// `x · weight + bias`, `[rows, n_codes]`.
    pub fn apply(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x.matmul(self.weight.clone()) + self.bias.clone().unsqueeze_dim(0)
    }
}

/// A dictionary: it turns vectors into feature activations, and a vector into the integer code that is its
/// strongest feature.
///
/// Every architecture of this crate is one, and so is whatever another crate brings: an encoder says how
/// wide its vectors are, how many features it has and what they make of vectors; codes come of that.
///
/// # Symbols
/// `rows`: number of vectors; `d_in`: [their width](Self::d_in); `n_codes`: [number of
/// features](Self::n_codes).
///
/// # Examples
/// Directions of the axes, both ways.
///
/// ```
/// use burn::tensor::activation::relu;
/// use burn::tensor::{Tensor, backend::Backend};
/// use circuitscope_sae::Encoder;
///
/// #[derive(Debug)]
/// struct Axes(usize);
///
/// impl<B: Backend> Encoder<B> for Axes {
///     fn d_in(&self) -> usize {
///         self.0
///     }
///     fn n_codes(&self) -> usize {
///         2 * self.0
///     }
///     fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
///         relu(Tensor::cat(vec![x.clone(), -x], 1))
///     }
/// }
///
/// type B = burn_flex::Flex;
/// let x = Tensor::<B, 2>::from_floats([[3.0, 1.0], [1.0, -3.0], [0.0, 0.0]], &Default::default());
/// assert_eq!(Encoder::<B>::codes(&Axes(2), x.clone())?, [0, 3, -1]);
/// assert_eq!(Encoder::<B>::inactive(&Axes(2), x)?, [false, false, true]);
/// # Ok::<(), circuitscope_sae::Error>(())
/// ```
pub trait Encoder<B: Backend>: Debug + Send + Sync {
    /// Width of the vectors that are encoded.
    fn d_in(&self) -> usize;

    /// Width of what features write: that of the input, except of transcoders, which make another activation of it.
    fn d_out(&self) -> usize {
        self.d_in()
    }

    /// Number of features, and so of codes beside [`INACTIVE`]; at most 2³¹ − 1.
    fn n_codes(&self) -> usize;

    /// Feature activations: 0 where a feature is not active, above 0 where it is.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`, finite
    /// - returns `[rows, n_codes]`
    ///
    /// # Panics
    /// May panic if `x` has another width.
    fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2>;

    /// What codes are read from. The largest entry of a row, where it is above 0, is the activation of the row's
    /// strongest feature; a row on which no feature is active has no entry above 0. Other entries may differ
    /// from the activations.
    ///
    /// By default the activations themselves. Architectures for which something cheaper tells as much have that.
    ///
    /// # Shapes
    /// As [`encode`](Self::encode).
    ///
    /// # Panics
    /// As [`encode`](Self::encode).
    fn strengths(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.encode(x)
    }

    /// What features write, whatever activations they have: a feature is ablated by writing without it. `x` are the
    /// vectors that were encoded: a normalisation is taken back with their scale, and a transcoder may pass them on.
    /// `None` where features write nothing.
    ///
    /// # Shapes
    /// - `features`: `[rows, n_codes]`
    /// - `x`: `[rows, d_in]`
    /// - returns `[rows, d_out]`
    ///
    /// # Panics
    /// May panic if one has another width.
    fn decode(&self, features: Tensor<B, 2>, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        let _ = (features, x);
        None
    }

    /// What the features make of the vectors; `None` where features write nothing.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`
    /// - returns `[rows, d_out]`
    ///
    /// # Panics
    /// As [`encode`](Self::encode).
    fn reconstruct(&self, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        self.decode(self.encode(x.clone()), x)
    }

    /// The map that activations are of, where one is: a feature that is active has the activation
    /// `x · weight + bias`. What a feature reads of parts of `x` is read off it. `None` where a vector is normalised
    /// by its own length before.
    fn reads(&self) -> Option<Reads<B>> {
        None
    }

    /// What an activation of 1 of each feature adds to a reconstruction, `[n_codes, d_out]`; before what a
    /// normalisation of the input takes back ([`Normalisation`](crate::Normalisation)). `None` where
    /// features write nothing.
    fn atoms(&self) -> Option<Tensor<B, 2>> {
        None
    }

    /// What is added to what features write beside a constant, whatever features are active: `x · skipᵀ`, the `W_skip`
    /// `[d_out, d_in]` of skip transcoders. `None` where there is no such map.
    fn skip(&self) -> Option<Tensor<B, 2>> {
        None
    }

    /// L2 norms of the [atoms](Self::atoms), `[n_codes]`.
    fn decoder_norms(&self) -> Option<Tensor<B, 1>> {
        let atoms = self.atoms()?;
        let squares = (atoms.clone() * atoms).sum_dim(1);
        Some(squares.sqrt().squeeze_dim(1))
    }

    /// The code of every row: the index of its strongest feature, the first one on exact ties,
    /// [`INACTIVE`] where none is active.
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
    /// use circuitscope_sae::{Encoder as _, SparseAutoencoder};
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
    fn codes(&self, x: Tensor<B, 2>) -> Result<Vec<i32>> {
        Ok(self.encode_codes(x, &EncodeConfig::default())?.codes)
    }

    /// Whether no feature is active on a row, one for each.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`
    ///
    /// # Errors
    /// As [`encode_codes`](Self::encode_codes).
    fn inactive(&self, x: Tensor<B, 2>) -> Result<Vec<bool>> {
        let codes = self.codes(x)?.into_iter();
        Ok(codes.map(|code| code == INACTIVE).collect())
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
    /// One `[tile_rows, d_in]` and about four `[tile_rows, n_codes]` matrices.
    fn encode_codes(&self, x: Tensor<B, 2>, config: &EncodeConfig) -> Result<Codes> {
        let tiles = config.tiles(self.d_in(), x.dims())?;
        let mut read = Tiles::default();
        for rows in tiles.clone() {
            let x = x.clone().slice_dim(0, rows);
            let strengths = self.strengths(x.clone());
            read.push(Tile::of(&x, strengths, config));
        }
        read.read(&tiles, config)
    }
}

impl EncodeConfig {
    /// Rows `[rows, width]` in tiles.
    fn tiles(&self, d_in: usize, [rows, width]: [usize; 2]) -> Result<Vec<Range<usize>>> {
        if self.tile_rows == 0 {
            return Err(Error::Config {
                field: "tile_rows",
                found: self.tile_rows.to_string(),
                expected: "at least 1",
            });
        }
        if let Some(tolerance) = self.near_tie_tolerance
            && !(0.0..1.0).contains(&tolerance)
        {
            return Err(Error::Config {
                field: "near_tie_tolerance",
                found: tolerance.to_string(),
                expected: "a number in [0, 1)",
            });
        }
        if width != d_in {
            return Err(Error::Width {
                expected: d_in,
                found: width,
            });
        }
        let starts = (0..rows).step_by(self.tile_rows);
        let tile = |start: usize| start..rows.min(start.saturating_add(self.tile_rows));
        Ok(starts.map(tile).collect())
    }
}

/// One tile, still on the device.
struct Tile<B: Backend> {
    /// `[rows, 1]`
    codes: Tensor<B, 2, Int>,
    /// Of all that codes are read from: not finite if any of it is not.
    sum: Tensor<B, 1>,
    near_ties: Option<Tensor<B, 1>>,
    /// `[rows, 1]`
    amplitudes: Option<Tensor<B, 2>>,
}

impl<B: Backend> Tile<B> {
    fn of(x: &Tensor<B, 2>, strengths: Tensor<B, 2>, config: &EncodeConfig) -> Self {
        // Not the strengths alone: an activation function may turn NaN into 0.
        let sum = x.clone().sum() + strengths.clone().sum();
        // All of burn's backends take the first of equal values here; a test holds them to it.
        let (largest, index) = strengths.clone().max_dim_with_indices(1);
        let near_ties = config.near_tie_tolerance.map(|tolerance| {
            let [_, n_codes] = strengths.dims();
            let features = Tensor::<B, 1, Int>::arange(0..n_codes as i64, &strengths.device())
                .unsqueeze_dim::<2>(0);
            let rest = strengths
                .mask_fill(index.clone().equal(features), f32::NEG_INFINITY)
                .max_dim(1);
            let near = (largest.clone() - rest)
                .lower_equal(largest.clone().mul_scalar(tolerance))
                .bool_and(largest.clone().greater_elem(0.0));
            near.float().sum()
        });
        Self {
            amplitudes: config.amplitudes.then(|| largest.clone().clamp_min(0.0)),
            codes: index.mask_fill(largest.lower_equal_elem(0.0), INACTIVE),
            sum,
            near_ties,
        }
    }
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
    fn push(&mut self, tile: Tile<B>) {
        self.codes.push(tile.codes);
        self.sums.push(tile.sum);
        self.near_ties.extend(tile.near_ties);
        self.amplitudes.extend(tile.amplitudes);
    }

    /// Reads back all tiles, which hold these rows.
    fn read(self, tiles: &[Range<usize>], config: &EncodeConfig) -> Result<Codes> {
        let counted = config.near_tie_tolerance.is_some();
        if tiles.is_empty() {
            return Ok(Codes {
                codes: Vec::new(),
                inactive: 0,
                near_ties: counted.then_some(0),
                amplitudes: config.amplitudes.then(Vec::new),
            });
        }
        let mut transaction = Transaction::default()
            .register(Tensor::cat(self.codes, 0))
            .register(Tensor::cat(self.sums, 0));
        if counted {
            transaction = transaction.register(Tensor::cat(self.near_ties, 0));
        }
        if config.amplitudes {
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
            return Err(Error::NonFinite {
                rows: tiles[tile].clone(),
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
