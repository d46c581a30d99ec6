use burn::tensor::backend::Backend;
use circuitscope_core::Seed;
use circuitscope_core::draw::{normal_pair, unit};
use rand::Rng;

use crate::autoencoder::HostWeights;
use crate::{Dictionary, Result, SaeConfig, SparseAutoencoder};

impl SaeConfig {
    /// An untrained autoencoder: the one that [`train`](crate::train) starts from with the same
    /// seed, and so the *untrained dictionary* control.
    ///
    /// Weights are drawn from a standard normal distribution and normalised as
    /// [`dictionary`](Self::dictionary) says; `b_enc` is uniform in ±1/√`d_in`; `b_dec` is zero.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if a setting is out of range.
    ///
    /// # Determinism
    /// Everything is drawn and normalised on the host, so that every backend starts from the same
    /// numbers. The streams of `seed` are `sae/w_enc`, `sae/w_dec` and `sae/b_enc`; weights are
    /// drawn in the order of PyTorch's layout (`[out, in]`, row by row). The draws do not depend on
    /// `dictionary`.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_sae::SaeConfig;
    ///
    /// type B = burn_flex::Flex;
    /// let device = Default::default();
    /// let sae = SaeConfig::new(16).with_d_sae(8).init::<B>(Seed::new(0), &device)?;
    /// assert_eq!(sae.w_enc.dims(), [16, 8]);
    /// # Ok::<(), circuitscope_sae::Error>(())
    /// ```
    pub fn init<B: Backend>(&self, seed: Seed, device: &B::Device) -> Result<SparseAutoencoder<B>> {
        self.validate()?;
        Ok(SparseAutoencoder::from_host(&draw(self, seed), device))
    }
}

/// Draws the initial parameters; see [`SaeConfig::init`].
fn draw(config: &SaeConfig, seed: Seed) -> HostWeights {
    let SaeConfig {
        d_in,
        d_sae,
        dictionary,
        ..
    } = *config;
    let mut rng = seed.stream("sae/w_enc").rng();
    let mut encoder = normals(&mut rng, d_sae * d_in); // [d_sae, d_in]
    normalise_rows(&mut encoder, d_in);

    let mut rng = seed.stream("sae/w_dec").rng();
    let mut decoder = normals(&mut rng, d_in * d_sae); // [d_in, d_sae]
    let w_dec = match dictionary {
        Dictionary::PaperCompatible => {
            normalise_rows(&mut decoder, d_sae);
            transposed(&decoder, d_in, d_sae)
        }
        Dictionary::UnitNormAtoms => {
            let mut atoms = transposed(&decoder, d_in, d_sae);
            normalise_rows(&mut atoms, d_in);
            atoms
        }
    };

    let mut rng = seed.stream("sae/b_enc").rng();
    let bound = 1.0 / (d_in as f64).sqrt();
    let b_enc = (0..d_sae)
        .map(|_| bound * (2.0 * unit(&mut rng) - 1.0))
        .collect::<Vec<_>>();
    HostWeights {
        d_in,
        d_sae,
        w_enc: narrow(&transposed(&encoder, d_sae, d_in)),
        w_dec: narrow(&w_dec),
        b_enc: narrow(&b_enc),
        b_dec: vec![0.0; d_in],
    }
}

/// `count` standard normal numbers, both of each pair used.
pub(crate) fn normals(rng: &mut impl Rng, count: usize) -> Vec<f64> {
    let mut numbers = Vec::with_capacity(count + 1);
    while numbers.len() < count {
        numbers.extend(normal_pair(rng));
    }
    numbers.truncate(count);
    numbers
}

/// Divides every row of `width` numbers by its L2 norm.
pub(crate) fn normalise_rows(matrix: &mut [f64], width: usize) {
    for row in matrix.chunks_exact_mut(width) {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        for x in row {
            *x /= norm;
        }
    }
}

/// The transpose of a `[rows, columns]` matrix.
pub(crate) fn transposed<T: Copy>(matrix: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut transposed = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        transposed.extend((0..rows).map(|row| matrix[row * columns + column]));
    }
    transposed
}

pub(crate) fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes() {
        assert_eq!(
            transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
    }

    #[test]
    fn biases_start_in_their_range() {
        let config = SaeConfig::new(25).with_d_sae(4000);
        let host = draw(&config, Seed::new(1));
        assert!(host.b_enc.iter().all(|b| b.abs() <= 0.2));
        assert!(host.b_enc.iter().any(|b| *b > 0.19) && host.b_enc.iter().any(|b| *b < -0.19));
        assert!(host.b_dec.iter().all(|b| *b == 0.0));
    }

    /// The encoder is the same for both dictionaries, and the decoders are the same draws.
    #[test]
    fn dictionaries_share_their_draws() {
        let config = SaeConfig::new(6).with_d_sae(4);
        let paper = draw(&config, Seed::new(2));
        let atoms = draw(
            &config.with_dictionary(Dictionary::UnitNormAtoms),
            Seed::new(2),
        );
        assert_eq!(paper.w_enc, atoms.w_enc);
        assert_eq!(paper.b_enc, atoms.b_enc);
        assert_ne!(paper.w_dec, atoms.w_dec);
        let signs = |w: &[f32]| w.iter().map(|x| *x > 0.0).collect::<Vec<_>>();
        assert_eq!(signs(&paper.w_dec), signs(&atoms.w_dec));
    }
}
