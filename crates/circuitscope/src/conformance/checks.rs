//! What is compared, and how.

use serde::{Deserialize, Serialize};

use super::record::Values;
use super::{ACTIVATION_TOLERANCE, LOSS_TOLERANCE};

/// How a device compares with the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Conformance {
    /// In the order of computation.
    pub checks: Vec<Check>,
    /// Codes of the record whose two largest features are nearly equal, and which may therefore
    /// differ.
    pub near_ties: usize,
}

impl Conformance {
    /// Whether everything is within its tolerance.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// The first thing that is not.
    pub fn first_failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.passed)
    }

    /// The check with a tolerance that comes nearest to it, or exceeds it most; `None` if nothing
    /// differs at all.
    pub fn tightest(&self) -> Option<&Check> {
        let used = |check: &Check| check.difference / check.tolerance;
        self.checks
            .iter()
            .filter(|check| check.tolerance > 0.0 && check.difference > 0.0)
            .max_by(|a, b| used(a).total_cmp(&used(b)))
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Check {
    /// What is compared: a site, or a result.
    pub name: String,
    /// Largest difference; for codes, how many differ without a near-tie.
    pub difference: f64,
    /// Largest difference allowed.
    pub tolerance: f64,
    /// Whether it is allowed. Values that are not numbers never are.
    pub passed: bool,
    /// Where the difference is largest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub worst: Option<Worst>,
}

/// Where two results differ most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Worst {
    /// Position in the tensor; its first axis runs over prompts.
    pub index: Vec<usize>,
    /// What the device computed.
    pub found: f64,
    /// What the record says.
    pub expected: f64,
}

impl Check {
    pub(super) fn absolute(name: &str, expected: &Values, found: &Values) -> Self {
        let magnitude = expected
            .data
            .iter()
            .fold(1.0f64, |most, x| most.max(f64::from(x.abs())));
        let tolerance = ACTIVATION_TOLERANCE * magnitude;
        Self::within(name, expected, found, tolerance, |_| 1.0)
    }

    pub(super) fn loss(expected: &[f32], found: &[f32]) -> Self {
        let values = |data: &[f32]| Values {
            shape: vec![data.len()],
            data: data.to_vec(),
        };
        let (expected, found) = (values(expected), values(found));
        Self::within("training loss", &expected, &found, LOSS_TOLERANCE, |x| {
            f64::from(x.abs()).max(f64::MIN_POSITIVE)
        })
    }

    /// Differences are divided by `unit` of the expected value.
    pub(super) fn within(
        name: &str,
        expected: &Values,
        found: &Values,
        tolerance: f64,
        unit: impl Fn(f32) -> f64,
    ) -> Self {
        let mut check = Self {
            name: name.to_owned(),
            difference: 0.0,
            tolerance,
            passed: expected.shape == found.shape,
            worst: None,
        };
        for (at, (&expected_value, &value)) in expected.data.iter().zip(&found.data).enumerate() {
            let difference = f64::from(value) - f64::from(expected_value);
            let difference = difference.abs() / unit(expected_value);
            if difference.is_nan() || difference > tolerance {
                check.passed = false;
            }
            if check.worst.is_none() || difference > check.difference || difference.is_nan() {
                check.difference = if difference.is_nan() {
                    f64::INFINITY
                } else {
                    difference
                };
                check.worst = Some(Worst {
                    index: unravel(at, &expected.shape),
                    found: f64::from(value),
                    expected: f64::from(expected_value),
                });
            }
        }
        check
    }
}

fn unravel(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let here = at % size.max(1);
            at /= size.max(1);
            here
        })
        .collect();
    index.reverse();
    index
}
