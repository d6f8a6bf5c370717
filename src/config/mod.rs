//! Flags, environment and `pgflume.json` → what a command needs. Whatever is missing or malformed is one line that names
//! the variable or the place and the remedy; secrets come from the environment or from files, never from flags.

pub mod file;
mod options;
mod pair;
pub(crate) mod replace;
mod secrets;
mod tokens;

pub(crate) use options::line;
pub use options::{Config, GlobalOptions};
pub use pair::{Chosen, Origin, Pair};
pub use secrets::{Signatures, secret, signature};
pub(crate) use tokens::TokenOptions;
pub use tokens::TokenSources;
