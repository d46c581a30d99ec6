//! The same workload through burn's run-time dispatch, on every compiled backend.

#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use burn::Dispatch;

fn main() -> anyhow::Result<()> {
    for (name, device) in circuitscope_benches::devices() {
        println!("{name}");
        for (what, seconds) in circuitscope_benches::workload::run::<Dispatch>(&device)? {
            println!("{what:32} {:9.2} ms", 1e3 * seconds);
        }
    }
    Ok(())
}
