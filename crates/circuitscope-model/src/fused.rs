//! What lies between matrix products, in one pass over memory, where the device computes in the host's.
//!
//! burn's CPU backends make a pass, and a new buffer, for every operation. There a tensor's memory can be taken,
//! changed in place and put back without a copy. Where gradients are recorded, in half precision, and where
//! [`Exec::fused`](circuitscope_core::Exec) does not ask for it, the same steps are made of burn's operations: callers
//! ask [`applies`] first.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector instructions of its caller"
)]

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use pulp::Arch;
use rayon::prelude::*;

use crate::config::Activation;
use crate::rotary::Rotation;

/// Values that one task changes: enough to be worth its start.
const TASK: usize = 1 << 16;

/// Whether the functions of this module are to take `x`: if so asked (`fused`), and if they may.
pub(crate) fn applies<B: Backend, const D: usize>(fused: bool, x: &Tensor<B, D>) -> bool {
    fused && x.dtype() == DType::F32 && !B::ad_enabled(&x.device())
}

/// The values of a vector on the host.
fn vector<B: Backend>(x: Tensor<B, 1>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// The values of a tensor that [`applies`] lets through.
fn floats(data: &TensorData) -> &[f32] {
    let Ok(values) = data.as_slice::<f32>() else {
        unreachable!("`applies` lets only f32 through")
    };
    values
}

/// Changes every row of `width` values in place. `change` gets the number of the row, too.
fn rows<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    width: usize,
    change: impl Fn(usize, &mut [f32]) + Sync,
) -> Tensor<B, D> {
    let device = x.device();
    let mut data = x.into_data();
    let Ok(values) = data.as_mut_slice::<f32>() else {
        unreachable!("`applies` lets only f32 through")
    };
    if let Some(together) = TASK.checked_div(width) {
        let arch = Arch::new();
        let together = together.max(1);
        let tasks = values.par_chunks_mut(together * width).enumerate();
        tasks.for_each(|(task, values)| {
            // Compiled for each set of vector instructions; the best that there is runs.
            arch.dispatch(
                #[inline(always)]
                || {
                    for (at, row) in values.chunks_exact_mut(width).enumerate() {
                        change(task * together + at, row);
                    }
                },
            );
        });
    }
    Tensor::from_data(data, &device)
}

/// `change(x + b)`, `b` added to every row.
fn biased<B: Backend>(
    x: Tensor<B, 3>,
    b: Tensor<B, 1>,
    change: impl Fn(f32) -> f32 + Sync,
) -> Tensor<B, 3> {
    let b = vector(b);
    rows(
        x,
        b.len(),
        #[inline(always)]
        |_, row| {
            for (x, b) in row.iter_mut().zip(&b) {
                *x = change(*x + b);
            }
        },
    )
}

/// `x + b`, `b` added to every row.
pub(crate) fn add_bias<B: Backend>(x: Tensor<B, 3>, b: Tensor<B, 1>) -> Tensor<B, 3> {
    // Families without biases have zeros.
    if vector(b.clone()).iter().all(|b| *b == 0.0) {
        return x;
    }
    biased(
        x,
        b,
        #[inline(always)]
        |y| y,
    )
}

#[inline(always)]
fn gelu_tanh(y: f32) -> f32 {
    /// `√(2/π)`, doubled: GELU's tanh as a logistic function.
    const SLOPE: f32 = 2.0 * core::f32::consts::FRAC_2_SQRT_PI * core::f32::consts::FRAC_1_SQRT_2;
    y * logistic(SLOPE * y * (1.0 + 0.044_715 * y * y))
}

#[inline(always)]
fn silu(y: f32) -> f32 {
    y * logistic(y)
}

#[inline(always)]
fn relu(y: f32) -> f32 {
    y.max(0.0)
}

/// `activation(x + b)`.
///
/// # Panics
/// For the exact GELU, whose error function stays burn's.
pub(crate) fn bias_activation<B: Backend>(
    x: Tensor<B, 3>,
    b: Tensor<B, 1>,
    activation: Activation,
) -> Tensor<B, 3> {
    match activation {
        Activation::GeluTanh => biased(x, b, gelu_tanh),
        Activation::Silu => biased(x, b, silu),
        Activation::Relu => biased(x, b, relu),
        Activation::GeluExact => unreachable!("the exact GELU is not fused"),
    }
}

/// `activation(x + b) ⊙ (y + c)`: what a gated MLP makes of its two products.
///
/// # Panics
/// As [`bias_activation`].
pub(crate) fn gated<B: Backend>(
    [x, y]: [Tensor<B, 3>; 2],
    [b, c]: [Tensor<B, 1>; 2],
    activation: Activation,
) -> Tensor<B, 3> {
    match activation {
        Activation::GeluTanh => gated_by(x, y, b, c, gelu_tanh),
        Activation::Silu => gated_by(x, y, b, c, silu),
        Activation::Relu => gated_by(x, y, b, c, relu),
        Activation::GeluExact => unreachable!("the exact GELU is not fused"),
    }
}

fn gated_by<B: Backend>(
    x: Tensor<B, 3>,
    y: Tensor<B, 3>,
    b: Tensor<B, 1>,
    c: Tensor<B, 1>,
    activation: impl Fn(f32) -> f32 + Sync,
) -> Tensor<B, 3> {
    let (b, c) = (vector(b), vector(c));
    let width = b.len();
    let y = y.into_data();
    let y = floats(&y);
    rows(
        x,
        width,
        #[inline(always)]
        |at, row| {
            let y = &y[at * width..(at + 1) * width];
            for (((x, b), y), c) in row.iter_mut().zip(&b).zip(y).zip(&c) {
                *x = activation(*x + b) * (y + c);
            }
        },
    )
}

/// What a product made of queries, keys and values, apart and head by head: biases added, queries and
/// keys rotated.
///
/// # Shapes
/// - `x`: `[batch, pos, width]`, the heads of all parts side by side
/// - `b`: `[width]`
/// - `parts`: how many heads each has, and whether they are rotated
/// - results: `[batch, heads, pos, d_head]` for each part
pub(crate) fn by_head<B: Backend>(
    x: Tensor<B, 3>,
    b: Tensor<B, 1>,
    d_head: usize,
    parts: &[(usize, bool)],
    rotation: Option<&Rotation<B>>,
) -> Vec<Tensor<B, 4>> {
    let device = x.device();
    let [batch, pos, width] = x.dims();
    let b = vector(b);
    let x = x.into_data();
    let x = floats(&x);
    let arch = Arch::new();
    let mut from = 0;
    let part = |&(heads, rotated): &(usize, bool)| {
        let columns = from..from + heads * d_head;
        from = columns.end;
        let rotation = rotation.filter(|_| rotated);
        let size = heads * pos * d_head;
        let mut out = vec![0.0f32; batch * size];
        if let Some(together) = TASK.checked_div(size) {
            let together = together.max(1);
            let tasks = out.par_chunks_mut(together * size).enumerate();
            tasks.for_each(|(task, out)| {
                arch.dispatch(
                    #[inline(always)]
                    || {
                        for (at, out) in out.chunks_exact_mut(d_head).enumerate() {
                            // Row (batch, head, position).
                            let row = task * together + at / (heads * pos);
                            let (head, position) = (at / pos % heads, at % pos);
                            let token = row * pos + position;
                            let first = columns.start + head * d_head;
                            let x = &x[token * width + first..][..d_head];
                            let b = &b[first..][..d_head];
                            for ((out, x), b) in out.iter_mut().zip(x).zip(b) {
                                *out = x + b;
                            }
                            if let Some(rotation) = rotation {
                                rotation.turn(row, position, out);
                            }
                        }
                    },
                );
            });
        }
        Tensor::from_data(TensorData::new(out, [batch, heads, pos, d_head]), &device)
    };
    parts.iter().map(part).collect()
}

/// Rows less their mean, if `centre`, over the root of their mean square, times the gain, plus the bias.
pub(crate) fn normalise<B: Backend>(
    x: Tensor<B, 3>,
    eps: f64,
    centre: bool,
    gain: Option<Tensor<B, 1>>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    let [_, _, width] = x.dims();
    let gain = gain.map_or_else(|| vec![1.0; width], vector);
    let bias = bias.map_or_else(|| vec![0.0; width], vector);
    let eps = eps as f32;
    rows(
        // The residual stream is held elsewhere, too: this copies it, which ndarray else does value by value.
        x.mul_scalar(1.0),
        width,
        #[inline(always)]
        |_, row| {
            let scale = centred_scale(row, eps, centre);
            for ((x, gain), bias) in row.iter_mut().zip(&gain).zip(&bias) {
                *x = *x / scale * gain + bias;
            }
        },
    )
}

/// Takes its mean off a row, if `centre`, and gives the root of its mean square.
#[inline(always)]
fn centred_scale(row: &mut [f32], eps: f32, centre: bool) -> f32 {
    let count = row.len() as f32;
    if centre {
        let mean = sum(row, |x| x) / count;
        for x in row.iter_mut() {
            *x -= mean;
        }
    }
    (sum(row, |x| x * x) / count + eps).sqrt()
}

/// Gradients with respect to the input of a norm, from several gradients with respect to its output: see
/// [`norm_gradient`](crate::norm::norm_gradient).
///
/// # Shapes
/// - `x`: `[batch, pos, width]`
/// - `gradient`: `[n, batch * pos, width]`
/// - result: `[batch, n, pos, width]`
pub(crate) fn norm_gradient<B: Backend>(
    x: Tensor<B, 3>,
    eps: f64,
    centre: bool,
    gain: Option<Tensor<B, 1>>,
    gradient: Tensor<B, 3>,
) -> Tensor<B, 4> {
    let device = x.device();
    let [batch, pos, width] = x.dims();
    let [count, _, _] = gradient.dims();
    let gain = gain.map_or_else(|| vec![1.0; width], vector);
    let (x, gradient) = (x.into_data(), gradient.into_data());
    let (x, gradient) = (floats(&x), floats(&gradient));
    let mut out = vec![0.0f32; batch * count * pos * width];
    let size = (count * pos * width).max(1);
    let arch = Arch::new();
    out.par_chunks_mut(size).enumerate().for_each(|(row, out)| {
        arch.dispatch(
            #[inline(always)]
            || {
                let mut normalised = vec![0.0f32; width];
                for position in 0..pos {
                    let token = row * pos + position;
                    normalised.copy_from_slice(&x[token * width..][..width]);
                    let scale = centred_scale(&mut normalised, eps as f32, centre);
                    for x in &mut normalised {
                        *x /= scale;
                    }
                    for at in 0..count {
                        let from = &gradient[(at * batch * pos + token) * width..][..width];
                        let to = &mut out[(at * pos + position) * width..][..width];
                        for ((to, from), gain) in to.iter_mut().zip(from).zip(&gain) {
                            *to = from * gain;
                        }
                        let level = if centre {
                            sum(to, |v| v) / width as f32
                        } else {
                            0.0
                        };
                        let along = product(to, &normalised) / width as f32;
                        for (to, x) in to.iter_mut().zip(&normalised) {
                            *to = (*to - level - x * along) / scale;
                        }
                    }
                }
            },
        );
    });
    Tensor::from_data(TensorData::new(out, [batch, count, pos, width]), &device)
}

/// Attention from scores: `scale` times them, blocked ones left out, softmax over keys.
///
/// # Shapes
/// - `scores` and the result: `[batch, heads, q_pos, k_pos]`
/// - `blocked`: `[batch or 1, 1, q_pos, k_pos]`; empty if nothing is
pub(crate) fn attend<B: Backend>(
    scores: Tensor<B, 4>,
    scale: f32,
    blocked: &[bool],
) -> Tensor<B, 4> {
    let [_, heads, queries, keys] = scores.dims();
    rows(
        scores,
        keys,
        #[inline(always)]
        |at, row| {
            let mut largest = f32::NEG_INFINITY;
            if blocked.is_empty() {
                for x in row.iter_mut() {
                    *x *= scale;
                    largest = largest.max(*x);
                }
            } else {
                // Row (batch, head, query); the flags have no heads, and may have one batch for all.
                let query = at / (heads * queries) * queries + at % queries;
                let start = query * keys % blocked.len();
                for (x, blocked) in row.iter_mut().zip(&blocked[start..start + keys]) {
                    *x = if *blocked {
                        f32::NEG_INFINITY
                    } else {
                        *x * scale
                    };
                    largest = largest.max(*x);
                }
            }
            for x in row.iter_mut() {
                *x = exp(*x - largest);
            }
            let share = 1.0 / sum(row, |x| x);
            for x in row.iter_mut() {
                *x *= share;
            }
        },
    )
}

/// The sum of `f` over a row, in sixteen running sums: the same on every processor.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (sixteens, rest) = row.as_chunks::<16>();
    for chunk in sixteens {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f(*x);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| f(*x)).sum::<f32>()
}

/// The inner product of two rows, in sixteen running sums.
#[inline(always)]
fn product(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `eˣ` without a branch or a call, so that loops over it are vectorised: `2ⁿ eʳ` with `n` the nearest whole number
/// to `x / ln 2`, and Taylor's series to the seventh power for `|r| ≤ ½ ln 2`. Within two units in the last
/// place; 0 below −87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// `ln 2` in two parts, the first with few bits, so that its products with `n` are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Adding 1.5 · 2²³ leaves a whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let in_range = x.clamp(-87.0, 88.0);
    let shifted = in_range * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = in_range - n * LN_2[0] - n * LN_2[1];
    let mut series = 1.0 / 5040.0;
    for factor in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * r + factor;
    }
    let whole = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(whole.wrapping_add(127) << 23);
    let value = series * power;
    if x < -87.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::{add_bias, applies, attend, bias_activation, by_head, exp, gated, normalise};
    use crate::batch::TokenBatch;
    use crate::config::{Activation, RopeScaling, Rotary, RotaryPairs};
    use crate::rotary::Rotation;
    use crate::rows::PaddingSide;
    use burn::tensor::activation::{gelu, relu, silu, softmax};
    use burn::tensor::{Tensor, TensorData};
    use burn_flex::{Flex, FlexDevice};

    #[test]
    fn the_exponential_is_right_within_two_units_in_the_last_place() {
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            let unit = expected * f64::from(f32::EPSILON);
            assert!(
                (found - expected).abs() <= 2.0 * unit,
                "{x}: {found} {expected}"
            );
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    fn values(shape: [usize; 3]) -> Tensor<Flex, 3> {
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|at| ((at * 7919) % 1009) as f32 / 100.0 - 5.0);
        Tensor::from_data(TensorData::new(values.collect(), shape), &FlexDevice)
    }

    fn close<const D: usize>(found: &Tensor<Flex, D>, expected: &Tensor<Flex, D>) {
        let numbers = |x: &Tensor<Flex, D>| x.to_data().to_vec::<f32>().unwrap();
        for (found, expected) in numbers(found).into_iter().zip(numbers(expected)) {
            assert!(
                (found - expected).abs() <= 2e-6 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
    }

    /// Wide enough that there are several tasks, and no multiple of sixteen.
    const SHAPE: [usize; 3] = [3, 41, 1003];

    #[test]
    fn steps_are_those_of_burn() {
        let x = values(SHAPE);
        assert!(applies(true, &x));
        assert!(!applies(false, &x));
        let b: Tensor<Flex, 1> = values([1, 1, SHAPE[2]]).reshape([SHAPE[2]]);
        let biased = x.clone() + b.clone().unsqueeze();
        close(&add_bias(x.clone(), b.clone()), &biased);
        let of = |activation| bias_activation(x.clone(), b.clone(), activation);
        close(&of(Activation::Relu), &relu(biased.clone()));
        close(&of(Activation::Silu), &silu(biased.clone()));
        let expected = Activation::GeluTanh.apply(biased.clone());
        close(&of(Activation::GeluTanh), &expected);
        let y = x.clone().mul_scalar(-0.3);
        let sum = y.clone() + b.clone().unsqueeze();
        let of = gated([x.clone(), y], [b.clone(), b.clone()], Activation::Silu);
        close(&of, &(silu(biased.clone()) * sum));
        let none = Tensor::zeros([SHAPE[2]], &FlexDevice);
        close(&add_bias(x.clone(), none), &x);
        // The two forms of GELU are not the same.
        let exact = gelu(biased.clone()).sub(expected).abs().max().into_scalar();
        assert!(exact > 1e-4);
        // Nothing that others hold was changed.
        close(&x, &values(SHAPE));
    }

    #[test]
    fn norms_are_those_of_burn() {
        let x = values(SHAPE);
        let w: Tensor<Flex, 1> = values([1, 1, SHAPE[2]]).reshape([SHAPE[2]]);
        let centred = x.clone() - x.clone().mean_dim(2);
        for (centre, of) in [(true, centred), (false, x.clone())] {
            let scale = (of.clone() * of.clone())
                .mean_dim(2)
                .add_scalar(1e-5)
                .sqrt();
            let expected = of / scale;
            close(&normalise(x.clone(), 1e-5, centre, None, None), &expected);
            let expected = expected * w.clone().unsqueeze() + w.clone().unsqueeze();
            let (gain, bias) = (Some(w.clone()), Some(w.clone()));
            close(&normalise(x.clone(), 1e-5, centre, gain, bias), &expected);
        }
    }

    #[test]
    fn heads_are_those_of_burn() {
        let prompts = [vec![1, 2, 3, 4, 5], vec![1, 2, 3]];
        let batch = TokenBatch::<Flex>::new(&prompts, PaddingSide::Left, &FlexDevice).unwrap();
        let (d_head, parts) = (10, [(4, true), (2, true), (2, false)]);
        let x = values([2, 5, 80]);
        let b: Tensor<Flex, 1> = values([1, 1, 80]).reshape([80]);
        let whole = x.clone() + b.clone().unsqueeze();
        for pairs in [RotaryPairs::Halves, RotaryPairs::Adjacent] {
            let rotary = Rotary {
                dim: 6,
                base: 100.0,
                pairs,
                scaling: RopeScaling::None,
            };
            for rotation in [None, Some(Rotation::new(rotary, &batch))] {
                let found = by_head(x.clone(), b.clone(), d_head, &parts, rotation.as_ref());
                let mut from = 0;
                for (found, (heads, rotated)) in found.iter().zip(parts) {
                    let part = whole.clone().slice_dim(2, from..from + heads * d_head);
                    let part = part.reshape([2, 5, heads, d_head]);
                    let part = match rotation.as_ref().filter(|_| rotated) {
                        Some(rotation) => rotation.apply(part),
                        None => part,
                    };
                    close(found, &part.swap_dims(1, 2));
                    from += heads * d_head;
                }
            }
        }
    }

    #[test]
    fn attention_is_that_of_burn() {
        let (batch, heads, pos) = (2, 3, 19);
        let x = values([batch, heads, pos * pos]).reshape([batch, heads, pos, pos]);
        let scaled = x.clone().mul_scalar(0.25);
        close(&attend(x.clone(), 0.25, &[]), &softmax(scaled.clone(), 3));
        for batches in [1, batch] {
            let flag = |at: usize| at % pos > at / pos % pos || (at * 31).is_multiple_of(17);
            let count = batches * pos * pos;
            // Every query may attend to itself.
            let own = |at: usize| at % pos == at / pos % pos;
            let flags: Vec<bool> = (0..count).map(|at| flag(at) && !own(at)).collect();
            let mask = TensorData::new(flags.clone(), [batches, 1, pos, pos]);
            let mask = Tensor::<Flex, 4, burn::tensor::Bool>::from_data(mask, &FlexDevice);
            let mask = mask.expand([batch, heads, pos, pos]);
            let expected = scaled.clone().mask_fill(mask, f32::NEG_INFINITY);
            let found = attend(x.clone(), 0.25, &flags);
            close(&found, &softmax(expected, 3));
        }
    }
}
