//! The crate as its users see it.

#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod ground_truths;
mod lists;
mod other_tokenizers;
mod own_tasks;
mod pairs;
mod parts;
mod reference;
mod tokens;
mod user_parts;
mod user_prompts;
