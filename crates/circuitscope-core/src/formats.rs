//! Headers of safetensors files.

mod safetensors;

pub use safetensors::{f32_header, ordered_header};
