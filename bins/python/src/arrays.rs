//! numpy arrays in and out.

use circuitscope::hooks::HeadActivations;
use circuitscope::{HeadGrid, Polarity};
use numpy::{
    IntoPyArray as _, PyArray1, PyArrayDyn, PyArrayMethods as _, PyReadonlyArray1,
    PyReadonlyArrayDyn,
};
use pyo3::prelude::*;

use crate::work::refused;

/// Labels: one for each example, not 0 for those that show the behaviour.
pub(crate) fn labels(given: &PyReadonlyArray1<'_, bool>) -> Vec<Polarity> {
    given.as_array().iter().copied().map(Polarity::of).collect()
}

/// The shape of a model by that of an array, `[example, head, …]` or `[example, layer, head, …]`, and what is left of the
/// shape.
pub(crate) fn grid<'a>(
    shape: &'a [usize],
    rest: usize,
    n_layers: Option<usize>,
    what: &str,
) -> PyResult<(HeadGrid, &'a [usize])> {
    let (heads, end) = shape.split_at(shape.len().saturating_sub(rest));
    let grid = match (heads, n_layers) {
        ([_, heads], None) => HeadGrid::new(1, *heads),
        ([_, heads], Some(layers)) => {
            if layers == 0 || heads % layers != 0 {
                return Err(refused(format!(
                    "n_layers: found {layers}, expected a divisor of the {heads} heads of {what}"
                )));
            }
            HeadGrid::new(layers, heads / layers)
        }
        ([_, layers, heads], None) => HeadGrid::new(*layers, *heads),
        ([_, layers, heads], Some(found)) => {
            if found != *layers {
                return Err(refused(format!(
                    "n_layers: found {found}, expected {layers}, as {what} has, or none"
                )));
            }
            HeadGrid::new(*layers, *heads)
        }
        _ => {
            let (short, long) = match rest {
                0 => ("[example, head]", "[example, layer, head]"),
                _ => ("[example, head, d]", "[example, layer, head, d]"),
            };
            return Err(refused(format!(
                "{what}: found shape {shape:?}, expected {short} or {long}"
            )));
        }
    };
    if shape.contains(&0) {
        return Err(refused(format!(
            "{what}: found shape {shape:?}, expected no axis of length 0"
        )));
    }
    Ok((grid, end))
}

/// Head outputs with their labels; every value has to be finite. One copy is made: the work goes on where Python may change
/// the array.
pub(crate) fn head_outputs(
    outputs: &PyReadonlyArrayDyn<'_, f32>,
    labelled: &PyReadonlyArray1<'_, bool>,
    n_layers: Option<usize>,
) -> PyResult<HeadActivations> {
    const WHAT: &str = "head_outputs";
    let view = outputs.as_array();
    let (grid, d) = grid(view.shape(), 1, n_layers, WHAT)?;
    let labels = labels(labelled);
    check_examples(WHAT, view.shape(), labels.len())?;
    let data: Vec<f32> = match view.as_slice() {
        Some(data) => data.to_vec(),
        None => view.iter().copied().collect(),
    };
    if let Some(at) = data.iter().position(|value| !value.is_finite()) {
        let mut left = at;
        let mut index: Vec<usize> = Vec::new();
        for length in view.shape().iter().rev() {
            index.push(left % length);
            left /= length;
        }
        index.reverse();
        return Err(refused(format!(
            "{WHAT}{index:?}: found {}, expected finite numbers",
            data[at]
        )));
    }
    Ok(HeadActivations::new(grid, d[0], labels, data))
}

/// Fails unless there is a label for each example.
pub(crate) fn check_examples(what: &str, shape: &[usize], labels: usize) -> PyResult<()> {
    if shape[0] == labels {
        return Ok(());
    }
    let hint = if shape.get(1) == Some(&labels) {
        "; heads stand first, as stack_head_results gives them: swap the first two axes"
    } else {
        ""
    };
    Err(refused(format!(
        "labels: found {labels}, expected one for each of the {} examples of {what} (shape {shape:?}){hint}",
        shape[0]
    )))
}

/// An array of this shape.
pub(crate) fn shaped<'py, T: numpy::Element>(
    py: Python<'py>,
    data: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let flat: Bound<'py, PyArray1<T>> = data.into_pyarray(py);
    flat.reshape(shape.to_vec())
}
