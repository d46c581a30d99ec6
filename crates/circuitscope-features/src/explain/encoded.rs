//! Which features are active where.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Progress;
use circuitscope_hooks::{Reduce, Site};
use circuitscope_model::{Decoder, PaddedRows, PaddingSide, capture_sites};
use circuitscope_sae::Encoder;

use super::ExplainSettings;
use crate::splice::numbers;
use crate::{Error, Result, weight_shares};

/// `z` of all contexts, and where each row is of.
pub(super) struct Seen {
    pub(super) d: usize,
    /// `[positions, d]`
    pub(super) rows: Vec<f32>,
    /// Context and position.
    pub(super) places: Vec<(usize, usize)>,
}

impl Seen {
    /// Over all positions, `[d]`.
    pub(super) fn mean(&self) -> Vec<f32> {
        let mut sum = vec![0.0f64; self.d];
        for row in self.rows.chunks_exact(self.d) {
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
        }
        let count = self.places.len().max(1) as f64;
        sum.into_iter().map(|sum| (sum / count) as f32).collect()
    }

    pub(super) fn norm_share(&self, head: usize, heads: usize) -> f64 {
        let width = self.d / heads.max(1);
        let norm = |part: &[f32]| {
            part.iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let share = |row: &[f32]| {
            let norms: Vec<f64> = row.chunks(width).map(norm).collect();
            norms[head] / norms.iter().sum::<f64>().max(f64::MIN_POSITIVE)
        };
        let shares: f64 = self.rows.chunks(self.d).map(share).sum();
        shares / self.places.len().max(1) as f64
    }
}

pub(super) fn captured<B: Backend>(
    model: &Decoder<B>,
    layer: usize,
    contexts: &[Vec<u32>],
    how: &ExplainSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Seen> {
    let rows = PaddedRows::new(contexts.to_vec(), PaddingSide::Right)?;
    let site = Site::Z(layer);
    let seen = capture_sites(
        model,
        &rows,
        &[site],
        Reduce::None,
        how.batch_tokens,
        device,
        progress,
    );
    let mut seen = match seen {
        Err(circuitscope_model::Error::Cancelled) => return Err(Error::Cancelled),
        seen => seen?,
    };
    let values = seen.remove(&site).unwrap_or_default();
    let d: usize = values.shape[2..].iter().product();
    let pos = values.shape[1];
    let (mut kept, mut places) = (Vec::new(), Vec::new());
    for (context, tokens) in contexts.iter().enumerate() {
        for position in usize::from(how.skip_first)..tokens.len() {
            kept.extend_from_slice(&values.data[(context * pos + position) * d..][..d]);
            places.push((context, position));
        }
    }
    Ok(Seen {
        d,
        rows: kept,
        places,
    })
}

/// Rows that are encoded at a time.
const TILE: usize = 2048;

/// Which features are active where.
pub(super) struct Encoded<'z> {
    z: &'z Seen,
    /// For each feature the rows at which it is active, and how much.
    active: Vec<Vec<(usize, f32)>>,
    /// `[features, d]`
    atoms: Vec<f64>,
}

/// A feature, and the rows where it is strongest.
pub(super) struct Found {
    pub(super) feature: usize,
    pub(super) density: f64,
    /// Context, position, activation.
    pub(super) strongest: Vec<(usize, usize, f32)>,
}

impl<'z> Encoded<'z> {
    pub(super) fn of<B: Backend>(
        dictionary: &dyn Encoder<B>,
        z: &'z Seen,
        device: &B::Device,
    ) -> Result<Self> {
        let n = dictionary.n_codes();
        let mut active: Vec<Vec<(usize, f32)>> = vec![Vec::new(); n];
        for (tile, rows) in z.rows.chunks(TILE * z.d).enumerate() {
            let count = rows.len() / z.d;
            let x = Tensor::<B, 2>::from_data(TensorData::new(rows.to_vec(), [count, z.d]), device);
            let features = dictionary.encode(x).into_data();
            for (at, value) in features.iter::<f32>().enumerate() {
                if value > 0.0 {
                    active[at % n].push((tile * TILE + at / n, value));
                }
            }
        }
        let atoms = dictionary.atoms().map(numbers).transpose()?;
        Ok(Self {
            z,
            active,
            atoms: atoms.unwrap_or_default(),
        })
    }

    pub(super) const fn z(&self) -> &'z Seen {
        self.z
    }

    /// What a feature writes, `[d]`.
    pub(super) fn atom(&self, feature: usize) -> &[f64] {
        &self.atoms[feature * self.z.d..][..self.z.d]
    }

    /// Features that are active on so many positions.
    pub(super) fn alive(&self, least: usize) -> Vec<usize> {
        let often = |feature: &usize| self.active[*feature].len() >= least;
        (0..self.active.len()).filter(often).collect()
    }

    pub(super) fn active(&self) -> f64 {
        self.active.iter().map(Vec::len).sum::<usize>() as f64
    }

    /// Features that are most a head's by what they write, of those that are active often enough; the stronger first on ties.
    pub(super) fn of_head(&self, head: usize, heads: usize, how: &ExplainSettings) -> Vec<usize> {
        let strength = |feature: usize| {
            self.active[feature]
                .iter()
                .map(|(_, value)| *value)
                .fold(0.0, f32::max)
        };
        let often = self.alive(how.least_firings).into_iter();
        let mut ranked: Vec<(f64, f32, usize)> = often
            .map(|feature| {
                let share = weight_shares(self.atom(feature), heads)[head];
                (share, strength(feature), feature)
            })
            .collect();
        ranked.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then(b.1.total_cmp(&a.1))
                .then(a.2.cmp(&b.2))
        });
        ranked
            .into_iter()
            .take(how.features)
            .map(|(_, _, feature)| feature)
            .collect()
    }

    pub(super) fn strongest(&self, features: &[usize], count: usize) -> Vec<Found> {
        let found = features.iter().map(|&feature| {
            let mut rows = self.active[feature].clone();
            rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let place = |(row, value): &(usize, f32)| {
                let (context, position) = self.z.places[*row];
                (context, position, *value)
            };
            Found {
                feature,
                density: rows.len() as f64 / self.z.places.len().max(1) as f64,
                strongest: rows.iter().take(count).map(place).collect(),
            }
        });
        found.collect()
    }
}
