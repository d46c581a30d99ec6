//! The methods and the controls, one file each, and the table that names them.

mod acdc;
mod activation_norm;
mod activation_patching;
mod activation_variance;
mod attn_lrp;
mod attribution;
mod coded;
mod contrast;
mod decomposition;
mod direct;
mod ensemble;
mod finite;
mod fixed;
mod flow;
mod from_file;
mod gim;
mod k_means;
mod linear_probe;
mod masks;
mod matryoshka;
mod mean_difference;
mod of_activations;
mod of_pairs;
mod paired_flip_rate;
mod random;
mod rel_p;
mod sae;
mod settings;
mod z_features;

use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::nearest;

pub use acdc::Acdc;
pub use activation_norm::ActivationNorm;
pub use activation_patching::ActivationPatching;
pub use activation_variance::ActivationVariance;
pub use attribution::Attribution;
pub use coded::Inactive;
pub use contrast::Contrast;
pub(crate) use contrast::{Outputs, Runs, Work};
pub use decomposition::ContextualDecomposition;
pub use direct::DirectLogitAttribution;
pub use ensemble::{CodeScore, Ensemble, RECOMMENDED};
use finite::Finite;
pub use fixed::FixedDictionary;
pub use flow::InformationFlow;
pub use from_file::FromFile;
pub use k_means::KMeans;
pub(crate) use k_means::clusters_of;
pub use linear_probe::LinearProbe;
pub use masks::MaskLearning;
pub use matryoshka::Matryoshka;
pub use mean_difference::MeanDifference;
pub use paired_flip_rate::PairedFlipRate;
pub use random::Random;
pub use sae::{Sae, own_codes};
pub use settings::{MethodSettings, PatchedEdges, PatchingSettings};
pub use z_features::{ZFeatureSettings, ZFeatures};

#[cfg(test)]
pub(crate) use {attn_lrp::RULES as ATTN_LRP, gim::RULES as GIM, rel_p::RULES as REL_P};

pub use crate::encodings::{Encoded, SaeSettings, Training};
use crate::{About, Discover, Error, Result};

/// A boxed method over the backend that evidence lives on.
pub type BoxedMethod<B> = Box<dyn Discover<<B as AutodiffBackend>::InnerBackend>>;

/// A line for each method: what is known of it, and how one is made with settings on a device.
macro_rules! methods {
    ($($about:path => |$settings:pat_param, $on:pat_param| $make:expr,)*) => {
        /// All methods, in the order of tables: methods first, then controls.
        ///
        /// ```
        /// use circuitscope_eval::methods::ALL;
        /// assert!(ALL.iter().any(|about| about.name == "recommended" && about.needs.model));
        /// ```
        pub static ALL: &[&About] = &[$(&$about),*];

        /// The method called `name`. Scores that are not finite are an error
        /// ([`Error::NotFinite`], or [`circuitscope_model::Error::Overflow`] where the model's precision overflows).
        ///
        /// `device` is where the model is differentiated: for burn's dispatch backend an autodiff device, for
        /// every other backend the device of the evidence.
        ///
        /// # Errors
        /// [`Error::UnknownMethod`].
        pub fn method<B: AutodiffBackend>(
            name: &str,
            settings: &MethodSettings,
            device: &B::Device,
        ) -> Result<BoxedMethod<B>> {
            let make: &[(&About, fn(&MethodSettings, B::Device) -> BoxedMethod<B>)] =
                &[$((&$about, |$settings, $on| Box::new($make))),*];
            let found = make.iter().find(|(about, _)| about.name == name);
            let (_, make) = found.ok_or_else(|| unknown(name, ""))?;
            Ok(Box::new(Finite(make(settings, device.clone()))))
        }
    };
}

methods! {
    contrast::ABOUT => |s, on| Contrast::<B>::new(s.patching, on),
    sae::PAPER => |s, _| Sae::paper(s.sae.clone()),
    sae::CORRECTED => |s, _| Sae::corrected(s.sae.clone()),
    ensemble::UNIQUE => |s, _| Ensemble::unique(s.sae.clone()),
    ensemble::MUTUAL => |s, _| Ensemble::mutual(s.sae.clone()),
    ensemble::MUTUAL_ENSEMBLE => |s, _| Ensemble::mutual_ensemble(s.sae.clone()),
    ensemble::UNTRAINED => |s, _| Ensemble::untrained(s.sae.clone()),
    ensemble::AMPLITUDE => |s, _| Ensemble::amplitude(s.sae.clone()),
    ensemble::MEAN_AND_LAST => |s, _| Ensemble::mean_and_last(s.sae.clone()),
    ensemble::ACTIVATIONS => |s, _| Ensemble::recommended(s.sae.clone()),
    activation_patching::ABOUT => |s, _| ActivationPatching::new(s.patching),
    attribution::EAP => |s, on| Attribution::<B>::eap(s.patching, on),
    attribution::EAP_IG => |s, on| Attribution::<B>::eap_ig(s.patching, on),
    attribution::EAP_IG_ACTIVATIONS => |s, on| Attribution::<B>::eap_ig_activations(s.patching, on),
    attribution::NAP => |s, on| Attribution::<B>::nap(s.patching, on),
    attribution::NAP_IG => |s, on| Attribution::<B>::nap_ig(s.patching, on),
    attribution::CEAP => |s, on| Attribution::<B>::ceap(s.patching, on),
    attribution::EAP_EG => |s, on| Attribution::<B>::eap_eg(s.patching, on),
    attribution::NAP_EG => |s, on| Attribution::<B>::nap_eg(s.patching, on),
    attn_lrp::NODES => |s, on| Attribution::<B>::nap_attn_lrp(s.patching, on),
    attn_lrp::EDGES => |s, on| Attribution::<B>::eap_attn_lrp(s.patching, on),
    gim::NODES => |s, on| Attribution::<B>::nap_gim(s.patching, on),
    gim::EDGES => |s, on| Attribution::<B>::eap_gim(s.patching, on),
    rel_p::NODES => |s, on| Attribution::<B>::nap_rel_p(s.patching, on),
    rel_p::EDGES => |s, on| Attribution::<B>::eap_rel_p(s.patching, on),
    attribution::HISP => |s, on| Attribution::<B>::hisp(s.patching, on),
    z_features::TRAINED => |s, on| ZFeatures::<B>::trained(s.z_features, s.patching, on),
    z_features::UNTRAINED => |s, on| ZFeatures::<B>::untrained(s.z_features, s.patching, on),
    acdc::ABOUT => |s, _| Acdc::new(s.patching),
    decomposition::ABOUT => |s, _| ContextualDecomposition::new(s.patching),
    masks::NODES => |s, on| MaskLearning::<B>::nodes(s.patching, on),
    masks::EDGES => |s, on| MaskLearning::<B>::edges(s.patching, on),
    matryoshka::LEARNED => |s, on| Matryoshka::<B>::learned(s.patching, on),
    matryoshka::UNLEARNED => |s, on| Matryoshka::<B>::unlearned(s.patching, on),
    flow::ABOUT => |s, _| InformationFlow::new(s.patching),
    direct::ABOUT => |s, _| DirectLogitAttribution::new(s.patching),
    activation_variance::ON_POSITIVES => |_, _| ActivationVariance::on_positives(),
    activation_variance::ON_ALL => |_, _| ActivationVariance::on_all(),
    sae::UNTRAINED => |s, _| Sae::untrained(s.sae.clone()),
    k_means::ABOUT => |s, _| KMeans::new(s.sae.clone()),
    mean_difference::RESIDUAL => |_, _| MeanDifference::default(),
    mean_difference::STANDARDISED => |_, _| MeanDifference::standardised(),
    mean_difference::RELATIVE => |_, _| MeanDifference::relative(),
    linear_probe::ABOUT => |_, _| LinearProbe,
    activation_norm::ABOUT => |_, _| ActivationNorm,
    paired_flip_rate::ABOUT => |s, _| PairedFlipRate::new(s.sae.clone()),
    random::ABOUT => |_, _| Random,
}

/// What is taken unless another one is asked for.
pub static DEFAULT: &About = &contrast::ABOUT;

/// The names of all methods, in the order of [`ALL`].
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    ALL.iter().map(|about| about.name.as_ref())
}

/// Methods that take seconds: what an evaluation runs unless told otherwise.
pub fn quick() -> impl Iterator<Item = &'static About> + Clone {
    ALL.iter().copied().filter(|about| about.quick)
}

/// What is known of the method called `name`.
///
/// # Errors
/// [`Error::UnknownMethod`].
///
/// ```
/// use circuitscope_eval::methods::about;
/// assert_eq!(about("sae")?.name, "sae");
/// assert!(about("sea").unwrap_err().to_string().contains("did you mean `sae`?"));
/// # Ok::<(), circuitscope_eval::Error>(())
/// ```
pub fn about(name: &str) -> Result<&'static About> {
    let known = ALL.iter().copied().find(|about| about.name == name);
    known.ok_or_else(|| unknown(name, ""))
}

/// The methods of a comma-separated list, each once; `all` in it is every method, `quick` those of [`quick`].
///
/// # Errors
/// [`Error::UnknownMethod`] for the first entry that names none.
///
/// ```
/// use circuitscope_eval::methods::{parse_list, quick};
/// let methods = parse_list("activation-patching,quick,sae")?;
/// assert_eq!(methods[0].name, "activation-patching");
/// assert_eq!(methods.len(), 1 + quick().count());
/// # Ok::<(), circuitscope_eval::Error>(())
/// ```
pub fn parse_list(list: &str) -> Result<Vec<&'static About>> {
    let mut found: Vec<&About> = Vec::new();
    for entry in list.split(',').map(str::trim) {
        let members = match entry {
            "all" => ALL.to_vec(),
            "quick" => quick().collect(),
            name => {
                let known = about(name).ok();
                vec![known.ok_or_else(|| unknown(name, ", quick, all"))?]
            }
        };
        for member in members {
            if !found.contains(&member) {
                found.push(member);
            }
        }
    }
    Ok(found)
}

/// `more`: what else may stand in the place of a name.
fn unknown(name: &str, more: &str) -> Error {
    let known: Vec<&str> = names().collect();
    Error::UnknownMethod {
        name: name.to_owned(),
        nearest: nearest(name, names()).map(str::to_owned),
        known: known.join(", ") + more,
    }
}
