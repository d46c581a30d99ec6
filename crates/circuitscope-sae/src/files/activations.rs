//! Whether a dictionary was trained on what it is to encode.

use burn::tensor::backend::Backend;
use derive_setters::Setters;

use super::SavedSae;
use super::trained_on::layer_of;
use crate::{Error, Result};

/// Activations that a dictionary is to encode, as far as a caller knows or minds.
#[derive(Debug, Clone, PartialEq, Eq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct Activations {
    /// Their width.
    #[setters(skip)]
    pub width: usize,
    /// Their site under TransformerLens' name, e.g. `blocks.5.mlp.hook_in`.
    #[setters(into)]
    pub hook_name: Option<String>,
    /// Width of the activations that what features write stands for; of an autoencoder their own.
    pub width_out: Option<usize>,
    /// The site of those, e.g. `blocks.5.hook_mlp_out`.
    #[setters(into)]
    pub hook_name_out: Option<String>,
    /// Number of layers of the model.
    pub n_layers: Option<usize>,
    /// Whether the model is rewritten as in [`TrainedOn::folded`](crate::TrainedOn::folded).
    pub folded: Option<bool>,
    /// Whether prompts have a beginning-of-text token.
    pub prepend_bos: Option<bool>,
    /// The first position of a prompt whose activations are encoded.
    pub first_position: Option<u64>,
}

impl Activations {
    /// Of this width, and nothing else known.
    #[must_use]
    pub const fn new(width: usize) -> Self {
        Self {
            width,
            hook_name: None,
            width_out: None,
            hook_name_out: None,
            n_layers: None,
            folded: None,
            prepend_bos: None,
            first_position: None,
        }
    }
}

impl<B: Backend> SavedSae<B> {
    /// Whether it was trained on activations like these. What either side does not say is not compared. A dictionary that
    /// left out the first positions is refused where they are encoded; one that had them may go without.
    ///
    /// # Errors
    /// [`Error::Unsuited`] with the first of: width, layer, site, width and site of what it writes, processing of the model,
    /// beginning-of-text token, positions.
    ///
    /// # Examples
    /// ```
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden/transcoders/saelens-jumprelu_transcoder");
    /// use circuitscope_sae::{Activations, load_dir};
    ///
    /// let saved = load_dir::<burn_flex::Flex>(folder.as_ref(), &Default::default())?;
    /// let here = Activations::new(5).with_hook_name("blocks.3.mlp.hook_in").with_n_layers(12);
    /// saved.suits(&here)?;
    /// saved.suits(&here.clone().with_folded(false))?;
    /// let error = saved.suits(&here.clone().with_folded(true)).unwrap_err();
    /// assert!(error.to_string().ends_with(
    ///     "processing of the model: found folded, expected raw, as it was trained on"
    /// ));
    /// assert!(saved.suits(&here.with_n_layers(3)).is_err());
    /// # Ok::<(), circuitscope_sae::Error>(())
    /// ```
    pub fn suits(&self, here: &Activations) -> Result<()> {
        let on = &self.trained_on;
        let unsuited = |what, found: String, expected: String| Error::Unsuited {
            path: self.folder.clone(),
            what,
            found,
            expected,
        };
        let trained = |expected: String| format!("{expected}, as it was trained on");
        if here.width != self.encoder.d_in() {
            let expected = format!("{}, the dictionary's d_in", self.encoder.d_in());
            return Err(unsuited("width", here.width.to_string(), expected));
        }
        let hooks = [&on.hook_name, &on.hook_name_out].into_iter().flatten();
        for hook in hooks {
            if let (Some(layer), Some(n_layers)) = (layer_of(hook), here.n_layers)
                && layer >= n_layers
            {
                let expected = format!("one below {n_layers}, the number of the model's layers");
                return Err(unsuited("layer", format!("{layer} ({hook})"), expected));
            }
        }
        let differ = |what, found: &Option<String>, own: &Option<String>| match (found, own) {
            (Some(found), Some(own)) if found != own => {
                Err(unsuited(what, found.clone(), trained(own.clone())))
            }
            _ => Ok(()),
        };
        differ("site", &here.hook_name, &on.hook_name)?;
        if let Some(width) = here.width_out
            && width != self.encoder.d_out()
        {
            let expected = format!("{}, the dictionary's d_out", self.encoder.d_out());
            return Err(unsuited(
                "width of what it writes",
                width.to_string(),
                expected,
            ));
        }
        // An autoencoder writes what it reads.
        let written = if self.transcodes {
            &on.hook_name_out
        } else {
            &on.hook_name
        };
        differ("site of what it writes", &here.hook_name_out, written)?;
        let flag = |what, found: Option<bool>, own: Option<bool>, names: [&str; 2]| {
            let name = |flag: bool| names[usize::from(flag)].to_owned();
            match (found, own) {
                (Some(found), Some(own)) if found != own => {
                    Err(unsuited(what, name(found), trained(name(own))))
                }
                _ => Ok(()),
            }
        };
        flag(
            "processing of the model",
            here.folded,
            on.folded,
            ["raw", "folded"],
        )?;
        let bos = ["prompts without one", "prompts with one"];
        flag(
            "beginning-of-text token",
            here.prepend_bos,
            on.prepend_bos,
            bos,
        )?;
        match (here.first_position, on.first_position) {
            (Some(found), Some(own)) if found < own => Err(unsuited(
                "first position",
                found.to_string(),
                trained(format!("{own} or later")),
            )),
            _ => Ok(()),
        }
    }
}
