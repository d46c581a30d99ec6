use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use circuitscope_core::ParseError;

/// Writes the enumeration of all sites and what is read off their list: names, layers and the order of the forward
/// pass. Names of sites of a block are what follows `blocks.{l}.`.
macro_rules! sites {
    (
        before { $($(#[$before_doc:meta])* $before:ident = $before_name:literal;)* }
        block { $($(#[$block_doc:meta])* $block:ident = $block_name:literal;)* }
        after { $($(#[$after_doc:meta])* $after:ident = $after_name:literal;)* }
    ) => {
        /// One activation of a decoder, with the hook name of TransformerLens' `HookedTransformer`.
        ///
        /// Layers count from 0. Sites order as the forward pass reaches them. Shapes use `batch`, `pos`,
        /// `head`, `d_model`, `d_head`, `d_mlp`, `d_vocab`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Site {
            $($(#[$before_doc])* $before,)*
            $($(#[$block_doc])* $block(usize),)*
            $($(#[$after_doc])* $after,)*
        }

        /// The sites in forward order, those of a block once.
        #[derive(Clone, Copy)]
        enum Stage {
            $($before,)*
            $($block,)*
            $($after,)*
        }

        impl Site {
            /// The sites before the first block.
            pub(crate) const BEFORE: &[(Self, &'static str)] =
                &[$((Self::$before, $before_name),)*];

            /// The sites of one block in forward order, with what follows `blocks.{l}.` in their names.
            pub(crate) const BLOCK: &[(fn(usize) -> Self, &'static str)] =
                &[$((Self::$block, $block_name),)*];

            /// The sites after the last block.
            pub(crate) const AFTER: &[(Self, &'static str)] = &[$((Self::$after, $after_name),)*];

            /// The layer it belongs to, if it belongs to one.
            #[must_use]
            pub const fn layer(self) -> Option<usize> {
                match self {
                    $(Self::$block(layer) => Some(layer),)*
                    _ => None,
                }
            }

            /// Its name, of a site in a block without the block.
            const fn name(self) -> &'static str {
                match self {
                    $(Self::$before => $before_name,)*
                    $(Self::$block(_) => $block_name,)*
                    $(Self::$after => $after_name,)*
                }
            }

            /// Its place in the forward pass: block by block, and then as in the list.
            const fn order(self) -> (usize, usize) {
                match self {
                    $(Self::$before => (0, Stage::$before as usize),)*
                    $(Self::$block(layer) => (layer.saturating_add(1), Stage::$block as usize),)*
                    $(Self::$after => (usize::MAX, Stage::$after as usize),)*
                }
            }
        }
    };
}

sites! {
    before {
        /// `hook_embed` `[batch, pos, d_model]`: token embedding.
        Embed = "hook_embed";
        /// `hook_pos_embed` `[batch, pos, d_model]`: position embedding, also where it is added only to
        /// the inputs of queries and keys (shortformer).
        PosEmbed = "hook_pos_embed";
    }
    block {
        /// `blocks.{l}.hook_resid_pre` `[batch, pos, d_model]`: residual stream before the block.
        ResidPre = "hook_resid_pre";
        /// `blocks.{l}.hook_q_input` `[batch, pos, head, d_model]`: the residual stream as each head's
        /// query reads it, before the norm. Like [`Site::KInput`] and [`Site::VInput`] it is split by
        /// head only while some tap wants it; changing it changes what that port of that head reads and
        /// nothing else.
        QInput = "hook_q_input";
        /// `blocks.{l}.hook_k_input` `[batch, pos, head, d_model]`: see [`Site::QInput`].
        KInput = "hook_k_input";
        /// `blocks.{l}.hook_v_input` `[batch, pos, head, d_model]`: see [`Site::QInput`].
        VInput = "hook_v_input";
        /// `blocks.{l}.ln1.hook_scale` `[batch, pos, 1]`: √(variance + ε) of the attention norm.
        Ln1Scale = "ln1.hook_scale";
        /// `blocks.{l}.ln1.hook_normalized` `[batch, pos, d_model]`: output of the attention norm, after
        /// gain and bias of a `LayerNorm`, before the gain of an RMS norm. So it is for every norm.
        Ln1Normalized = "ln1.hook_normalized";
        /// `blocks.{l}.attn.hook_q` `[batch, pos, head, d_head]`: queries, before a norm of queries and
        /// before rotation.
        Q = "attn.hook_q";
        /// `blocks.{l}.attn.hook_k` `[batch, pos, kv_head, d_head]`: keys, likewise. Like
        /// [`Site::KInput`], [`Site::VInput`], [`Site::V`] and [`Site::RotK`], its heads are the
        /// key/value heads, fewer than `head` where queries share them.
        K = "attn.hook_k";
        /// `blocks.{l}.attn.hook_v` `[batch, pos, kv_head, d_head]`: values.
        V = "attn.hook_v";
        /// `blocks.{l}.attn.hook_rot_q` `[batch, pos, head, d_head]`: queries after rotation.
        RotQ = "attn.hook_rot_q";
        /// `blocks.{l}.attn.hook_rot_k` `[batch, pos, kv_head, d_head]`: keys after rotation.
        RotK = "attn.hook_rot_k";
        /// `blocks.{l}.attn.hook_attn_scores` `[batch, head, q_pos, k_pos]`: scaled, soft-capped and
        /// masked scores; masked entries are −∞.
        AttnScores = "attn.hook_attn_scores";
        /// `blocks.{l}.attn.hook_pattern` `[batch, head, q_pos, k_pos]`: attention probabilities.
        Pattern = "attn.hook_pattern";
        /// `blocks.{l}.attn.hook_z` `[batch, pos, head, d_head]`: values mixed by the pattern.
        Z = "attn.hook_z";
        /// `blocks.{l}.attn.hook_result` `[batch, pos, head, d_model]`: each head's own output,
        /// `z · W_O`, without `b_O` and before a norm of the layer's output.
        Result = "attn.hook_result";
        /// `blocks.{l}.ln1_post.hook_scale` `[batch, pos, 1]`: of the norm of the attention layer's output.
        Ln1PostScale = "ln1_post.hook_scale";
        /// `blocks.{l}.ln1_post.hook_normalized` `[batch, pos, d_model]`: output of that norm, before its
        /// gain.
        Ln1PostNormalized = "ln1_post.hook_normalized";
        /// `blocks.{l}.hook_head_out` `[batch, pos, head, d_model]`: what each head adds to the residual
        /// stream. Where the layer's output is normalised: [`Site::Result`] through that norm, with the scale
        /// that the norm has in this run, so that the heads' sum is [`Site::AttnOut`] exactly (`b_O`, which
        /// the norm scales as well, is shared out among the heads). A change here moves [`Site::AttnOut`] by
        /// itself: the norm is not computed anew. Elsewhere it is [`Site::Result`] once more, and not in the
        /// catalogue. TransformerLens has no such hook.
        HeadOut = "hook_head_out";
        /// `blocks.{l}.hook_attn_out` `[batch, pos, d_model]`: what the attention layer adds to the residual
        /// stream.
        AttnOut = "hook_attn_out";
        /// `blocks.{l}.hook_resid_mid` `[batch, pos, d_model]`: between attention and MLP.
        ResidMid = "hook_resid_mid";
        /// `blocks.{l}.hook_mlp_in` `[batch, pos, d_model]`: the residual stream as the MLP reads it,
        /// before the norm; changing it changes nothing else.
        MlpIn = "hook_mlp_in";
        /// `blocks.{l}.ln2.hook_scale` `[batch, pos, 1]`: √(variance + ε) of the MLP's norm.
        Ln2Scale = "ln2.hook_scale";
        /// `blocks.{l}.ln2.hook_normalized` `[batch, pos, d_model]`: output of the MLP's norm.
        Ln2Normalized = "ln2.hook_normalized";
        /// `blocks.{l}.mlp.hook_in` `[batch, pos, d_model]`: what the MLP's weights multiply: the output of its norm with
        /// gain and bias. Where the gain is not folded into the weights, [`Site::Ln2Normalized`] of an RMS norm is
        /// without it. The input of transcoders, under circuit-tracer's name for it.
        MlpHookIn = "mlp.hook_in";
        /// `blocks.{l}.mlp.hook_pre` `[batch, pos, d_mlp]`: before the nonlinearity; of a gated MLP the
        /// gate.
        MlpPre = "mlp.hook_pre";
        /// `blocks.{l}.mlp.hook_pre_linear` `[batch, pos, d_mlp]`: what the gate of a gated MLP multiplies.
        MlpPreLinear = "mlp.hook_pre_linear";
        /// `blocks.{l}.mlp.hook_post` `[batch, pos, d_mlp]`: after the nonlinearity and the gate.
        MlpPost = "mlp.hook_post";
        /// `blocks.{l}.ln2_post.hook_scale` `[batch, pos, 1]`: of the norm of the MLP's output.
        Ln2PostScale = "ln2_post.hook_scale";
        /// `blocks.{l}.ln2_post.hook_normalized` `[batch, pos, d_model]`: output of that norm, before its
        /// gain.
        Ln2PostNormalized = "ln2_post.hook_normalized";
        /// `blocks.{l}.hook_mlp_out` `[batch, pos, d_model]`: what the MLP adds to the residual stream.
        MlpOut = "hook_mlp_out";
        /// `blocks.{l}.hook_resid_post` `[batch, pos, d_model]`: residual stream after the block.
        ResidPost = "hook_resid_post";
    }
    after {
        /// `ln_final.hook_scale` `[batch, pos, 1]`: √(variance + ε) of the final norm.
        LnFinalScale = "ln_final.hook_scale";
        /// `ln_final.hook_normalized` `[batch, pos, d_model]`: output of the final norm.
        LnFinalNormalized = "ln_final.hook_normalized";
        /// `logits` `[batch, pos, d_vocab]`: output of the unembedding.
        Logits = "logits";
    }
}

impl Site {
    /// Which axis of the tensor runs over heads, if one does.
    #[must_use]
    pub fn head_axis(self) -> Option<usize> {
        match self {
            Self::QInput(_)
            | Self::KInput(_)
            | Self::VInput(_)
            | Self::Q(_)
            | Self::K(_)
            | Self::V(_)
            | Self::RotQ(_)
            | Self::RotK(_)
            | Self::Z(_)
            | Self::Result(_)
            | Self::HeadOut(_) => Some(2),
            Self::AttnScores(_) | Self::Pattern(_) => Some(1),
            _ => None,
        }
    }

    /// Which axis of the tensor runs over positions; of queries, where there is one of keys as well.
    #[must_use]
    pub fn position_axis(self) -> usize {
        if self.head_axis() == Some(1) { 2 } else { 1 }
    }

    /// Number of axes of the tensor: 4 where one runs over heads, else 3.
    #[must_use]
    pub fn rank(self) -> usize {
        if self.head_axis().is_some() { 4 } else { 3 }
    }
}

impl Ord for Site {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Site {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer() {
            Some(layer) => write!(f, "blocks.{layer}.{}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

impl FromStr for Site {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = || ParseError {
            what: "a site",
            found: s.to_owned(),
            expected: "a TransformerLens hook name such as `blocks.3.attn.hook_z`, or `logits`",
        };
        if let Some((site, _)) = Self::BEFORE
            .iter()
            .chain(Self::AFTER)
            .find(|(_, name)| *name == s)
        {
            return Ok(*site);
        }
        let (layer, name) = s
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'))
            .ok_or_else(error)?;
        let digits = !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit());
        let layer = layer.parse().ok().filter(|_| digits).ok_or_else(error)?;
        let (site, _) = Self::BLOCK
            .iter()
            .find(|(_, suffix)| *suffix == name)
            .ok_or_else(error)?;
        Ok(site(layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SiteCatalog;

    #[test]
    fn every_site_parses_back_and_orders_as_listed() {
        let sites = SiteCatalog::full(12).sites();
        assert_eq!(sites.len(), 2 + 12 * 31 + 3);
        for pair in sites.windows(2) {
            assert!(pair[0] < pair[1], "{} before {}", pair[0], pair[1]);
        }
        for site in sites {
            assert_eq!(site.to_string().parse::<Site>(), Ok(site));
        }
        assert_eq!("blocks.11.attn.hook_z".parse::<Site>(), Ok(Site::Z(11)));
    }

    #[test]
    fn strict_parsing() {
        for s in [
            "",
            "blocks.+1.attn.hook_z",
            "blocks..attn.hook_z",
            "blocks.1.hook_z",
            "z1",
            "Logits",
        ] {
            assert!(s.parse::<Site>().is_err(), "{s:?}");
        }
    }
}
