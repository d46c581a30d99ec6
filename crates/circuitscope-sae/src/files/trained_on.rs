//! What a dictionary was trained on, as its folder says.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::Keys;
use crate::Result;

/// The activations that a dictionary was trained on, as far as its folder tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TrainedOn {
    /// The model, under its own or TransformerLens' name.
    pub model: Option<String>,
    /// The site, under TransformerLens' name, e.g. `blocks.5.hook_resid_post`.
    pub hook_name: Option<String>,
    /// The site of what a transcoder makes of them, under TransformerLens' name, e.g. `blocks.5.hook_mlp_out`.
    #[serde(default)]
    pub hook_name_out: Option<String>,
    /// The only head whose activations were taken.
    pub hook_head_index: Option<u64>,
    /// Whether its prompts had a beginning-of-text token.
    pub prepend_bos: Option<bool>,
}

impl TrainedOn {
    /// The site without its layer, e.g. `hook_resid_post`.
    ///
    /// ```
    /// # use circuitscope_sae::TrainedOn;
    /// let mut on = TrainedOn::default();
    /// assert_eq!(on.site(), None);
    /// on.hook_name = Some("blocks.5.attn.hook_z".to_owned());
    /// assert_eq!(on.site(), Some("attn.hook_z"));
    /// on.hook_name = Some("hook_embed".to_owned());
    /// assert_eq!(on.site(), Some("hook_embed"));
    /// ```
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        self.hook_name.as_deref().map(without_layer)
    }

    /// What SAELens writes, under its names: `keys` looks one up, `name` says where it stands.
    pub(super) fn of_sae_lens(
        cfg: &Keys,
        name: impl Fn(&str) -> String,
        get: impl Fn(&str) -> Option<Value>,
    ) -> Result<Self> {
        let found = |key: &str| get(key).filter(|value| !value.is_null());
        let text = |key: &str| match found(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(cfg.wrong(&name(key), Some(&other), "a text")),
        };
        let head = |key: &str| match found(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(head) => Ok(Some(head)),
                None => Err(cfg.wrong(&name(key), Some(&value), "a number of a head, from 0")),
            },
        };
        let bos = match found("prepend_bos") {
            None => None,
            Some(Value::Bool(bos)) => Some(bos),
            Some(other) => {
                return Err(cfg.wrong(&name("prepend_bos"), Some(&other), "true or false"));
            }
        };
        let hook_name = match text("hook_name")? {
            // Before SAELens 3.
            None => text("hook_point")?,
            some => some,
        };
        let hook_head_index = match head("hook_head_index")? {
            None => head("hook_point_head_index")?,
            some => some,
        };
        Ok(Self {
            model: text("model_name")?,
            hook_name,
            hook_name_out: text("hook_name_out")?,
            hook_head_index,
            prepend_bos: bos,
        })
    }
}

/// `hook_resid_post` of `blocks.5.hook_resid_post`.
fn without_layer(hook: &str) -> &str {
    let rest = hook
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'));
    match rest {
        Some((layer, site)) if !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit()) => {
            site
        }
        _ => hook,
    }
}
