//! The command line of circuitscope: the only place that names a backend, reads the environment,
//! prints and draws progress bars. What it does is in the libraries; run `circuitscope --help`.

#![recursion_limit = "256"]

mod args;
mod commands;
mod config;
mod device;
mod failure;
#[cfg(feature = "hub")]
mod hub;
mod interrupt;
mod memory;
mod output;
mod progress;
mod provenance;
mod startup;
mod version;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Refused};
use crate::output::Printer;
use crate::progress::Terminal;

fn main() -> ExitCode {
    failure::report_bugs_in_one_line();
    let cli = match Cli::parsed() {
        Ok(cli) => cli,
        Err(Refused::Usage(error)) => return failure::usage(&error),
        Err(Refused::Config(error)) => return failure::exit_code(Err(error.into())),
    };
    let settings = &cli.settings;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(settings.log_level().as_str()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output::Log::default)
        .with_ansi(false)
        .without_time()
        .init();
    startup::settle();
    let terminal = Terminal::new(settings.quiet == 0);
    if let Err(error) = interrupt::catch({
        let terminal = terminal.clone();
        move || terminal.clear()
    }) {
        tracing::warn!("Ctrl-C will not stop cleanly: {error}");
    }
    let printer = Printer::new(settings.format);
    let outcome = commands::run(&cli.command, printer, &terminal);
    terminal.clear();
    failure::exit_code(outcome)
}
