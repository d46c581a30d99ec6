use core::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_hooks::StreamOutputs;

use super::PairBatch;

/// For each token of a positive prompt, the token of its negative one that it corresponds to: what is
/// patched there is read here.
///
/// Where a span of the positive prompt is longer than its counterpart, the ends of both correspond, token
/// by token from the last one back, and the tokens left over to the counterpart's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// Positions in the negative prompt.
    places: Vec<usize>,
    /// Tokens of the negative prompt.
    negative: usize,
}

impl Alignment {
    /// Around the one span in which two prompts differ: their longest common beginning and, of the rest,
    /// their longest common end correspond. Nothing where they have neither, or where the negative
    /// prompt has no token for the positive's span.
    #[must_use]
    pub fn around_one_span(positive: &[u32], negative: &[u32]) -> Option<Self> {
        let shortest = positive.len().min(negative.len());
        // Of a repeated token that both prompts end in, the last one belongs to the end.
        let last = usize::from(shortest > 0 && positive.last() == negative.last());
        let same = positive.iter().zip(negative).take(shortest - last);
        let before = same.take_while(|(a, b)| a == b).count();
        let rest = shortest - before;
        let ends = positive.iter().rev().zip(negative.iter().rev());
        let after = ends.take(rest).take_while(|(a, b)| a == b).count();
        if before + after == 0 {
            return None;
        }
        let span = before..positive.len() - after;
        let counterpart = before..negative.len() - after;
        Self::of_spans((positive.len(), negative.len()), &[(span, counterpart)])
    }

    /// By spans that correspond, in order; the tokens between them, before the first and after the last
    /// correspond one to one. Nothing where those differ in number, where spans are not in order, or
    /// where a span has no counterpart.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_eval::causal::Alignment;
    ///
    /// // A name of three tokens against one of two.
    /// let aligned = Alignment::of_spans((6, 5), &[(1..4, 1..3)]).unwrap();
    /// assert_eq!(aligned.places(), [0, 1, 1, 2, 3, 4]);
    /// assert_eq!(Alignment::of_spans((6, 6), &[(1..4, 1..3)]), None);
    /// ```
    #[must_use]
    pub fn of_spans(
        (positive, negative): (usize, usize),
        spans: &[(Range<usize>, Range<usize>)],
    ) -> Option<Self> {
        let mut places = Vec::with_capacity(positive);
        let (mut here, mut there) = (0, 0);
        let end = (positive..positive, negative..negative);
        for (span, counterpart) in spans.iter().chain([&end]) {
            let between = span.start.checked_sub(here)?;
            if counterpart.start.checked_sub(there)? != between {
                return None;
            }
            places.extend(there..counterpart.start);
            if span.end < span.start || counterpart.end < counterpart.start {
                return None;
            }
            if counterpart.is_empty() && !span.is_empty() {
                return None;
            }
            for at in span.clone() {
                let from_end = span.end - at;
                places.push(
                    counterpart
                        .end
                        .saturating_sub(from_end)
                        .max(counterpart.start),
                );
            }
            (here, there) = (span.end, counterpart.end);
        }
        let fits = places.len() == positive && places.iter().all(|place| *place < negative);
        fits.then_some(Self { places, negative })
    }

    /// For each token of the positive prompt, its position in the negative one.
    #[must_use]
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// Whether it is for prompts of these lengths.
    pub(crate) const fn fits(&self, positive: usize, negative: usize) -> bool {
        self.places.len() == positive && self.negative == negative
    }
}

impl<B: Backend> PairBatch<B> {
    /// What a run on the negative prompts gave, at the positions of the positive ones.
    ///
    /// # Shapes
    /// - `x`: `[prompts, pos of the negatives, ..]`
    /// - result: `[prompts, pos of the positives, ..]`
    #[must_use]
    pub fn at_positive<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let Some(places) = &self.places else {
            return x;
        };
        let mut dims = x.dims();
        let rows = dims[0] * dims[1];
        let width = x.shape().num_elements() / rows;
        let gathered = x.reshape([rows, width]).select(0, places.clone());
        dims[1] = places.dims()[0] / dims[0];
        gathered.reshape(dims)
    }

    /// [`at_positive`](Self::at_positive) of all that writers put out.
    #[must_use]
    pub fn outputs_at_positive(&self, outputs: StreamOutputs<B>) -> StreamOutputs<B> {
        if self.places.is_none() {
            return outputs;
        }
        let all = |tensors: Vec<Tensor<B, 3>>| {
            let tensors = tensors.into_iter();
            tensors.map(|x| self.at_positive(x)).collect()
        };
        StreamOutputs {
            input: self.at_positive(outputs.input),
            heads: outputs
                .heads
                .into_iter()
                .map(|x| self.at_positive(x))
                .collect(),
            mlps: all(outputs.mlps),
            attn_in: all(outputs.attn_in),
            mlp_in: all(outputs.mlp_in),
            last: self.at_positive(outputs.last),
        }
    }
}

/// Positions in a batch of negatives, rows laid end to end, for each position of the positives; nothing
/// where all correspond to themselves. Padding corresponds to the first position.
pub(super) fn places<B: Backend>(
    aligned: &[Option<&Alignment>],
    positives: usize,
    negatives: usize,
    device: &B::Device,
) -> Option<Tensor<B, 1, Int>> {
    if aligned.iter().all(Option::is_none) {
        return None;
    }
    let mut indices = Vec::with_capacity(aligned.len() * positives);
    for (row, aligned) in aligned.iter().enumerate() {
        for at in 0..positives {
            let place = match aligned {
                Some(aligned) => aligned.places.get(at).copied().unwrap_or(0),
                None if at < negatives => at,
                None => 0,
            };
            indices.push((row * negatives + place) as i64);
        }
    }
    let count = indices.len();
    Some(Tensor::from_data(TensorData::new(indices, [count]), device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_span_is_what_differs() {
        let places = |positive: &[u32], negative: &[u32]| {
            Alignment::around_one_span(positive, negative).map(|aligned| aligned.places)
        };
        // One token against two, and the other way round.
        assert_eq!(places(&[1, 2, 3], &[1, 8, 9, 3]), Some(vec![0, 2, 3]));
        assert_eq!(places(&[1, 8, 9, 3], &[1, 2, 3]), Some(vec![0, 1, 1, 2]));
        // Tokens that only the negative has are nobody's counterpart.
        assert_eq!(places(&[1, 3], &[1, 8, 3]), Some(vec![0, 2]));
        // Repeated tokens belong to the beginning or to the end, not to both.
        assert_eq!(places(&[1, 1], &[1, 1, 1]), Some(vec![0, 2]));
        // What only the positive has, has no counterpart.
        assert_eq!(places(&[1, 8, 3], &[1, 3]), None);
        assert_eq!(places(&[1, 2], &[3, 4, 5]), None);
        assert_eq!(places(&[1, 2, 3], &[1, 5, 3]), Some(vec![0, 1, 2]));
    }

    #[test]
    fn spans_must_fit_what_is_between_them() {
        let aligned = Alignment::of_spans((7, 8), &[(1..2, 1..3), (4..6, 5..7)]).unwrap();
        assert_eq!(aligned.places(), [0, 2, 3, 4, 5, 6, 7]);
        assert!(aligned.fits(7, 8) && !aligned.fits(8, 7));
        let between = Alignment::of_spans((7, 8), &[(1..2, 1..3), (4..6, 4..7)]);
        assert_eq!(between, None);
        let order = Alignment::of_spans((7, 7), &[(4..6, 4..6), (1..2, 1..2)]);
        assert_eq!(order, None);
        assert_eq!(Alignment::of_spans((3, 2), &[(1..2, 1..1)]), None);
        assert_eq!(Alignment::of_spans((3, 3), &[(1..9, 1..2)]), None);
    }
}
