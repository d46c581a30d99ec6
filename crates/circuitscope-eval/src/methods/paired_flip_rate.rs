use burn::tensor::backend::Backend;
use circuitscope_core::{HeadGrid, Progress, Seed};
use circuitscope_measures::Scores;
use circuitscope_score::paired_flip_rate;

use super::sae::Sae;
use crate::encodings::{Encoded, SaeSettings};
use crate::{About, Discover, Error, Evidence, Measured, Needs, Passes, Result};

/// What is known of it.
pub(super) static ABOUT: About =
    About::new(NAME, "share of prompt pairs in which the code changes")
        .control()
        .quick()
        .without_null()
        .needs(Needs::codes().and_pairs(), Passes::None);

/// Control: the share of matched pairs in which a head's code changes between the positive and the
/// negative prompt. It needs no count of distinct codes, so it tells how much of the method's score
/// is the pairing alone.
///
/// Codes come from the same trained dictionary as method `sae-corrected` with the same seed. It is
/// trained once for both: where `sae-corrected` ran before on the same evidence, the time of this
/// control is that of counting alone. A pair of heads scores the share of prompt pairs in which both
/// codes change.
#[derive(Debug, Clone)]
pub struct PairedFlipRate {
    sae: Sae,
}

impl PairedFlipRate {
    /// With this dictionary.
    pub const fn new(settings: SaeSettings) -> Self {
        Self {
            sae: Sae::corrected(settings),
        }
    }
}

const NAME: &str = "paired-flip-rate";

impl<B: Backend> Discover<B> for PairedFlipRate {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        if evidence.pairs().is_empty() {
            return Err(Error::Unpaired {
                method: NAME.to_owned(),
            });
        }
        let encoded = self.sae.encode(evidence, &[seed], progress)?.swap_remove(0);
        Ok(Box::new(move |rows: Option<&[usize]>| {
            let pairs = match rows {
                None => evidence.pairs().to_vec(),
                Some(rows) => evidence.sampled_pairs(rows),
            };
            flip_scores(evidence.grid(), &encoded, &pairs)
        }))
    }
}

fn flip_scores<B: Backend>(
    grid: HeadGrid,
    encoded: &Encoded<B>,
    pairs: &[(usize, usize)],
) -> Result<Scores> {
    let nodes = paired_flip_rate(&encoded.table, pairs)?;
    let heads = grid.len();
    let codes = encoded.table.codes();
    let flips = |head: usize, &(positive, negative): &(usize, usize)| {
        codes[positive * heads + head] != codes[negative * heads + head]
    };
    let mut scores = Scores::of_nodes(grid, nodes).with_edges(|source, destination| {
        let both = pairs
            .iter()
            .filter(|pair| flips(source, pair) && flips(destination, pair))
            .count();
        both as f64 / pairs.len() as f64
    });
    scores.dictionary = Some(encoded.report());
    Ok(scores)
}
