//! Numbers as files store them, widened to f32.

use circuitscope_files::{bf16_to_f32, f16_to_f32};
use safetensors::Dtype;

use crate::host::transpose;

/// Numbers one after the other, with rows and columns exchanged if so asked.
pub(crate) fn plain(data: &[u8], dtype: Dtype, exchanged: Option<[usize; 2]>) -> Vec<f32> {
    match (dtype, exchanged) {
        (Dtype::F16, None) => widened(data, f16_to_f32),
        (Dtype::BF16, None) => widened(data, bf16_to_f32),
        (_, None) => bytemuck::pod_collect_to_vec(data),
        (Dtype::F16, Some([rows, cols])) => transposed(data, rows, cols, f16_to_f32),
        (Dtype::BF16, Some([rows, cols])) => transposed(data, rows, cols, bf16_to_f32),
        (_, Some([rows, cols])) => transposed(data, rows, cols, f32::from_le_bytes),
    }
}

/// `[rows, cols]` as `[cols, rows]`.
pub(crate) fn exchange(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut to = vec![0.0; values.len()];
    transpose([rows, cols], |at| values[at], &mut to, rows, 0);
    to
}

fn widened(data: &[u8], widen: impl Fn([u8; 2]) -> f32) -> Vec<f32> {
    let (numbers, _) = data.as_chunks();
    numbers.iter().copied().map(widen).collect()
}

/// `[rows, cols]` numbers of `N` bytes as `[cols, rows]`.
fn transposed<const N: usize>(
    data: &[u8],
    rows: usize,
    cols: usize,
    decode: impl Fn([u8; N]) -> f32,
) -> Vec<f32> {
    let (numbers, _) = data.as_chunks::<N>();
    let mut to = vec![0.0; numbers.len()];
    transpose([rows, cols], |at| decode(numbers[at]), &mut to, rows, 0);
    to
}
