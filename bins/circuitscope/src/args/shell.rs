use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print what makes a shell complete commands, flags and values.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bash, in this shell and in every new one:
    source <(circuitscope completions bash)
    circuitscope completions bash > ~/.local/share/bash-completion/completions/circuitscope
  zsh, in a folder of $fpath:
    circuitscope completions zsh > ~/.zfunc/_circuitscope
  fish:
    circuitscope completions fish > ~/.config/fish/completions/circuitscope.fish
  PowerShell, in $PROFILE:
    circuitscope completions powershell | Out-String | Invoke-Expression")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Write man pages: one of the program, one of each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope man ~/.local/share/man/man1 && man circuitscope-discover")]
pub(crate) struct ManArgs {
    /// Folder to write `circuitscope.1`, `circuitscope-discover.1`, … into
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}
