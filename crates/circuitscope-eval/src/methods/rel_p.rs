use burn::tensor::backend::AutodiffBackend;

use super::attribution::AT_PROMPTS;
use super::{Attribution, PatchingSettings};
use crate::causal::Rules;
use crate::{About, Passes};

/// What is known of `nap-rel-p`.
pub(super) static NODES: About = About::new(
    "nap-rel-p",
    "node attribution patching with the backward rules of `RelP`",
)
.without_seed()
.needs(AT_PROMPTS, Passes::EachPair(6));
/// Of `eap-rel-p`.
pub(super) static EDGES: About = About::new(
    "eap-rel-p",
    "edge attribution patching with the backward rules of `RelP`",
)
.without_seed()
.needs(AT_PROMPTS, Passes::EachPair(6));

/// Relevance patching: norms of constant scale, activations by their secants, halves for the factors of a gate, and attention
/// patterns that stay where they are, so that nothing goes through queries and keys.
pub(crate) const RULES: Rules = Rules {
    norm: true,
    activation: true,
    product: true,
    pattern: true,
    attention: false,
    temperature: None,
};

impl<B: AutodiffBackend> Attribution<B> {
    /// `nap` with the backward rules of `RelP` (Jafari et al. 2025, arXiv 2508.21258).
    pub const fn nap_rel_p(settings: PatchingSettings, device: B::Device) -> Self {
        Self::by_rules(&NODES, false, RULES, settings, device)
    }

    /// `eap` with the backward rules of `RelP` (Jafari et al. 2025, arXiv 2508.21258).
    pub const fn eap_rel_p(settings: PatchingSettings, device: B::Device) -> Self {
        Self::by_rules(&EDGES, true, RULES, settings, device)
    }
}
