//! `pgflume completions`: what a shell reads to complete commands and flags.

use super::outcome::CommandResult;
use super::output::print;
use std::process::ExitCode;

/// Print what a shell reads to complete commands and flags
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl From<Shell> for clap_complete::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}

pub(super) fn run(args: CompletionsArgs, mut command: clap::Command) -> CommandResult {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(clap_complete::Shell::from(args.shell), &mut command, name, &mut script);
    print(String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
