//! The rules of the seam between a step and its Postgres (`src/postgres/link`), written once and run on each
//! implementation: on the real one by `tests/suite/link.rs`, on the one in memory by `tests/model`. Where the two differ,
//! Postgres is right.

mod books;
mod flight;
mod reads;
mod takes;

pub use books::*;
pub use flight::*;
pub use reads::*;
pub use takes::*;

use async_trait::async_trait;
use pgflume::core::error::{Cause, Error, Result};
use pgflume::core::position::Head;
use pgflume::core::schema::Schema;
use pgflume::postgres::books::progress::Snapshot;
use pgflume::postgres::catalog::SourceTable;
use pgflume::postgres::link::{Begun, Known, Link, Opened};
use pgflume::postgres::queue::{Paused, Take, TakenMessages};
use std::sync::Arc;
use std::time::Duration;

/// `t` is captured. `w` is not, and has rows that are odd.
pub const SCHEMA: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "w":{"primaryKey":"id","columns":{"id":"INTEGER","n":"INTEGER"},
         "where":"10 / d is not null and (d <> 2 or pg_catalog.pg_sleep(60) is not null)"}}"#;

/// What is wrong with a row of `w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// Nothing.
    Fits,
    /// A value does not fit its column.
    Unfit,
    /// Reading it fails.
    Unreadable,
    /// Reading it takes a minute.
    Slow,
}

/// What somebody locks against everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The table `t`.
    Table,
    /// The queue.
    Queue,
}

/// An implementation, with the tables of [`SCHEMA`], all of them empty.
#[async_trait]
pub trait Bench: Send + Sync {
    /// A connection for a step, or beside one.
    async fn connect(&self) -> Box<dyn Link>;

    /// An application's transaction.
    async fn begin(&self) -> Box<dyn Application>;

    /// Writes a row of `w`.
    async fn put_odd(&self, id: i64, odd: Odd);

    /// Drops `t`'s column `v` and makes it anew.
    async fn remake_column(&self);
}

/// The open transaction of an application. What it cannot do in time, it says.
#[async_trait]
pub trait Application: Send {
    /// Inserts or updates a row of `t`.
    async fn put(&mut self, id: i64, v: &str);

    /// Deletes a row of `t`.
    async fn delete(&mut self, id: i64);

    /// Gives a row of `t` another key.
    async fn rekey(&mut self, from: i64, to: i64);

    /// Empties `t`; whether it had its lock in time.
    async fn truncate(&mut self, patience: Duration) -> bool;

    /// Puts a message on the queue; its id.
    async fn send(&mut self, text: &str) -> i64;

    /// Takes a message off the queue, as others do.
    async fn delete_message(&mut self, id: i64);

    /// Reads a message as other consumers of the queue do.
    async fn touch_message(&mut self, id: i64);

    /// Locks this against everybody; whether it had its lock in time.
    async fn lock(&mut self, place: Place, patience: Duration) -> bool;

    /// Commits.
    async fn commit(self: Box<Self>);

    /// Gives it up.
    async fn rollback(self: Box<Self>);
}

/// Gives each name of a rule to the macro `$make`, all at once.
macro_rules! each_rule {
    ($make:ident) => {
        $make! {
            a_step_sees_rows_and_messages_as_of_one_snapshot
            the_snapshot_is_taken_behind_the_locks
            who_waits_for_locks_sees_what_is_committed_meanwhile
            one_has_the_flight_at_a_time
            a_step_may_open_with_what_it_takes
            a_step_that_cannot_open_takes_nothing
            what_is_seen_beside_a_step_holds_if_it_saw_as_much
            a_dropped_link_gives_the_flight_back
            the_flight_is_waited_for_as_long_as_one_may
            a_step_that_was_overtaken_says_so
            a_step_does_not_wait_for_its_locks
            who_waits_for_a_table_comes_before_the_next_step
            a_table_is_waited_for_a_moment
            the_queue_is_waited_for_a_moment
            a_step_keeps_truncations_away
            a_truncation_empties_what_was_not_locked
            a_failure_is_cured_by_a_savepoint_only
            a_failed_transaction_ends_without_a_word
            a_statement_on_its_own_leaves_nothing_open
            statements_run_in_the_order_in_which_they_were_begun
            what_is_flushed_is_on_disk
            the_name_of_a_step_is_known_to_others
            notes_are_counted
            an_epoch_is_announced_and_paired
            past_epochs_are_remembered
            a_request_is_redeemed_once
            losses_are_told_once
            the_catalog_is_watched
            ids_are_not_in_the_order_of_commits
            a_take_leaves_what_it_was_told_to_leave
            a_take_says_whether_there_is_more
            a_take_is_cut_where_it_has_bytes_enough
            a_message_that_is_too_large_comes_without_its_text
            what_was_taken_is_given_back_but_for_what_is_acknowledged
            an_acknowledgement_gives_what_was_there_in_order
            a_message_that_somebody_deleted_overtakes
            a_message_that_somebody_has_read_overtakes
            a_message_that_somebody_holds_is_locked
            what_is_kept_is_put_back_in_its_place
            what_is_older_than_the_window_is_forgotten
            what_is_sent_again_has_its_id_where_that_is_free
            marks_are_messages_like_others
            the_queue_is_counted
            fates_are_told_by_what_is_queued
            triggers_mark_what_changed
            rows_are_found_under_their_keys
            a_key_that_is_none_is_an_error_of_a_row
            a_row_that_does_not_fit_is_found_so
            a_row_that_cannot_be_read_is_at_fault_alone
            a_row_that_takes_too_long_is_cancelled
            a_span_meets_what_nobody_asked_for
            pages_follow_each_other_in_the_order_of_the_key
            a_page_ends_at_a_row_that_cannot_be_read
            absent_keys_are_found
            an_empty_table_is_empty
            letters_are_told_once
            letters_are_superseded_wholly_or_in_part
            letters_of_a_table_tell_keys
            rebuilds_are_asked_for_and_recorded
            a_sweep_joins_what_is_under_way
            an_empty_table_is_noted_before_its_copy_begins
            rebuilds_begin_anew_or_are_forgotten
            a_problem_is_noted_on_what_waits
            comparisons_go_on_where_they_were
            definitions_succeed_each_other
        }
    };
}
pub(crate) use each_rule;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// Sooner than anybody lets go by himself.
const SHORT: Duration = Duration::from_millis(20);

/// The definitions of both tables.
pub fn schema() -> Arc<Schema> {
    Arc::new(Schema::parse(SCHEMA).unwrap())
}

/// A connection that knows the catalog.
pub struct Worker {
    link: Box<dyn Link>,
    known: Known,
}

impl Worker {
    async fn new(bench: &impl Bench) -> Self {
        let link = bench.connect().await;
        link.ensure().await.unwrap();
        let known = link.known().await.unwrap();
        Self { link, known }
    }

    fn source(&self, table: &str) -> &SourceTable {
        &self.known.sources[table]
    }

    fn t(&self) -> &SourceTable {
        self.source("t")
    }

    fn w(&self) -> &SourceTable {
        self.source("w")
    }

    /// Begins a step with both tables.
    async fn begin(&self) -> Begun {
        self.link.begin(&[self.t(), self.w()]).await.unwrap()
    }

    /// Begins a step and takes the flight.
    async fn step(&self) -> Snapshot {
        assert_eq!(self.begin().await, Begun::Locked);
        self.link.lock().await.unwrap().unwrap()
    }

    /// Pairs the queue with a replica.
    async fn pair(&self) -> Head {
        let snapshot = self.step().await;
        let head = head(1);
        self.link.pair(&head, &snapshot.identity, "here").await.unwrap();
        self.link.commit().await.unwrap();
        head
    }

    /// Opens a step with both tables and takes.
    async fn open(&self, looks: bool) -> Result<Option<Opened>> {
        let paused = Paused::default();
        let tables = [self.t(), self.w()];
        self.link.open(&tables, looks, first_take(&paused), &mut |_| {}).await
    }

    async fn take(&self) -> TakenMessages {
        self.take_as(&Paused::default(), |take| take).await.unwrap()
    }

    async fn take_as<'a>(
        &self,
        paused: &'a Paused<'a>,
        change: impl FnOnce(Take<'a>) -> Take<'a>,
    ) -> Result<TakenMessages> {
        let take = first_take(paused);
        let mut told = Vec::new();
        let taking = self.link.take(change(take), &mut |message| told.push(message.msg_id)).await?;
        let taken: Vec<i64> = taking.messages.iter().map(|message| message.msg_id).collect();
        assert_eq!(told, taken, "each is told as it comes");
        Ok(taking)
    }

    /// Texts of rows of `t` under these keys, in their order.
    async fn values(&self, keys: &[i64]) -> Vec<Option<String>> {
        reads::values(self, keys).await
    }

    /// The messages that are queued now.
    async fn queued(&self) -> Vec<i64> {
        assert_eq!(self.begin().await, Begun::Locked);
        let ids = ids(&self.take().await);
        self.link.rollback().await.unwrap();
        ids
    }
}

fn first_take<'a>(paused: &'a Paused<'a>) -> Take<'a> {
    Take { after: i64::MIN, paused, limit: 100, keeps: false, as_bytes: false, most_bytes: i64::MAX }
}

fn head(seq: i64) -> Head {
    Head { epoch: "e".into(), seq, token: format!("token {seq}") }
}

fn ids(taking: &TakenMessages) -> Vec<i64> {
    let mut ids: Vec<i64> = taking.messages.iter().map(|message| message.msg_id).collect();
    ids.sort_unstable();
    ids
}

/// Code and cause.
fn fault(error: &Error) -> (&str, Option<Cause>) {
    (error.sqlstate().unwrap_or(""), error.cause())
}

/// One row in a transaction of its own.
async fn put(bench: &impl Bench, id: i64, v: &str) {
    let mut application = bench.begin().await;
    application.put(id, v).await;
    application.commit().await;
}

/// One message in a transaction of its own.
async fn send(bench: &impl Bench, text: &str) -> i64 {
    let mut application = bench.begin().await;
    let id = application.send(text).await;
    application.commit().await;
    id
}

/// Waits until something is so.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < LONG, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
