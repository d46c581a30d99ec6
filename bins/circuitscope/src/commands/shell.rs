//! `completions` and `man`: what shells and `man` know of the command line, made from the command line itself.

use std::path::PathBuf;

use anyhow::Result;
use circuitscope::files;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde_json::json;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::output::{Printer, write_all};
use crate::version::VERSION;

pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "circuitscope", &mut script);
    write_all(&String::from_utf8(script)?)
}

pub(crate) fn man(args: &ManArgs, printer: Printer) -> Result<()> {
    // The page of a release is the same whoever builds it.
    let mut command = Cli::command()
        .long_version(VERSION)
        .disable_help_subcommand(true);
    command.build();
    let mut written = Vec::new();
    for page in pages(command) {
        let man = Man::new(page)
            .source(format!("circuitscope {VERSION}"))
            .manual("circuitscope");
        let path = args.folder.join(man.get_filename());
        files::write_atomic(&path, |file| man.render(file))?;
        written.push(path);
    }
    let paths: Vec<String> = written
        .iter()
        .map(|path: &PathBuf| path.display().to_string())
        .collect();
    printer.print(&json!({ "written": paths }), || paths.join("\n"))
}

/// The program, its commands, and theirs.
fn pages(command: Command) -> Vec<Command> {
    let below: Vec<Command> = command.get_subcommands().cloned().collect();
    let below = below.into_iter().flat_map(pages);
    [command].into_iter().chain(below).collect()
}
