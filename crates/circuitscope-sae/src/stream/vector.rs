//! Rows of numbers in the host's memory. All of it is inlined, to be compiled for the vector instructions of
//! whoever dispatches.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector instructions of its caller"
)]

/// Partial sums of [`dot`]: more than one vector register holds, so that additions do not wait for each other.
const LANES: usize = 32;

/// `Σ a b`.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_lanes.remainder().iter().zip(b_lanes.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a_lanes.zip(b_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `to += factor x`.
#[inline(always)]
pub(super) fn add(to: &mut [f32], factor: f32, x: &[f32]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to += factor * x;
    }
}

/// `x factor`, in place.
#[inline(always)]
pub(super) fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}
