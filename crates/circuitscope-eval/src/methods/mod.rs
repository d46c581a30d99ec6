//! The methods and the controls, one file each, and the table that names them.

mod acdc;
mod activation_norm;
mod activation_patching;
mod attribution;
mod coded;
mod contrast;
mod decomposition;
mod direct;
mod ensemble;
mod finite;
mod flow;
mod from_file;
mod k_means;
mod linear_probe;
mod masks;
mod mean_difference;
mod of_activations;
mod paired_flip_rate;
mod random;
mod sae;
mod settings;

use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::nearest;

pub use acdc::Acdc;
pub use activation_norm::ActivationNorm;
pub use activation_patching::ActivationPatching;
pub use attribution::Attribution;
pub use contrast::Contrast;
pub use decomposition::ContextualDecomposition;
pub use direct::DirectLogitAttribution;
pub use ensemble::{CodeScore, Ensemble, RECOMMENDED};
use finite::Finite;
pub use flow::InformationFlow;
pub use from_file::FromFile;
pub use k_means::KMeans;
pub use linear_probe::LinearProbe;
pub use masks::MaskLearning;
pub use mean_difference::MeanDifference;
pub use paired_flip_rate::PairedFlipRate;
pub use random::Random;
pub(crate) use sae::Recipe;
pub use sae::{Encoded, Sae, SaeSettings, Training};
pub use settings::{MethodSettings, PatchedEdges, PatchingSettings};

use crate::causal::Metric;
use crate::{Discover, Error, Result};

/// A boxed method over the backend that evidence lives on.
pub type BoxedMethod<B> = Box<dyn Discover<<B as AutodiffBackend>::InnerBackend>>;

/// The names of all methods, in the order of tables: methods first, then controls.
pub const NAMES: [&str; 32] = [
    "recommended",
    "sae",
    "sae-corrected",
    "sae-ensemble",
    "mutual-information",
    "mutual-information-ensemble",
    "untrained-ensemble",
    "amplitude-ensemble",
    "mean-and-last",
    "recommended-activations",
    "activation-patching",
    "eap",
    "eap-ig",
    "eap-ig-activations",
    "nap",
    "nap-ig",
    "hisp",
    "acdc",
    "cd-t",
    "subnetwork-probing",
    "edge-pruning",
    "information-flow-routes",
    "direct-logit-attribution",
    "untrained",
    "k-means",
    "mean-difference",
    "standardised-difference",
    "relative-difference",
    "linear-probe",
    "activation-norm",
    "paired-flip-rate",
    "random",
];

/// Methods that take seconds: what an evaluation runs unless told otherwise.
pub const QUICK: [&str; 12] = [
    "recommended",
    "sae",
    "sae-corrected",
    "recommended-activations",
    "untrained",
    "k-means",
    "mean-difference",
    "standardised-difference",
    "relative-difference",
    "activation-norm",
    "paired-flip-rate",
    "random",
];

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
    let MethodSettings {
        sae: settings,
        patching,
    } = settings;
    let (patching, on) = (*patching, device.clone());
    let method: BoxedMethod<B> = match name {
        "sae" => Box::new(Sae::paper(settings.clone())),
        "sae-corrected" => Box::new(Sae::corrected(settings.clone())),
        "sae-ensemble" => Box::new(Ensemble::unique(settings.clone())),
        "mutual-information" => Box::new(Ensemble::mutual(settings.clone())),
        "mutual-information-ensemble" => Box::new(Ensemble::mutual_ensemble(settings.clone())),
        "untrained-ensemble" => Box::new(Ensemble::untrained(settings.clone())),
        "amplitude-ensemble" => Box::new(Ensemble::amplitude(settings.clone())),
        "mean-and-last" => Box::new(Ensemble::mean_and_last(settings.clone())),
        "recommended" => Box::new(Contrast::<B>::new(patching, on)),
        "recommended-activations" => Box::new(Ensemble::recommended(settings.clone())),
        "activation-patching" => Box::new(ActivationPatching::new(patching)),
        "eap" => Box::new(Attribution::<B>::eap(patching, on)),
        "eap-ig" => Box::new(Attribution::<B>::eap_ig(patching, on)),
        "eap-ig-activations" => Box::new(Attribution::<B>::eap_ig_activations(patching, on)),
        "nap" => Box::new(Attribution::<B>::nap(patching, on)),
        "nap-ig" => Box::new(Attribution::<B>::nap_ig(patching, on)),
        "hisp" => Box::new(Attribution::<B>::hisp(patching, on)),
        "acdc" => Box::new(Acdc::new(patching)),
        "subnetwork-probing" => Box::new(MaskLearning::<B>::nodes(patching, on)),
        "edge-pruning" => Box::new(MaskLearning::<B>::edges(patching, on)),
        "cd-t" => Box::new(ContextualDecomposition::new(patching)),
        "information-flow-routes" => Box::new(InformationFlow::new(patching)),
        "direct-logit-attribution" => Box::new(DirectLogitAttribution::new(patching)),
        "untrained" => Box::new(Sae::untrained(settings.clone())),
        "k-means" => Box::new(KMeans::new(settings.clone())),
        "mean-difference" => Box::new(MeanDifference::default()),
        "standardised-difference" => Box::new(MeanDifference::standardised()),
        "relative-difference" => Box::new(MeanDifference::relative()),
        "linear-probe" => Box::new(LinearProbe),
        "activation-norm" => Box::new(ActivationNorm),
        "paired-flip-rate" => Box::new(PairedFlipRate::new(settings.clone())),
        "random" => Box::new(Random),
        _ => return Err(unknown(name, NAMES.join(", "))),
    };
    Ok(Box::new(Finite(method)))
}

/// Whether the method called `name` changes the model or differentiates it, so that it needs
/// [`Evidence::with_causal`](crate::Evidence::with_causal).
///
/// ```
/// use circuitscope_eval::methods::runs_model;
/// assert!(runs_model("eap") && !runs_model("sae"));
/// ```
#[must_use]
pub fn runs_model(name: &str) -> bool {
    matches!(
        name,
        "recommended"
            | "activation-patching"
            | "eap"
            | "eap-ig"
            | "eap-ig-activations"
            | "nap"
            | "nap-ig"
            | "hisp"
            | "acdc"
            | "subnetwork-probing"
            | "edge-pruning"
            | "cd-t"
            | "information-flow-routes"
            | "direct-logit-attribution"
    )
}

/// Fails if the method called `name` differentiates `metric` where it has no gradient, or none but zero. Can
/// be asked before anything runs.
///
/// # Errors
/// [`Error::NoGradient`], [`Error::FlatMetric`].
///
/// ```
/// use circuitscope_eval::causal::Metric;
/// use circuitscope_eval::methods::check_metric;
///
/// assert!(check_metric("eap", Metric::Accuracy).is_err());
/// assert!(check_metric("activation-patching", Metric::Accuracy).is_ok());
/// assert!(check_metric("eap", Metric::Kl).is_err() && check_metric("eap-ig", Metric::Kl).is_ok());
/// ```
pub fn check_metric(name: &'static str, metric: Metric) -> Result<()> {
    let at_the_prompts = matches!(name, "eap" | "nap" | "hisp");
    let elsewhere = matches!(
        name,
        "eap-ig" | "eap-ig-activations" | "nap-ig" | "subnetwork-probing" | "edge-pruning"
    );
    let method = name;
    if (at_the_prompts || elsewhere) && !metric.has_gradient() {
        Err(Error::NoGradient { method, metric })
    } else if at_the_prompts && metric.needs_clean() {
        Err(Error::FlatMetric { method })
    } else {
        Ok(())
    }
}

/// The method called `name` itself or, for `recommended` where no model `runs` prompts in pairs, the one
/// that takes its place: it reads activations alone.
///
/// ```
/// use circuitscope_eval::methods::suited;
/// assert_eq!(suited("recommended", true), "recommended");
/// assert_eq!(suited("recommended", false), "recommended-activations");
/// assert_eq!(suited("eap", false), "eap");
/// ```
#[must_use]
pub fn suited(name: &str, runs: bool) -> &str {
    match name {
        "recommended" if !runs => "recommended-activations",
        name => name,
    }
}

/// Whether the method called `name` reads what heads put out at the last position, so that it needs
/// [`Evidence::with_last`](crate::Evidence::with_last).
///
/// ```
/// use circuitscope_eval::methods::reads_last;
/// assert!(reads_last("mean-and-last") && !reads_last("sae"));
/// ```
#[must_use]
pub fn reads_last(name: &str) -> bool {
    name == "mean-and-last"
}

/// Whether the method called `name` reads all activations once, but for a few examples: those with codes.
/// It loses little where activations are not held
/// ([`Evidence::streamed`](crate::Evidence::streamed)).
///
/// ```
/// use circuitscope_eval::methods::reads_once;
/// assert!(reads_once("sae") && reads_once("recommended-activations") && !reads_once("mean-difference"));
/// ```
#[must_use]
pub fn reads_once(name: &str) -> bool {
    [
        "sae",
        "sae-corrected",
        "sae-ensemble",
        "mutual-information",
        "mutual-information-ensemble",
        "untrained-ensemble",
        "amplitude-ensemble",
        "recommended-activations",
        "untrained",
        "k-means",
        "paired-flip-rate",
    ]
    .contains(&name)
}

/// The one name that this is.
///
/// # Errors
/// [`Error::UnknownMethod`].
///
/// ```
/// use circuitscope_eval::methods::parse_name;
/// assert_eq!(parse_name("sae")?, "sae");
/// assert!(parse_name("sea").unwrap_err().to_string().contains("did you mean `sae`?"));
/// # Ok::<(), circuitscope_eval::Error>(())
/// ```
pub fn parse_name(name: &str) -> Result<&'static str> {
    let known = NAMES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| unknown(name, NAMES.join(", ")))
}

/// The names in a comma-separated list; `all` is every method, `quick` those of [`QUICK`].
///
/// # Errors
/// [`Error::UnknownMethod`] for the first entry that names none.
pub fn parse_list(list: &str) -> Result<Vec<&'static str>> {
    if list == "all" {
        return Ok(NAMES.to_vec());
    }
    if list == "quick" {
        return Ok(QUICK.to_vec());
    }
    let mut names = Vec::new();
    for entry in list.split(',').map(str::trim) {
        let known = parse_name(entry).ok();
        let known =
            known.ok_or_else(|| unknown(entry, format!("{}, quick, all", NAMES.join(", "))))?;
        if !names.contains(&known) {
            names.push(known);
        }
    }
    Ok(names)
}

fn unknown(name: &str, known: String) -> Error {
    Error::UnknownMethod {
        name: name.to_owned(),
        nearest: nearest(name, NAMES).map(str::to_owned),
        known,
    }
}
