//! A progress bar on a terminal, and nothing elsewhere: logs tell the rest.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// With a known length.
const BAR: &str = "{msg:20!} {wide_bar} {human_pos} of about {human_len} rows, {per_sec}, {eta}";

/// With an unknown one.
const SPINNER: &str = "{msg:20!} {spinner} {human_pos} rows, {per_sec}";

/// Drawn to standard error if that is a terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub fn new() -> Self {
        Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()))
    }

    /// Shows `rows` of about `estimated`.
    pub fn show(&self, what: &str, rows: u64, estimated: Option<u64>) {
        let template = if estimated.is_some() { BAR } else { SPINNER };
        // The templates are right: a test draws both.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        if let Some(estimated) = estimated {
            self.0.set_length(estimated.max(rows));
        }
        self.0.set_message(what.to_owned());
        self.0.set_position(rows);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_templates() {
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
