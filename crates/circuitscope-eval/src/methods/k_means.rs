use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Progress, Seed, draw};
use circuitscope_score::CodeTable;

use super::coded::{Coded, place, unique_codes, unique_counts};
use crate::causal::{host, values};
use crate::encodings::SaeSettings;
use crate::{About, Discover, Error, Evidence, Measured, Needs, Passes, Result};

/// What is known of it.
pub(super) static ABOUT: About = About::new(
    "k-means",
    "codes seen on positives only, codes from k-means",
)
.control()
.quick()
.needs(Needs::codes(), Passes::None);

/// Control: codes from k-means instead of an autoencoder, scored as in the paper. Tells what the
/// autoencoder adds to any cutting up of the space of head outputs.
///
/// As many centres as the dictionary has features, found on as many examples, drawn from stream
/// `k-means/examples`: k-means++ starts (Arthur and Vassilvitskii 2007) from stream `k-means/centres`,
/// then Lloyd's iterations until no vector changes its centre, at most 50. Every vector's
/// code is its nearest centre.
///
/// # Complexity
/// `O(iterations · train_examples · heads · d · n_codes)`.
#[derive(Debug, Clone)]
pub struct KMeans {
    settings: SaeSettings,
}

/// Lloyd's iterations at most.
const ITERATIONS: usize = 50;

impl KMeans {
    /// With as many centres and examples as these dictionaries have.
    #[must_use]
    pub const fn new(settings: SaeSettings) -> Self {
        Self { settings }
    }
}

/// Index of the nearest centre of each row: arg-min of `‖c‖² − 2 x·c`.
fn nearest<B: Backend>(x: &Tensor<B, 2>, centres: &Tensor<B, 2>) -> Result<Vec<i32>> {
    let norms = centres.clone().powi_scalar(2).sum_dim(1).transpose();
    let products = x.clone().matmul(centres.clone().transpose());
    let best = (norms - products.mul_scalar(2.0))
        .argmin(1)
        .squeeze_dim::<1>(1);
    values(best.into_data())
}

/// Starts of k-means++: each next one drawn with probability proportional to the squared distance to
/// those before.
fn starts(rows: &[&[f32]], k: usize, seed: Seed) -> Vec<usize> {
    let mut rng = seed.stream("k-means/centres").rng();
    let distance = |a: &[f32], b: &[f32]| -> f64 {
        let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum()
    };
    let mut chosen = vec![draw::index(&mut rng, rows.len())];
    let mut gaps: Vec<f64> = rows
        .iter()
        .map(|row| distance(row, rows[chosen[0]]))
        .collect();
    while chosen.len() < k {
        let total: f64 = gaps.iter().sum();
        // All vectors are centres already.
        let Some(next) = drawn(&gaps, draw::unit(&mut rng) * total) else {
            break;
        };
        for (gap, row) in gaps.iter_mut().zip(rows) {
            *gap = gap.min(distance(row, rows[next]));
        }
        chosen.push(next);
    }
    chosen
}

/// The first vector at which the sum of the gaps is above `point`. Where rounding leaves none, the last one that has
/// a gap; `None` where none has.
fn drawn(gaps: &[f64], point: f64) -> Option<usize> {
    let mut left = point;
    let reached = gaps.iter().position(|gap| {
        left -= gap;
        left < 0.0
    });
    reached.or_else(|| gaps.iter().rposition(|gap| *gap > 0.0))
}

/// Centres of some vectors, `[k, d]`; fewer where there are not as many different vectors.
fn centres<B: Backend>(
    x: &Tensor<B, 2>,
    k: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Tensor<B, 2>> {
    let [_, d] = x.dims();
    let data = host(x.clone())?;
    let rows: Vec<&[f32]> = data.chunks(d).collect();
    let mut centres: Vec<f32> = starts(&rows, k, seed)
        .into_iter()
        .flat_map(|row| rows[row].to_vec())
        .collect();
    let count = centres.len() / d;
    let tensor = |values: &Vec<f32>| {
        Tensor::from_data(TensorData::new(values.clone(), [count, d]), &x.device())
    };
    let mut codes = Vec::new();
    for _ in 0..ITERATIONS {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let next = nearest(x, &tensor(&centres))?;
        if next == codes {
            break;
        }
        codes = next;
        let mut sums = vec![0.0f64; count * d];
        let mut members = vec![0u32; count];
        for (row, &code) in rows.iter().zip(&codes) {
            let code = code as usize;
            members[code] += 1;
            for (sum, &value) in sums[code * d..(code + 1) * d].iter_mut().zip(*row) {
                *sum += f64::from(value);
            }
        }
        for (at, centre) in centres.iter_mut().enumerate() {
            // A centre that lost all its vectors stays where it is.
            if members[at / d] > 0 {
                *centre = (sums[at] / f64::from(members[at / d])) as f32;
            }
        }
    }
    Ok(tensor(&centres))
}

/// The cluster of each row, of `k` that k-means finds.
pub(crate) fn clusters_of<B: Backend>(
    x: &Tensor<B, 2>,
    k: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<i32>> {
    nearest(x, &centres(x, k, seed, progress)?)
}

impl<B: Backend> Discover<B> for KMeans {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let settings = &self.settings;
        let examples = evidence.labels().len();
        if examples < settings.train_examples {
            return Err(Error::TooFewExamples {
                what: "examples to find centres on",
                found: examples,
                expected: settings.train_examples,
            });
        }
        let mut rng = seed.stream("k-means/examples").rng();
        let chosen = draw::sample(&mut rng, examples, settings.train_examples);
        let centres = centres(&evidence.rows(&chosen)?, settings.n_codes, seed, progress)?;
        let (heads, d) = (evidence.grid().len(), evidence.d());
        let mut codes = vec![0; examples * heads];
        evidence.for_each_block(progress, |rows, x| {
            let found = nearest(&x.reshape([rows.len() * heads, d]), &centres)?;
            place(&mut codes, rows, &found);
            Ok(())
        })?;
        let table = CodeTable::new(evidence.grid(), evidence.labels().to_vec(), codes)?;
        Ok(Box::new(Coded {
            tables: vec![table],
            score: |tables: &[CodeTable]| unique_codes(&tables[0]),
            nodes: |tables: &[CodeTable]| unique_counts(&tables[0]),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};
    use circuitscope_core::NoProgress;

    #[test]
    fn separate_clouds_get_a_centre_each() {
        let clouds = [[0.0f32, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let mut data = Vec::new();
        for at in 0..30 {
            let [x, y] = clouds[at % 3];
            let shift = (at / 3) as f32 * 0.1;
            data.extend([x + shift, y - shift]);
        }
        let x = Tensor::<Flex, 2>::from_data(TensorData::new(data, [30, 2]), &FlexDevice);
        let centres = centres(&x, 3, Seed::new(1), &NoProgress).unwrap();
        let codes = nearest(&x, &centres).unwrap();
        for at in 0..30 {
            assert_eq!(codes[at], codes[at % 3]);
        }
        let found = host(centres).unwrap();
        for [x, y] in clouds {
            let near = found
                .chunks(2)
                .any(|c| (c[0] - x - 0.45).abs() < 1e-4 && (c[1] - y + 0.45).abs() < 1e-4);
            assert!(near, "{found:?}");
        }
    }

    #[test]
    fn rounding_does_not_end_the_draw() {
        assert_eq!(drawn(&[0.0, 0.1, 0.2, 0.0], 0.05), Some(1));
        assert_eq!(drawn(&[0.0, 0.1, 0.2, 0.0], 0.15), Some(2));
        // As far as the gaps reach, and further.
        for point in [0.1 + 0.2, 0.5] {
            assert_eq!(drawn(&[0.0, 0.1, 0.2, 0.0], point), Some(2));
        }
        assert_eq!(drawn(&[0.0, 0.0], 0.0), None);
    }

    #[test]
    fn equal_vectors_share_one_centre() {
        let x = Tensor::<Flex, 2>::ones([5, 3], &FlexDevice);
        assert_eq!(
            centres(&x, 4, Seed::new(0), &NoProgress).unwrap().dims(),
            [1, 3]
        );
    }
}
