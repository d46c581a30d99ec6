use std::ops::Range;

use anamnesis::{F32Out, GgufType, dequantize_gguf_blocks};
use circuitscope_files::{bf16_to_f32, f16_to_f32};
use rayon::prelude::*;

/// How llama.cpp's converter rewrote a tensor of the Hugging Face layout, to be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewritten {
    No,
    /// Rows of queries or keys: those of a head in the order 0, d/2, 1, d/2 + 1, …, so that the two
    /// entries that rotate together are neighbours.
    Interleaved {
        heads: usize,
    },
    /// Transposed (`Conv1D` of GPT-2).
    Transposed,
    /// 1 added (gains of Gemma's norms).
    PlusOne,
}

/// A tensor of a GGUF file.
#[derive(Debug)]
pub(crate) struct GgufTensor {
    pub(super) dtype: GgufType,
    pub(super) bytes: Range<usize>,
    /// As stored, row-major; a vector is one row.
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) rewritten: Rewritten,
}

/// Types that are read, in words.
const READABLE: &str =
    "F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ1_S to IQ4_XS, TQ1_0, TQ2_0 or MXFP4";

impl GgufTensor {
    /// Why the tensor cannot be read, if so.
    pub(crate) fn problem(&self) -> Option<String> {
        use GgufType as T;
        let readable = match self.dtype {
            // Intermediate results of llama.cpp's products, never weights; and one whose second scale is
            // another tensor.
            T::Q8_1 | T::Q8_K | T::NVFP4 | T::Q1_0 | T::Q2_0 => false,
            T::F32 | T::F16 | T::BF16 => true,
            other => other.is_quantized(),
        };
        if !readable {
            return Some(format!("type {}, expected {READABLE}", self.dtype));
        }
        let block = self.dtype.block_size();
        if !self.cols.is_multiple_of(block) {
            return Some(format!(
                "rows of {} numbers, expected a multiple of {}'s block of {block}",
                self.cols, self.dtype
            ));
        }
        if let Rewritten::Interleaved { heads } = self.rewritten
            && !self.rows.is_multiple_of(2 * heads)
        {
            return Some(format!(
                "{} rows, expected an even number for each of {heads} heads",
                self.rows
            ));
        }
        None
    }

    /// The bytes within the file.
    pub(crate) const fn bytes(&self) -> &Range<usize> {
        &self.bytes
    }

    /// Whether [`GgufTensor::values`] gives the transpose of what is wanted.
    pub(crate) fn is_transposed(&self) -> bool {
        self.rewritten == Rewritten::Transposed
    }

    /// Rows and columns as stored.
    pub(crate) const fn stored(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The numbers, in the order of the Hugging Face layout unless [`GgufTensor::is_transposed`].
    /// `data` are the bytes of the tensor.
    pub(crate) fn values(&self, data: &[u8]) -> Result<Vec<f32>, String> {
        let Self { rows, cols, .. } = *self;
        if rows == 0 || cols == 0 {
            return Ok(Vec::new());
        }
        let row_bytes = data.len() / rows;
        let mut values = vec![0.0; rows * cols];
        let least = 16_384_usize.div_ceil(cols);
        values
            .par_chunks_mut(cols)
            .with_min_len(least)
            .enumerate()
            .try_for_each(|(row, to)| {
                let from = self.stored_row(row) * row_bytes;
                decode(self.dtype, &data[from..from + row_bytes], to)
            })?;
        if self.rewritten == Rewritten::PlusOne {
            for value in &mut values {
                *value -= 1.0;
            }
        }
        Ok(values)
    }

    /// Where a row of the Hugging Face layout is stored.
    fn stored_row(&self, row: usize) -> usize {
        let Rewritten::Interleaved { heads } = self.rewritten else {
            return row;
        };
        let width = self.rows / heads;
        let (head, within) = (row / width, row % width);
        let (half, pair) = (within / (width / 2), within % (width / 2));
        head * width + 2 * pair + half
    }
}

/// Widens numbers to f32; blocks are taken apart as their format says.
fn decode(dtype: GgufType, data: &[u8], to: &mut [f32]) -> Result<(), String> {
    match dtype {
        GgufType::F32 => widen(data, f32::from_le_bytes, to),
        GgufType::F16 => widen(data, f16_to_f32, to),
        GgufType::BF16 => widen(data, bf16_to_f32, to),
        quantised => {
            let length = to.len();
            let mut slots = to.iter_mut();
            let sink = |block: &[u8]| {
                let (numbers, _) = block.as_chunks();
                for (number, slot) in numbers.iter().zip(&mut slots) {
                    *slot = f32::from_le_bytes(*number);
                }
                Ok(())
            };
            let done = dequantize_gguf_blocks::<F32Out, _>(data, quantised, length, sink);
            return done.map_err(|error| error.to_string());
        }
    }
    Ok(())
}

fn widen<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f32, to: &mut [f32]) {
    let (numbers, _) = data.as_chunks::<N>();
    for (slot, number) in to.iter_mut().zip(numbers) {
        *slot = read(*number);
    }
}
