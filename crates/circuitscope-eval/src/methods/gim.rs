use burn::tensor::backend::AutodiffBackend;

use super::attribution::AT_PROMPTS;
use super::{Attribution, PatchingSettings};
use crate::causal::Rules;
use crate::{About, Passes};

/// What is known of `nap-gim`.
pub(super) static NODES: About = About::new(
    "nap-gim",
    "node attribution patching with the backward rules of GIM",
)
.without_seed()
.needs(AT_PROMPTS, Passes::EachPair(6));
/// Of `eap-gim`.
pub(super) static EDGES: About = About::new(
    "eap-gim",
    "edge attribution patching with the backward rules of GIM",
)
.without_seed()
.needs(AT_PROMPTS, Passes::EachPair(6));

/// Norms of constant scale, products that share what comes down between their factors, and the gradient of a softmax of twice the
/// temperature, so that attention which is saturated is not taken for attention that does not matter. Activations are
/// differentiated: with their secants and a temperature of 1 it is `AttnLRP`.
pub(crate) const RULES: Rules = Rules {
    norm: true,
    activation: false,
    product: true,
    pattern: false,
    attention: true,
    temperature: Some(2.0),
};

impl<B: AutodiffBackend> Attribution<B> {
    /// `nap` with the backward rules of GIM (gradient interaction modifications, Edin et al. 2025, arXiv 2505.17630).
    pub const fn nap_gim(settings: PatchingSettings, device: B::Device) -> Self {
        Self::by_rules(&NODES, false, RULES, settings, device)
    }

    /// `eap` with the backward rules of GIM (gradient interaction modifications, Edin et al. 2025, arXiv 2505.17630).
    pub const fn eap_gim(settings: PatchingSettings, device: B::Device) -> Self {
        Self::by_rules(&EDGES, true, RULES, settings, device)
    }
}
