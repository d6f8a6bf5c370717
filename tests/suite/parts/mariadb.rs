//! A real MariaDB with a binlog, started by whoever runs the tests.

use mysql_async::{Conn, OptsBuilder};
use pgflume::demo::mariadb;
use std::ops::{Deref, DerefMut};

/// One server.
pub struct MariaDb(mariadb::MariaDb);

impl MariaDb {
    /// Makes its files and starts it, with further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        Self(mariadb::MariaDb::start(arguments, false).unwrap_or_else(|e| panic!("{e}")))
    }

    /// A connection as root.
    pub async fn connect(&self, database: Option<&str>) -> Conn {
        let options = OptsBuilder::default().socket(self.socket().to_str()).user(Some("root")).db_name(database);
        Conn::new(options).await.expect("MariaDB takes a connection")
    }
}

impl Deref for MariaDb {
    type Target = mariadb::MariaDb;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for MariaDb {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
