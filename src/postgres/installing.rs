//! What every transaction begins and ends with that makes something of ours in Postgres, by `setup` or by a worker at
//! first contact: one installation at a time, nothing of a stranger's taken for ours, nothing left to strangers. No IO.

/// Makes the schema `pgflume` and the table by whose lock installations wait for each other.
pub(crate) const SCHEMA: &str = include_str!("../../sql/schema.sql");

/// Lets one installation run at a time.
const ALONE: &str = include_str!("../../sql/alone.sql");

/// Refuses what somebody else has made under our names (SQLSTATE PF002).
pub(crate) const OURS: &str = include_str!("../../sql/ours.sql");

/// Refuses roles of our names that somebody else has a hand in (SQLSTATE PF002).
pub(crate) const OUR_ROLES: &str = include_str!("../../sql/our_roles.sql");

/// Takes back what default privileges have given to others.
const PRIVATE: &str = include_str!("../../sql/private.sql");

/// Statements that make something of ours, with what belongs around them; to be run in a transaction.
pub(crate) fn guarded(sql: &str) -> String {
    format!("{ALONE}{OURS}{}\n{PRIVATE}", sql.trim_end())
}
