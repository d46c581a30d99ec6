use std::path::PathBuf;

use circuitscope::hooks::Site;
use clap::Args;

use crate::device::DeviceName;

/// Show what this program can compute on, and check that it computes correctly.
///
/// Every device that is present runs a small model and a short training; the results are compared
/// with a record that was made on a CPU and is inside the program. Gradients of the model are compared
/// with differences of its outputs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  circuitscope doctor --format json
  circuitscope doctor --inject-fault blocks.2.hook_mlp_out

Exit code 1 if a device computes wrongly.")]
pub(crate) struct DoctorArgs {
    /// Check this device only, and fail if it is not there
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Scale this activation of the small model by 1.001 (where gradients are taken: 1.05), as a wrong
    /// kernel might: the check must fail and name it
    #[arg(long, value_name = "SITE")]
    pub(crate) inject_fault: Option<Site>,
    /// Write a new record instead, made on the CPU
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) write_record: Option<PathBuf>,
}
