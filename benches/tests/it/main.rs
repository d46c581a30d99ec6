//! Checks of what the benches rest on.

#[cfg(feature = "flex")]
mod backends;
mod threads;
