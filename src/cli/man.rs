//! `pgflume man`: the command line's own help as man pages.

use super::outcome::CommandResult;
use super::output::{print, say};
use crate::core::config_error::wrong;
use clap_mangen::Man;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print the man page of pgflume, or write one for each command
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Write one file a command there: pgflume.1, pgflume-setup.1, …
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: ManArgs, command: clap::Command) -> CommandResult {
    let mut command = command.disable_help_subcommand(true);
    // Gives each command its whole name, and the flags that all take.
    command.build();
    let Some(directory) = args.dir else {
        print(String::from_utf8(page(&command)?.1)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let pages = pages(&command)?;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&directory)?;
        pages.iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
    };
    write().or_else(|e| wrong(format!("{} cannot be written ({e})", directory.display())))?;
    say(format_args!("{} pages in {}", pages.len(), directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The name of a page's file, and its text.
type Page = (String, Vec<u8>);

/// Of a command and all below it.
fn pages(command: &clap::Command) -> std::io::Result<Vec<Page>> {
    let mut all = vec![page(command)?];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        all.extend(pages(below)?);
    }
    Ok(all)
}

fn page(command: &clap::Command) -> std::io::Result<Page> {
    let mut text = Vec::new();
    let man = Man::new(command.clone()).source(concat!("pgflume ", env!("CARGO_PKG_VERSION")));
    man.render(&mut text)?;
    Ok((man.get_filename(), text))
}
