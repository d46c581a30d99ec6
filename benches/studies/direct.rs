//! The workload with the Flex backend as type argument.

#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;

fn main() -> anyhow::Result<()> {
    let device = FlexDevice;
    for (what, seconds) in circuitscope_benches::workload::run::<Flex>(&device)? {
        println!("{what:32} {:9.2} ms", 1e3 * seconds);
    }
    Ok(())
}
