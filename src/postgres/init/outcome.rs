//! What `init` is asked for, and what comes out.

use crate::core::draft::InitReport;

/// Whatever a run fails with: a mistake in the arguments, or an [`Error`].
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Patterns of tables; all if there are none.
    pub tables: Vec<String>,
    /// Patterns of tables that are left out.
    pub exclude: Vec<String>,
    /// Whether tables that are there get the columns that they lack.
    pub add_columns: bool,
    /// Whether decimals that a double holds without loss are declared as numbers, which compare and sort as such.
    pub numbers: bool,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The new text; the old one to the byte where nothing was added.
    pub text: String,
    /// What was done and what was not.
    pub report: InitReport,
}
