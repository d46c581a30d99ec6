//! The logits that a graph explains.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_hooks::wide;

use super::build::GraphSettings;
use super::direct::Target;
use crate::frozen::floats;
use crate::{Error, Frozen, Result};

/// Which logits a graph explains.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Targets {
    /// The most likely next tokens, at most so many, each with its probability as weight. Ties go to the smaller token.
    Top(usize),
    /// These tokens, each with its probability as weight.
    Tokens(Vec<u32>),
    /// The mean logit of the first less that of the second, with weight 1.
    Difference(Vec<u32>, Vec<u32>),
}

/// A weighted sum of logits, less the mean of all logits where weights do not sum to 0 and there is more than one logit.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitTarget {
    /// Tokens and their weights.
    pub tokens: Vec<(u32, f64)>,
    /// What it counts among the targets: the probability of the token, or 1.
    pub weight: f64,
}

impl LogitTarget {
    /// The sum, of all logits of a position: of what they were before a soft cap, where the model has one.
    pub(super) fn value(&self, logits: &[f32], cap: Option<f64>) -> f64 {
        let uncapped = |logit: f32| match cap {
            Some(cap) => cap * (f64::from(logit) / cap).atanh(),
            None => f64::from(logit),
        };
        let own = |(token, weight): &(u32, f64)| weight * uncapped(logits[*token as usize]);
        let value: f64 = self.tokens.iter().map(own).sum();
        match self.centred(logits.len()) {
            Some(sum) => {
                let all: f64 = logits.iter().map(|logit| uncapped(*logit)).sum();
                value - sum * all / logits.len() as f64
            }
            None => value,
        }
    }

    /// The sum of the weights, where the mean of all logits is taken off.
    fn centred(&self, logits: usize) -> Option<f64> {
        let sum: f64 = self.tokens.iter().map(|(_, weight)| weight).sum();
        (logits > 1 && sum.abs() > 1e-12).then_some(sum)
    }
}

/// The targets, what they are, and their values.
pub(super) fn targets<B: Backend>(
    frozen: &Frozen<'_, B>,
    settings: &GraphSettings,
) -> Result<Vec<(Target<B>, LogitTarget, f64)>> {
    let config = frozen.model.config();
    let position = settings.position.unwrap_or(frozen.pos - 1);
    let logits = frozen.logits(position)?;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |logit: &f32| f64::from(logit - largest).exp();
    let total: f64 = logits.iter().map(exp).sum();
    let check = |token: u32| match logits.get(token as usize) {
        Some(logit) => Ok(*logit),
        None => Err(Error::Unfit {
            what: "target token".to_owned(),
            found: token.to_string(),
            expected: format!("less than the {} logits of the model", logits.len()),
        }),
    };
    let one = |token: u32| {
        Ok(LogitTarget {
            tokens: vec![(token, 1.0)],
            weight: exp(&check(token)?) / total,
        })
    };
    let chosen: Vec<LogitTarget> = match &settings.targets {
        Targets::Top(count) => {
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            order.truncate(*count);
            order.into_iter().map(one).collect::<Result<_>>()?
        }
        Targets::Tokens(tokens) => tokens.iter().copied().map(one).collect::<Result<_>>()?,
        Targets::Difference(right, wrong) => {
            let mut tokens = Vec::new();
            for (side, sign) in [(right, 1.0), (wrong, -1.0)] {
                for token in side {
                    check(*token)?;
                    tokens.push((*token, sign / side.len() as f64));
                }
            }
            let empty = right.is_empty() || wrong.is_empty();
            let target = LogitTarget {
                tokens,
                weight: 1.0,
            };
            if empty { Vec::new() } else { vec![target] }
        }
    };
    if chosen.is_empty() {
        return Err(Error::Unfit {
            what: "targets of a graph".to_owned(),
            found: "no token".to_owned(),
            expected: "at least one, and on both sides of a difference".to_owned(),
        });
    }
    let w_u = wide(frozen.model.w_u());
    let b_u = match frozen.model.b_u() {
        Some(b_u) => floats(b_u)?,
        None => vec![0.0; logits.len()],
    };
    let count = logits.len() as f64;
    let chosen = chosen.into_iter().map(|target| {
        let mut u: Tensor<B, 2> = Tensor::zeros([config.d_model, 1], &w_u.device());
        let mut bias = 0.0;
        for (token, weight) in &target.tokens {
            let at = *token as usize;
            u = u + w_u.clone().slice_dim(1, at..at + 1).mul_scalar(*weight);
            bias += weight * f64::from(b_u[at]);
        }
        if let Some(sum) = target.centred(logits.len()) {
            u = u - w_u.clone().mean_dim(1).mul_scalar(sum);
            bias -= sum * b_u.iter().map(|b| f64::from(*b)).sum::<f64>() / count;
        }
        let u = u.squeeze_dim(1);
        let value = target.value(&logits, config.output_logits_soft_cap);
        (Target::Logits { position, u, bias }, target, value)
    });
    Ok(chosen.collect())
}
