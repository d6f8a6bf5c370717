//! Standard output and standard error, either of which may end before the command does: `pgflume status | head`.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

/// Whether somebody still reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Yes.
    There,
    /// Nobody does. What the command found stays its exit code.
    Gone,
}

/// Prints a text as it is to standard output.
pub(super) fn print(text: impl Display) -> io::Result<Reader> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(e) => Err(io::Error::new(e.kind(), format!("standard output cannot be written ({e})"))),
    }
}

/// Prints a line.
pub(super) fn say(line: impl Display) -> io::Result<Reader> {
    print(format_args!("{line}\n"))
}

/// Prints a text to standard error, where nobody has to read it.
pub(super) fn note(text: impl Display) {
    write!(io::stderr(), "{text}").ok();
}
