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
    /// Whether the model had been rewritten as TransformerLens does it by default: the gains of its norms folded into
    /// what reads them (`fold_ln`), or what writes to the residual stream centred (`center_writing_weights`).
    #[serde(default)]
    pub folded: Option<bool>,
    /// The first position of a prompt whose activations were taken: 1 leaves out position 0.
    #[serde(default)]
    pub first_position: Option<u64>,
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

    /// The site of what a transcoder makes of them without its layer, e.g. `hook_mlp_out`.
    #[must_use]
    pub fn site_out(&self) -> Option<&str> {
        self.hook_name_out.as_deref().map(without_layer)
    }

    /// The layer whose activations they are, where the site is one of a layer.
    ///
    /// ```
    /// # use circuitscope_sae::TrainedOn;
    /// let mut on = TrainedOn::default();
    /// on.hook_name = Some("blocks.5.attn.hook_z".to_owned());
    /// assert_eq!(on.layer(), Some(5));
    /// on.hook_name = Some("hook_embed".to_owned());
    /// assert_eq!(on.layer(), None);
    /// ```
    #[must_use]
    pub fn layer(&self) -> Option<usize> {
        layer_of(self.hook_name.as_deref()?)
    }

    /// What SAELens writes, under its names: `get` looks one up, `name` says where it stands. `default_folded` is what a
    /// model was that was loaded with none of the settings.
    pub(super) fn of_sae_lens(
        cfg: &Keys,
        name: impl Fn(&str) -> String,
        get: impl Fn(&str) -> Option<Value>,
        default_folded: Option<bool>,
    ) -> Result<Self> {
        const MODEL: &str = "model_from_pretrained_kwargs";
        const POSITIONS: &str = "seqpos_slice";
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
        let flag = |key: &str, found: Option<&Value>| match found {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(cfg.wrong(&name(key), Some(other), "true or false")),
        };
        let bos = flag("prepend_bos", found("prepend_bos").as_ref())?;
        let folded = match found(MODEL) {
            None => None,
            Some(Value::Object(settings)) => {
                let setting = |key: &str| flag(&format!("{MODEL}.{key}"), settings.get(key));
                match (setting("fold_ln")?, setting("center_writing_weights")?) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), _) => Some(false),
                    (None, _) => default_folded,
                }
            }
            Some(other) => return Err(cfg.wrong(&name(MODEL), Some(&other), "an object")),
        };
        let first_position = match found(POSITIONS) {
            None => None,
            Some(Value::Array(slice)) if slice.len() <= 3 => match slice.as_slice() {
                // As in Python: one number is the end.
                [] | [_] | [Value::Null, ..] => Some(0),
                // From the end: nothing is known of the first.
                [first, ..] if first.as_i64().is_some_and(|first| first < 0) => None,
                [first, ..] => Some(first.as_u64().ok_or_else(|| {
                    cfg.wrong(&name(POSITIONS), Some(first), "an integer or null")
                })?),
            },
            Some(other) => {
                let wanted = "at most three of start, end and step";
                return Err(cfg.wrong(&name(POSITIONS), Some(&other), wanted));
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
            folded,
            first_position,
        })
    }
}

/// `hook_resid_post` of `blocks.5.hook_resid_post`.
fn without_layer(hook: &str) -> &str {
    split(hook).map_or(hook, |(_, site)| site)
}

/// 5 of `blocks.5.hook_resid_post`.
pub(super) fn layer_of(hook: &str) -> Option<usize> {
    split(hook)?.0.parse().ok()
}

fn split(hook: &str) -> Option<(&str, &str)> {
    let (layer, site) = hook.strip_prefix("blocks.")?.split_once('.')?;
    let digits = !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit());
    digits.then_some((layer, site))
}
