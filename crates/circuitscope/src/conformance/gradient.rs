//! Gradients against differences of values.
//!
//! Gradient methods rest on kernels that no forward pass runs. The reference model is differentiated with
//! respect to what the heads of each layer put out before their projection, and the result along one
//! direction is compared with what the output really does when the heads are moved that way.

use std::collections::BTreeMap;

use burn::module::{AutodiffModule as _, Module as _};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Exec, Seed, draw};
use circuitscope_hooks::{
    AnyTensor, Capture, Gradients, Intervene, Intervention, NoTap, Op, Reduce, Site, Tap,
};
use circuitscope_model::{Decoder, LoadSettings, PaddingSide, Processing, TokenBatch};

use super::record::{Values, prompts};
use super::{Check, Error, Worst};
use crate::load_reference;

/// Largest difference allowed, relative to the length of the gradient.
pub const GRADIENT_TOLERANCE: f64 = 1e-3;

/// Name of the check that compares reciprocals with division: what backward passes through divisions are made
/// of.
pub const RECIPROCAL: &str = "reciprocal";

/// Largest difference allowed, relative: what gradients may be off. Some processors have an instruction of 12
/// bits (at most 3.7e-4), which burn's `ndarray` takes: gradients there are as far off.
pub const RECIPROCAL_TOLERANCE: f64 = GRADIENT_TOLERANCE;

/// How far the heads are moved, relative to the length of what they put out.
const STEP: f64 = 0.003;

/// Compares gradients with central differences, layer by layer, the last layer first, as they are computed.
///
/// What is differentiated is the logit of each prompt's most likely next token less that of the runner-up,
/// summed over prompts. The direction is the gradient's own plus a random one of the same length: the first
/// makes the number large against rounding, the second sees components that are wrong or missing. The
/// difference is `[8 (f(h) − f(−h)) − (f(2h) − f(−2h))] / 12h`.
///
/// `device` is where values are computed and `differentiating` where gradients are: for burn's dispatch backend
/// an autodiff device, for every other backend the same.
///
/// # Errors
/// If the device cannot do the work at all.
///
/// ```
/// use burn::backend::Autodiff;
/// use burn_flex::{Flex, FlexDevice};
/// use circuitscope::conformance::check_gradients;
///
/// let exec = circuitscope::Exec::all_cores();
/// let checks = check_gradients::<Autodiff<Flex>>(&FlexDevice, &FlexDevice, exec)?;
/// assert!(checks.iter().all(|check| check.passed), "{checks:?}");
/// # Ok::<(), circuitscope::conformance::Error>(())
/// ```
pub fn check_gradients<B: AutodiffBackend>(
    device: &B::Device,
    differentiating: &B::Device,
    exec: Exec,
) -> Result<Vec<Check>, Error> {
    check_gradients_with::<B, _>(device, differentiating, exec, NoTap)
}

/// The same with a tap in the pass that is differentiated, and not in those that give the differences: shows
/// that a wrong gradient is noticed.
///
/// # Errors
/// As [`check_gradients`].
pub fn check_gradients_with<B: AutodiffBackend, T: Tap<B>>(
    device: &B::Device,
    differentiating: &B::Device,
    exec: Exec,
    fault: T,
) -> Result<Vec<Check>, Error> {
    let settings = LoadSettings::from(Processing::Folded).with_exec(exec);
    let loaded = load_reference::<B::InnerBackend>(settings, device)?;
    let tokenizer = loaded.tokenizer().map_err(crate::Error::from)?;
    let texts = prompts()?;
    let tokens = texts.iter().map(|text| tokenizer.encode(text, true));
    let tokens = tokens.collect::<Result<Vec<_>, _>>();
    let tokens = tokens.map_err(crate::Error::from)?;
    let batch = TokenBatch::<B::InnerBackend>::new(&tokens, PaddingSide::Right, device);
    let values = Outputs {
        model: loaded.model,
        batch: batch.map_err(crate::Error::from)?,
    };
    let mut capture = Capture::new((0..values.layers()).map(Site::Z));
    let contrast = contrast(values.logits(&mut capture)?);
    let outputs = capture.finish().map_err(circuitscope_model::Error::from);
    let outputs = outputs.map_err(crate::Error::from)?;

    let batch = TokenBatch::<B>::new(&tokens, PaddingSide::Right, differentiating);
    let batch = batch.map_err(crate::Error::from)?;
    let model = Decoder::<B>::from_inner(values.model.clone()).no_grad();
    let gradients = gradients(&model, &batch, &contrast, fault, differentiating)?;
    let mut rng = Seed::new(0).stream("conformance/gradient").rng();
    let layers = (0..values.layers()).rev().map(|layer| {
        let site = Site::Z(layer);
        let (Some(output), Some(gradient)) = (outputs.get(&site), gradients.get(&site)) else {
            unreachable!("both were captured at every layer")
        };
        let size = length(&Values::new(output.clone().into_data())?.data);
        let gradient = Values::new(gradient.clone().into_data())?;
        let mut random = || draw::normal_pair(&mut rng)[0];
        let random: Vec<f64> = gradient.data.iter().map(|_| random()).collect();
        let along = Direction::new(&gradient, &random, STEP * size);
        let moved = |steps: f64| values.moved(site, &along, steps, &contrast, device);
        let near = moved(1.0)? - moved(-1.0)?;
        let far = moved(2.0)? - moved(-2.0)?;
        Ok(along.check(site, (8.0 * near - far) / 12.0))
    });
    let first = reciprocal::<B::InnerBackend>(device);
    [first].into_iter().chain(layers).collect()
}

/// Compares reciprocals with those of the host, in f64.
fn reciprocal<B: Backend>(device: &B::Device) -> Result<Check, Error> {
    let numbers: Vec<f32> = (1..=1000u16).map(|at| f32::from(at) * 0.037).collect();
    let shape = [numbers.len()];
    let x = Tensor::<B, 1>::from_data(TensorData::new(numbers.clone(), shape), device);
    let found = Values::new(x.recip().into_data())?;
    let expected = numbers.iter().map(|x| 1.0 / f64::from(*x));
    let both = found.data.iter().zip(expected);
    let differences = both.map(|(found, expected)| (f64::from(*found) - expected).abs() / expected);
    let difference = differences.fold(0.0, f64::max);
    Ok(Check {
        name: RECIPROCAL.to_owned(),
        difference,
        tolerance: RECIPROCAL_TOLERANCE,
        passed: difference <= RECIPROCAL_TOLERANCE,
        worst: None,
    })
}

/// Gradients at what the heads of every layer put out.
fn gradients<B: AutodiffBackend, T: Tap<B>>(
    model: &Decoder<B>,
    batch: &TokenBatch<B>,
    contrast: &Values,
    fault: T,
    device: &B::Device,
) -> Result<BTreeMap<Site, AnyTensor<B::InnerBackend>>, Error> {
    let hooks = |error| crate::Error::from(circuitscope_model::Error::from(error));
    let mut run = (
        fault,
        Gradients::<B>::new((0..model.config().n_layers).map(Site::Z)),
        Capture::<B>::new([Site::Logits]).with_reduce(Reduce::Last),
    );
    model.forward(batch, &mut run);
    let site = Site::Logits;
    let logits = run.2.take(site).and_then(|logits| logits.get::<2>());
    let logits = logits.ok_or_else(|| hooks(circuitscope_hooks::Error::NeverFired { site }))?;
    let weights = TensorData::new(contrast.data.clone(), contrast.shape.clone());
    let weights = Tensor::<B, 2>::from_data(weights, device);
    let mut backward = (logits * weights).sum().backward();
    Ok(run.1.finish(&mut backward).map_err(hooks)?)
}

/// A model and prompts, to be run without gradients.
struct Outputs<B: Backend> {
    model: Decoder<B>,
    batch: TokenBatch<B>,
}

impl<B: Backend> Outputs<B> {
    fn layers(&self) -> usize {
        self.model.config().n_layers
    }

    /// Logits at the last position under a tap, `[prompts, vocabulary]`.
    fn logits(&self, tap: impl Tap<B>) -> Result<Values, Error> {
        let capture = Capture::new([Site::Logits]).with_reduce(Reduce::Last);
        let mut run = (tap, capture);
        self.model.forward(&self.batch, &mut run);
        let logits = run.1.take(Site::Logits);
        let logits = logits.unwrap_or_else(|| unreachable!("the pass ends at the logits"));
        Values::new(logits.into_data())
    }

    /// What is differentiated, with the heads of one layer moved by `steps` times a direction.
    fn moved(
        &self,
        site: Site,
        along: &Direction,
        steps: f64,
        contrast: &Values,
        device: &B::Device,
    ) -> Result<f64, Error> {
        let by = along.step.iter().map(|x| (steps * x) as f32);
        let by = TensorData::new(by.collect::<Vec<f32>>(), along.shape.clone());
        let by = Tensor::<B, 4>::from_data(by, device);
        let logits = self.logits(Intervene::new([Intervention::new(
            site,
            Op::Add(by.into()),
        )]))?;
        let terms = logits.data.iter().zip(&contrast.data);
        Ok(terms.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum())
    }
}

/// 1 at each prompt's largest logit, −1 at the next one, 0 elsewhere.
fn contrast(logits: Values) -> Values {
    let width = logits.shape.last().copied().unwrap_or(1);
    let mut data = vec![0.0; logits.data.len()];
    for (logits, row) in logits.data.chunks(width).zip(data.chunks_mut(width)) {
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        for (&at, weight) in order.iter().zip([1.0, -1.0]) {
            row[at] = weight;
        }
    }
    Values {
        shape: logits.shape,
        data,
    }
}

/// Which way heads are moved, and what their gradient says of it.
struct Direction {
    shape: Vec<usize>,
    /// One step.
    step: Vec<f64>,
    /// What the gradient expects of it.
    slope: f64,
    /// What a step along the gradient itself would give.
    unit: f64,
}

impl Direction {
    /// The gradient's own direction and a random one, `size` each.
    fn new(gradient: &Values, random: &[f64], size: f64) -> Self {
        let own = length(&gradient.data);
        let other = random.iter().map(|x| x * x).sum::<f64>().sqrt();
        let both = gradient.data.iter().zip(random);
        let step: Vec<f64> = both
            .map(|(x, r)| size * (f64::from(*x) / own + r / other))
            .collect();
        let slope = step
            .iter()
            .zip(&gradient.data)
            .map(|(u, x)| u * f64::from(*x));
        Self {
            shape: gradient.shape.clone(),
            slope: slope.sum(),
            unit: size * own,
            step,
        }
    }

    fn check(&self, site: Site, measured: f64) -> Check {
        let difference = (self.slope - measured).abs() / self.unit;
        Check {
            name: format!("gradient at {site}"),
            difference: if difference.is_nan() {
                f64::INFINITY
            } else {
                difference
            },
            tolerance: GRADIENT_TOLERANCE,
            passed: difference <= GRADIENT_TOLERANCE,
            worst: Some(Worst {
                index: Vec::new(),
                found: self.slope,
                expected: measured,
            }),
        }
    }
}

fn length(values: &[f32]) -> f64 {
    let squares = values.iter().map(|x| f64::from(*x).powi(2));
    squares.sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;
    use burn_flex::{Flex, FlexDevice};

    type B = Autodiff<Flex>;

    fn checks(fault: impl Tap<B>) -> Vec<Check> {
        check_gradients_with::<B, _>(&FlexDevice, &FlexDevice, Exec::all_cores(), fault).unwrap()
    }

    #[test]
    fn gradients_of_a_cpu_are_far_inside_the_tolerance() {
        let checks = checks(NoTap);
        assert_eq!(checks.len(), 5);
        assert_eq!(checks[0].name, RECIPROCAL);
        assert!(checks[0].difference < 1e-7, "{:?}", checks[0]);
        for check in checks {
            println!("{check:?}");
            assert!(
                check.passed && check.difference < 0.2 * GRADIENT_TOLERANCE,
                "{check:?}"
            );
        }
    }

    #[test]
    fn a_fault_in_the_differentiated_pass_shows() {
        for (site, op) in [
            (Site::MlpOut(3), Op::Scale(1.05)),
            (Site::ResidPost(2), Op::Scale(1.05)),
            (Site::Pattern(3), Op::Zero),
        ] {
            let checks = checks(Intervene::new([Intervention::new(site, op)]));
            println!("{site}: {checks:?}");
            assert!(
                checks.iter().any(|check| !check.passed),
                "{site}: {checks:?}"
            );
        }
    }

    /// Leaves values as they are and loses a quarter of the gradient, as a kernel might that leaves a tile
    /// out.
    struct Lost;

    impl Tap<B> for Lost {
        fn wants(&self, site: Site) -> bool {
            site == Site::AttnOut(3)
        }

        fn tap<const D: usize>(&mut self, _: Site, x: Tensor<B, D>) -> Tensor<B, D> {
            let width = x.dims()[D - 1];
            let lost = x.clone().slice_dim(D - 1, 0..width / 4).detach();
            Tensor::cat(vec![lost, x.slice_dim(D - 1, width / 4..width)], D - 1)
        }
    }

    #[test]
    fn a_part_of_the_gradient_that_is_lost_shows() {
        let checks = checks(Lost);
        println!("{checks:?}");
        assert!(!checks[1].passed, "{checks:?}");
    }
}
