//! What files that hold something for each example and each head of a model have in common.

use crate::{Metadata, Reader, Result};

/// Tensor `[examples]`, bool, u8, i32 or i64: 1 positive, 0 negative.
pub const LABELS: &str = "labels";
/// Metadata: number of layers.
pub const N_LAYERS: &str = "n_layers";
/// Metadata: number of heads in each layer.
pub const N_HEADS: &str = "n_heads";

/// Metadata that says how many layers and heads there are, beside whatever else it says.
///
/// ```
/// use circuitscope_files::{Metadata, by_head};
///
/// let metadata = by_head::metadata(4, 8, Metadata::new());
/// assert_eq!(metadata["n_layers"], 4);
/// ```
#[must_use]
pub fn metadata(n_layers: usize, n_heads: usize, mut others: Metadata) -> Metadata {
    others.insert(N_LAYERS.to_owned(), n_layers.into());
    others.insert(N_HEADS.to_owned(), n_heads.into());
    others
}

/// Numbers of layers and of heads in each, whose product is a number.
///
/// # Errors
/// A key that is missing or no number, and numbers that are too large.
pub fn layers_and_heads(file: &Reader) -> Result<[usize; 2]> {
    let [n_layers, n_heads] = [file.number(N_LAYERS)?, file.number(N_HEADS)?];
    match n_layers.checked_mul(n_heads) {
        Some(_) => Ok([n_layers, n_heads]),
        None => Err(file.wrong_metadata(N_HEADS, n_heads.to_string(), "a number of heads")),
    }
}

/// One label for each of `examples`: whether it is positive. `of` is the tensor that has as many.
///
/// # Errors
/// A tensor that is missing or has another type or shape, and what is neither 0 nor 1.
pub fn are_positive(file: &Reader, examples: usize, of: &str) -> Result<Vec<bool>> {
    let tensor = file.tensor(LABELS)?;
    let [found] = tensor.axes(["examples"])?;
    if found != examples {
        let expected = format!("{examples}, one for each example of `{of}`");
        return Err(tensor.wrong(format!("{found} labels"), expected));
    }
    let labels = tensor.whole_numbers()?.into_iter().enumerate();
    labels
        .map(|(at, label)| match label {
            0 => Ok(false),
            1 => Ok(true),
            other => {
                let found = format!("{other} at example {at}");
                Err(tensor.wrong(found, "1 (positive) or 0 (negative)"))
            }
        })
        .collect()
}
