//! What each command does: settings checked, libraries called, results printed.

mod bos;
mod capture;
mod compare;
mod cross_task;
mod dictionary;
mod discover;
mod doctor;
mod encode;
mod eval;
mod eval_text;
mod explain;
mod found_text;
mod gathered;
mod graph;
mod graph_page;
mod graph_report;
mod inputs;
mod judge_files;
mod kept;
mod methods;
mod pages;
mod report;
mod rows;
mod score;
mod shell;
mod splice;
#[cfg(feature = "sweep")]
mod sweep;
mod texts;
mod train;
mod train_tokens;

use anyhow::Result;

use crate::args::{Command, MethodsArgs};
use crate::output::Printer;
use crate::progress::Terminal;

/// Runs a command.
pub(crate) fn run(command: &Command, printer: Printer, progress: &Terminal) -> Result<()> {
    match command {
        Command::Eval(args) => eval::run(args, printer, progress),
        Command::Discover(args) => discover::run(args, printer, progress),
        Command::Compare(args) => compare::run(args, printer, progress),
        Command::Capture(args) => capture::run(args, printer, progress),
        Command::Rows(args) => rows::run(args, printer, progress),
        Command::TrainTokens(args) => train_tokens::run(args, printer, progress),
        Command::Splice(args) => splice::run(args, printer, progress),
        Command::Explain(args) => explain::run(args, printer, progress),
        Command::Graph(args) => graph::run(args, printer, progress),
        Command::Train(args) => train::run(args, printer, progress),
        Command::Encode(args) => encode::run(args, printer),
        Command::Score(args) => score::run(args, printer),
        Command::Report(args) => report::run(args, printer),
        #[cfg(feature = "sweep")]
        Command::Sweep(args) => sweep::run(args, printer, progress),
        Command::Methods(MethodsArgs {}) => methods::run(printer),
        Command::Doctor(args) => doctor::run(args, printer, progress),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args, printer),
    }
}
