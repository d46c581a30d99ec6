use burn::tensor::backend::AutodiffBackend;

use super::attribution::AT_PROMPTS;
use super::{Attribution, PatchingSettings};
use crate::causal::Rules;
use crate::{About, Passes};

/// What is known of `nap-attn-lrp`.
pub(super) static NODES: About = About::new(
    "nap-attn-lrp",
    "node attribution patching with the backward rules of `AttnLRP`",
)
.without_seed()
.needs(AT_PROMPTS, Passes::EachPair(6));
/// Of `eap-attn-lrp`.
pub(super) static EDGES: About = About::new(
    "eap-attn-lrp",
    "edge attribution patching with the backward rules of `AttnLRP`",
)
.without_seed()
.needs(AT_PROMPTS, Passes::EachPair(6));

/// Layer-wise relevance propagation of attention, as one pass of rewritten gradients: norms of constant scale, activations by their
/// secants, and products that share what comes down between their factors: two in a gate; values, and queries and keys of the scores.
/// Softmax itself is differentiated.
pub(crate) const RULES: Rules = Rules {
    norm: true,
    activation: true,
    product: true,
    pattern: false,
    attention: true,
    temperature: None,
};

impl<B: AutodiffBackend> Attribution<B> {
    /// `nap` with the backward rules of `AttnLRP` (Achtibat et al. 2024, arXiv 2402.05602).
    pub const fn nap_attn_lrp(settings: PatchingSettings, device: B::Device) -> Self {
        Self::by_rules(&NODES, false, RULES, settings, device)
    }

    /// `eap` with the backward rules of `AttnLRP` (Achtibat et al. 2024, arXiv 2402.05602).
    pub const fn eap_attn_lrp(settings: PatchingSettings, device: B::Device) -> Self {
        Self::by_rules(&EDGES, true, RULES, settings, device)
    }
}
