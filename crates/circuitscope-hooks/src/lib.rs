//! Where a forward pass can be watched and changed.
//!
//! A [`Site`] is a typed name for one activation of a transformer; it prints and parses as the
//! TransformerLens hook name and knows its shape. A [`Tap`] is handed to *one* forward pass: it says
//! which sites it wants, sees each of them and may return something else. Nothing is stored on the
//! model, so nothing can leak from one pass into the next, and a pass with [`NoTap`] pays nothing.
//!
//! Three decisions follow from that:
//!
//! * The pass computes up to the last site that some tap wants, in forward order, and stops there.
//!   What nobody wants (logits, per-head results, the last MLP) is never computed.
//! * Taps compose as tuples, left to right: `(intervene, capture)` captures what the intervention
//!   left behind, `(capture, intervene)` what it found.
//! * A site that was asked for and did not fire is an error ([`Capture::finish`]), never an empty
//!   result; a name that the model does not have is refused before the pass ([`SiteCatalog`]).
//!
//! ```
//! use circuitscope_hooks::{Site, SiteCatalog};
//!
//! # fn main() -> Result<(), circuitscope_hooks::Error> {
//! let model = SiteCatalog::full(2);
//! let sites = model.resolve("blocks.*.attn.hook_z,logits")?;
//! assert_eq!(sites, [Site::Z(0), Site::Z(1), Site::Logits]);
//!
//! let error = model.resolve("blocks.0.attn.hook_zz").unwrap_err();
//! assert!(error.to_string().contains("did you mean `blocks.0.attn.hook_z`"));
//! # Ok(())
//! # }
//! ```

#![recursion_limit = "256"]

mod any_tensor;
mod capture;
mod catalog;
mod edge_patch;
mod error;
mod gradients;
mod head_means;
mod intervene;
mod nodes;
mod precision;
mod site;
mod store;
mod stream;
mod tap;

pub use any_tensor::AnyTensor;
pub use capture::{Capture, Reduce};
pub use catalog::SiteCatalog;
pub use edge_patch::EdgePatch;
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use head_means::HeadMeans;
pub use intervene::{Intervene, Intervention, Op};
pub use nodes::NodeOutputs;
pub use precision::wide;
pub use site::Site;
pub use store::{ACTIVATIONS, HeadActivations};
pub use stream::StreamOutputs;
pub use tap::{NoTap, Positions, Tap};
