//! A server's row binlog as a queue of marks: which keys of which tables were touched, transaction by transaction. Values
//! of other columns are passed over: rows are read afterwards, at a later moment. Takes a place in the log, gives what
//! happened behind it.
//!
//! MariaDB 10.11 was tried; of MySQL 8 and 9 nothing ran (its own are the events 30 to 42 and [`Event::Rows`] of JSON that
//! was changed in part).

mod image;
mod keys;
mod place;
mod statement;
mod stream;

pub(crate) use keys::{Layout, is_walkable, key_obstacle};
pub(crate) use place::Place;
pub(crate) use statement::Said;
pub(crate) use stream::{Event, Failed, Stream, Tail};
