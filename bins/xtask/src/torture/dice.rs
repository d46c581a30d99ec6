//! Random choices of one try: all from one named sub-stream of the seed.

use std::ops::Range;

use circuitscope_core::{Seed, draw};
use rand_chacha::ChaCha8Rng;

/// Draws for one try.
#[derive(Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// Draws of the `index`-th try of the sub-stream `name`.
    pub(crate) fn new(seed: Seed, name: &str, index: u64) -> Self {
        Self(seed.nth(name, index).rng())
    }

    /// A number below `n`, or 0 where that is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            0
        } else {
            draw::below(&mut self.0, n)
        }
    }

    /// True in one of `n` tries.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A number from 0 up to, not including, 1.
    pub(crate) fn share(&mut self) -> f64 {
        draw::unit(&mut self.0)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        draw::below(&mut self.0, 256) as u8
    }

    /// One of `choices`, which are not empty.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// A range of one index to `longest` within `length`.
    pub(crate) fn range(&mut self, length: usize, longest: usize) -> Range<usize> {
        let start = self.below(length);
        let end = start + 1 + self.below(longest.min(length - start));
        start..end.min(length)
    }
}
