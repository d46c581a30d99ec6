//! What the tests of several crates share: a backend, golden files and a comparison that says where.
//!
//! Golden files are safetensors written by a Python program that lies beside them. They are read whole
//! into [`Values`], and compared by [`assert_close`], whose message names the worst entry and both of
//! its values, because "max difference 0.3" is no place to start looking.
//!
//! Everything here panics where a library would return an error: a test has nobody to return it to.
//!
//! ```
//! use burn::tensor::Tensor;
//! use circuitscope_testkit::{Flex, Values, assert_close, device};
//!
//! let x = Tensor::<Flex, 2>::from_data([[1.0, 2.0], [3.0, f32::NEG_INFINITY]], &device());
//! let expected = Values::new([2, 2], vec![1.0, 2.0, 3.000_001, f32::NEG_INFINITY]);
//! assert_close(&x.into(), &expected, 1e-5);
//! ```

mod backend;
mod close;
mod golden;
mod shared;

pub use backend::{AutodiffFlex, Flex, device};
pub use close::{Values, assert_close, assert_close_named, worst_difference};
pub use golden::Golden;
pub use shared::{fixture, real_model, shared_fixtures};
