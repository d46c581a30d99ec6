//! Does a device compute what the CPU computes?
//!
//! Drivers and kernels are wrong now and then, silently: the answer looks like any other. So the
//! crate carries a [`Record`] of the reference model on fixed prompts, made on a CPU, and
//! [`check`] lets a device do the same work: activations from the embedding to the logits, head
//! outputs, a short training of a dictionary, and codes. Each is compared with the record within a
//! stated tolerance, in the order of computation, so that the first one that differs is where
//! things went wrong. Training and codes start from the *recorded* head outputs: a device that runs
//! the model wrongly can still be seen to train correctly.
//!
//! # Tolerances
//! - Activations: [`ACTIVATION_TOLERANCE`] times the largest recorded magnitude of the site, or
//!   times 1 if that is smaller. Four layers of `f32` in another order of summation differ by less
//!   than a tenth of it.
//! - Loss of training: [`LOSS_TOLERANCE`], relative, in each of 20 steps.
//! - Gradients ([`check_gradients`]): [`GRADIENT_TOLERANCE`], against differences of the device's own values.
//! - Codes: equal, except where the two largest features of the record are within
//!   [`NEAR_TIE`] of each other, relative to the larger; such near-ties are counted.

mod checks;
mod gradient;
mod record;
pub mod shapes;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::tensor::backend::Backend;
use circuitscope_core::Exec;
use circuitscope_files::FileError;
use circuitscope_hooks::{NoTap, Tap};
use circuitscope_model::Decoder;

pub use checks::{Check, Conformance, Worst};
pub use gradient::{
    GRADIENT_TOLERANCE, RECIPROCAL, RECIPROCAL_TOLERANCE, check_gradients, check_gradients_with,
};
pub use record::{Record, Values};

/// See the [module](self).
pub const ACTIVATION_TOLERANCE: f64 = 5e-5;
/// See the [module](self).
pub const LOSS_TOLERANCE: f64 = 1e-4;
/// See the [module](self).
pub const NEAR_TIE: f64 = 1e-4;

/// What can go wrong before anything is compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The reference model could not be loaded or run.
    #[error(transparent)]
    Run(#[from] crate::Error),
    /// The record could not be written or read, or is damaged.
    #[error(transparent)]
    File(#[from] FileError),
    /// The record was made with other weights than those of this crate.
    #[error(
        "the conformance record belongs to another reference model: found {found}, expected \
         {expected}"
    )]
    OtherModel {
        /// Hash of the weights that the record was made with.
        found: String,
        /// Hash of the weights in this crate.
        expected: String,
    },
    /// The device computes something else than a CPU does.
    #[error("the first result that differs from a CPU's is {}: by {:.1e}, tolerance {:.1e}{}", .0.name, .0.difference, .0.tolerance, place(.0))]
    Differs(Box<Check>),
    /// The device failed while a result was read back.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Compares a device with the record inside this crate; its work is laid out as `exec` says.
///
/// # Errors
/// If the device cannot do the work at all. That it does it wrongly is no error here but the
/// answer: [`Conformance::passed`].
///
/// # Examples
/// ```
/// use burn_flex::{Flex, FlexDevice};
/// use circuitscope::Exec;
///
/// let conformance = circuitscope::conformance::check::<Flex>(&FlexDevice, Exec::all_cores())?;
/// assert!(conformance.passed(), "{:?}", conformance.first_failure());
/// # Ok::<(), circuitscope::conformance::Error>(())
/// ```
pub fn check<B: Backend>(device: &B::Device, exec: Exec) -> Result<Conformance, Error> {
    check_with::<B, _>(device, exec, NoTap)
}

/// The same with a tap in the model: shows that a wrong activation is noticed, and named.
///
/// # Errors
/// As [`check`].
///
/// # Examples
/// ```
/// use burn_flex::{Flex, FlexDevice};
/// use circuitscope::Exec;
/// use circuitscope::hooks::{Intervene, Intervention, Op, Site};
///
/// // A kernel that is wrong by one in a thousand.
/// let site = Site::MlpOut(1);
/// let fault = Intervene::new([Intervention::new(site, Op::Scale(1.001))]);
/// let exec = Exec::all_cores();
/// let conformance = circuitscope::conformance::check_with::<Flex, _>(&FlexDevice, exec, fault)?;
/// assert_eq!(conformance.first_failure().unwrap().name, site.to_string());
/// # Ok::<(), circuitscope::conformance::Error>(())
/// ```
pub fn check_with<B: Backend, T: Tap<B>>(
    device: &B::Device,
    exec: Exec,
    fault: T,
) -> Result<Conformance, Error> {
    let shipped = Record::shipped()?;
    let found = Record::measure_with::<B, T>(device, exec, Some(&shipped.head_means), fault)?;
    shipped.compare(&found)
}

/// Fails unless the device of `model` agrees with the record, its work laid out as the model's, and multiplies
/// matrices of the model's sizes correctly ([`shapes`]). Asked once for each device and all sizes: later calls return
/// what the first one found.
///
/// # Errors
/// [`Error::Differs`] with the first thing that differs, and those of [`check`].
pub fn require<B: Backend>(device: &B::Device, model: &Decoder<B>) -> Result<(), Error> {
    let exec = model.exec();
    let name = format!("{} {device:?}", B::name(device));
    once(format!("{name} {exec:?}"), || check::<B>(device, exec))?;
    let products = model.products();
    once(format!("{name} {products:?}"), || {
        shapes::check::<B>(device, &products)
    })
}

/// What `find` found when it was first asked for `key`, as an error if something differs.
fn once(key: String, find: impl FnOnce() -> Result<Conformance, Error>) -> Result<(), Error> {
    static KNOWN: Mutex<BTreeMap<String, Conformance>> = Mutex::new(BTreeMap::new());
    // Nothing is changed halfway, so that a panic elsewhere leaves it as good as it was.
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = known().get(&key).cloned();
    let conformance = if let Some(conformance) = before {
        conformance
    } else {
        let found = find()?;
        known().insert(key, found.clone());
        found
    };
    match conformance.first_failure() {
        None => Ok(()),
        Some(failure) => Err(Error::Differs(Box::new(failure.clone()))),
    }
}

fn place(check: &Check) -> String {
    check.worst.as_ref().map_or_else(String::new, |worst| {
        format!(
            ", at {:?} found {} expected {}",
            worst.index, worst.found, worst.expected
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_hooks::Site;

    fn record() -> Record {
        let values = |data: &[f32]| Values {
            shape: vec![2, data.len() / 2],
            data: data.to_vec(),
        };
        Record {
            model: "0".into(),
            activations: [
                (Site::Embed, values(&[1.0, 2.0, 3.0, 4.0])),
                (Site::ResidPost(0), values(&[10.0, -20.0, 0.0, 0.5])),
            ]
            .into(),
            head_means: values(&[0.1, 0.2]),
            loss: vec![1.0, 0.5],
            codes: vec![3, -1, 7],
            margins: vec![0.5, 1.0, 5e-5],
        }
    }

    #[test]
    fn a_record_agrees_with_itself_and_survives_its_file() {
        let record = record();
        let conformance = record.compare(&record).unwrap();
        assert!(conformance.passed());
        assert_eq!(conformance.near_ties, 1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.safetensors");
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
    }

    #[test]
    fn the_first_wrong_site_is_named_with_its_place() {
        let mut found = record();
        for (site, at) in [(Site::ResidPost(0), 3), (Site::Embed, 2)] {
            found.activations.get_mut(&site).unwrap().data[at] += 0.01;
        }
        let conformance = record().compare(&found).unwrap();
        let failure = conformance.first_failure().unwrap();
        assert_eq!(failure.name, "hook_embed");
        assert_eq!(failure.worst.as_ref().unwrap().index, [1, 0]);
        assert_eq!(
            conformance
                .checks
                .iter()
                .filter(|check| !check.passed)
                .count(),
            2
        );
    }

    #[test]
    fn differences_within_the_tolerance_pass_and_beyond_it_fail() {
        let shifted = |by: f32| {
            let mut found = record();
            found.activations.get_mut(&Site::ResidPost(0)).unwrap().data[3] += by;
            record().compare(&found).unwrap().passed()
        };
        // The largest magnitude is 20: the tolerance is 1e-3.
        assert!(shifted(0.9e-3));
        assert!(!shifted(1.1e-3));
        assert!(!shifted(f32::NAN));
        assert!(!shifted(f32::INFINITY));
    }

    #[test]
    fn only_near_ties_may_change_their_code() {
        let changed = |at: usize| {
            let mut found = record();
            found.codes[at] = 4;
            record().compare(&found).unwrap().passed()
        };
        assert!(changed(2));
        assert!(!changed(0));
        assert!(!changed(1));
    }

    #[test]
    fn a_record_of_another_model_is_refused() {
        let other = Record {
            model: "1".into(),
            ..record()
        };
        assert!(matches!(
            record().compare(&other),
            Err(Error::OtherModel { .. })
        ));
    }

    #[test]
    fn a_device_is_asked_once_and_refused_every_time() {
        let mut wrong = record();
        wrong.codes[0] = 4;
        let conformance = record().compare(&wrong).unwrap();
        for asked in [true, false] {
            let mut was_asked = false;
            let outcome = once("a test's device".to_owned(), || {
                was_asked = true;
                Ok(conformance.clone())
            });
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("is codes: by 1"), "{error}");
            assert_eq!(was_asked, asked);
        }
    }
}
