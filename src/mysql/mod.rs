//! All that speaks to MySQL and MariaDB: where one is, sessions, the catalog, types and values. Of what is read of it,
//! `provider` decides.

pub(crate) mod binlog;
pub(crate) mod catalog;
pub(crate) mod references;
pub(crate) mod session;
pub(crate) mod types;
mod url;
pub(crate) mod values;

pub use url::MySqlUrl;
