//! How a command ends.

use std::process::ExitCode;

/// Whatever a command can fail with; printed once, here.
pub(super) type CommandResult = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>;
