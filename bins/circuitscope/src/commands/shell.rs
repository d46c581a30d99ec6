//! `completions` and `man`: what shells and `man` know of the command line, made from the command line itself.

use std::path::PathBuf;

use anyhow::Result;
use circuitscope::eval::methods;
use circuitscope::files;
use clap::builder::{PossibleValuesParser, Resettable};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde_json::json;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::output::{Printer, write_all};
use crate::version::VERSION;

pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    // Of what takes a method, shells offer the names, too.
    let names = || PossibleValuesParser::new(methods::names());
    let mut command = Cli::command().mut_subcommands(|below| {
        below.mut_args(|arg| match arg.get_id().as_str() {
            "method" => arg.value_parser(names()).default_value(Resettable::Reset),
            _ => arg,
        })
    });
    clap_complete::generate(args.shell, &mut command, "circuitscope", &mut script);
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
        let man = man_of(page);
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

fn man_of(page: Command) -> Man {
    // What the short help leaves out would stand there without a text.
    Man::new(page.mut_args(|arg| arg.hide_short_help(false)))
        .source(format!("circuitscope {VERSION}"))
        .manual("circuitscope")
}

/// The program, its commands, and theirs.
fn pages(command: Command) -> Vec<Command> {
    let below: Vec<Command> = command.get_subcommands().cloned().collect();
    let below = below.into_iter().flat_map(pages);
    [command].into_iter().chain(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_pages_say_of_every_flag_what_help_says() {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        for page in pages(command) {
            let name = page.get_name().to_owned();
            let flags: Vec<(String, String)> = page
                .get_arguments()
                .filter(|arg| !arg.is_hide_set())
                .filter_map(|arg| {
                    let help = arg.get_help()?.to_string();
                    let words = help.split_whitespace();
                    let words = words.take_while(|word| word.chars().all(char::is_alphanumeric));
                    let words: Vec<&str> = words.take(3).collect();
                    Some((arg.get_id().to_string(), words.join(" ")))
                })
                .collect();
            let mut text = Vec::new();
            man_of(page).render(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap().replace("\\-", "-");
            for (flag, begins) in flags {
                assert!(text.contains(&begins), "{name} {flag}: {begins}");
            }
        }
    }
}
