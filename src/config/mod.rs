//! Flags, environment and `pgflume.json` → what a command needs. Whatever is missing or malformed is one line that names
//! the variable or the place and the remedy; secrets come from the environment or from files, never from flags.

mod feeding;
pub mod file;
mod options;
mod pair;
pub(crate) mod replace;
mod secrets;
mod tokens;

pub use feeding::Feeding;
pub use options::{Config, GlobalOptions};
pub(crate) use options::{line, push_url, secret_line};
pub use pair::{Chosen, Origin, Pair};
pub use secrets::{Signatures, secret, signature};
pub(crate) use tokens::TokenOptions;
pub use tokens::TokenSources;
