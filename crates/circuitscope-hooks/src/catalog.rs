use std::collections::BTreeSet;

use circuitscope_core::nearest;
use derive_setters::Setters;

use crate::{Error, Result, Site};

/// Which sites a model has. Made from its configuration; plans are checked against it before a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about a model, not states"
)]
#[non_exhaustive]
pub struct SiteCatalog {
    /// Number of layers.
    pub n_layers: usize,
    /// Whether the blocks have no MLP.
    pub attn_only: bool,
    /// Whether the blocks have norms.
    pub block_norms: bool,
    /// Whether there is a final norm.
    pub final_norm: bool,
    /// Whether there is a position embedding.
    pub position_embedding: bool,
    /// Whether queries and keys are rotated by their positions.
    pub rotary: bool,
    /// Whether attention and MLP read the same residual stream, so that there is none between them.
    pub parallel: bool,
    /// Whether the MLPs are gated.
    pub gated: bool,
    /// Whether the outputs of attention and MLP are normalised.
    pub post_norms: bool,
}

impl SiteCatalog {
    /// A model with every site there is.
    #[must_use]
    pub const fn full(n_layers: usize) -> Self {
        Self {
            n_layers,
            attn_only: false,
            block_norms: true,
            final_norm: true,
            position_embedding: true,
            rotary: true,
            parallel: false,
            gated: true,
            post_norms: true,
        }
    }

    /// Whether the model has `site`.
    #[must_use]
    pub fn contains(&self, site: Site) -> bool {
        if site.layer().is_some_and(|layer| layer >= self.n_layers) {
            return false;
        }
        match site {
            Site::PosEmbed => self.position_embedding,
            Site::Ln1Scale(_) | Site::Ln1Normalized(_) => self.block_norms,
            Site::Ln2Scale(_) | Site::Ln2Normalized(_) => self.block_norms && !self.attn_only,
            Site::RotQ(_) | Site::RotK(_) => self.rotary,
            Site::Ln1PostScale(_) | Site::Ln1PostNormalized(_) | Site::HeadOut(_) => {
                self.post_norms
            }
            Site::Ln2PostScale(_) | Site::Ln2PostNormalized(_) => {
                self.post_norms && !self.attn_only
            }
            Site::ResidMid(_) => !self.attn_only && !self.parallel,
            Site::MlpPreLinear(_) => !self.attn_only && self.gated,
            Site::MlpIn(_)
            | Site::MlpHookIn(_)
            | Site::MlpPre(_)
            | Site::MlpPost(_)
            | Site::MlpOut(_) => !self.attn_only,
            Site::LnFinalScale | Site::LnFinalNormalized => self.final_norm,
            _ => true,
        }
    }

    /// Every site of the model, in forward order.
    #[must_use]
    pub fn sites(&self) -> Vec<Site> {
        let before = Site::BEFORE.iter().map(|(site, _)| *site);
        let blocks = (0..self.n_layers)
            .flat_map(|layer| Site::BLOCK.iter().map(move |(site, _)| site(layer)));
        let after = Site::AFTER.iter().map(|(site, _)| *site);
        before
            .chain(blocks)
            .chain(after)
            .filter(|site| self.contains(*site))
            .collect()
    }

    /// The sites that a comma-separated list names, in forward order and without repetition.
    ///
    /// `*` stands for any run of characters: `blocks.*.attn.hook_z`, `blocks.0.attn.hook_*`.
    ///
    /// # Errors
    /// [`Error::UnknownSite`] for an entry that names no site of this model, with the nearest one.
    pub fn resolve(&self, list: &str) -> Result<Vec<Site>> {
        let named: Vec<(Site, String)> = self
            .sites()
            .into_iter()
            .map(|site| (site, site.to_string()))
            .collect();
        let mut found = BTreeSet::new();
        for entry in list.split(',').map(str::trim) {
            let mut hits = 0usize;
            for (site, name) in &named {
                if glob(entry, name) {
                    found.insert(*site);
                    hits += 1;
                }
            }
            if hits == 0 {
                return Err(Error::UnknownSite {
                    name: entry.to_owned(),
                    nearest: self.nearest(entry, named.iter().map(|(_, name)| name.as_str())),
                });
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The name most like `entry`. One of a layer that the model does not have is looked for in its
    /// last layer: there is no typing error in it, only a number that is too large.
    fn nearest<'a>(
        &self,
        entry: &str,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<String> {
        let entry = self
            .in_last_layer(entry)
            .unwrap_or_else(|| entry.to_owned());
        if names.clone().any(|name| glob(&entry, name)) {
            return Some(entry);
        }
        nearest(&entry, names).map(str::to_owned)
    }

    /// `blocks.9.…` as `blocks.3.…` in a model of four layers; `None` for a name of another form or
    /// of a layer that is there.
    fn in_last_layer(&self, entry: &str) -> Option<String> {
        let (layer, rest) = entry.strip_prefix("blocks.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let last = self.n_layers.checked_sub(1)?;
        (layer > last).then(|| format!("blocks.{last}.{rest}"))
    }
}

/// Whether `text` matches `pattern`, where `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && glob(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_in_forward_order_without_repetition() {
        let model = SiteCatalog::full(2);
        let sites = model
            .resolve("logits, blocks.*.attn.hook_z,blocks.1.attn.hook_z, *.hook_mlp_out")
            .unwrap();
        assert_eq!(
            sites,
            [
                Site::Z(0),
                Site::MlpOut(0),
                Site::Z(1),
                Site::MlpOut(1),
                Site::Logits
            ]
        );
        assert_eq!(model.resolve("*").unwrap(), model.sites());
    }

    #[test]
    fn refuses_sites_that_the_model_lacks() {
        let model = SiteCatalog {
            attn_only: true,
            ..SiteCatalog::full(2)
        };
        for name in [
            "blocks.0.hook_mlp_out",
            "blocks.2.attn.hook_z",
            "blocks.*.mlp.*",
            "",
            "hook_z",
        ] {
            assert!(
                matches!(model.resolve(name), Err(Error::UnknownSite { .. })),
                "{name:?}"
            );
        }
        let message = model
            .resolve("blocks.1.attn.hook_zed")
            .unwrap_err()
            .to_string();
        assert_eq!(
            message,
            "this model has no site `blocks.1.attn.hook_zed` (did you mean `blocks.1.attn.hook_z`?)"
        );
    }

    #[test]
    fn a_layer_too_many_means_the_last_one() {
        let model = SiteCatalog::full(4);
        for (name, meant) in [
            ("blocks.9.hook_resid_pre", Some("blocks.3.hook_resid_pre")),
            ("blocks.4.attn.hook_*", Some("blocks.3.attn.hook_*")),
            ("blocks.12.hook_resid_prr", Some("blocks.3.hook_resid_pre")),
            ("blocks.1.hook_resid_prr", Some("blocks.1.hook_resid_pre")),
            ("blocks.9.nothing_like_this_at_all", None),
        ] {
            let Err(Error::UnknownSite { nearest, .. }) = model.resolve(name) else {
                panic!("{name} is refused");
            };
            assert_eq!(nearest.as_deref(), meant, "{name}");
        }
    }
}
