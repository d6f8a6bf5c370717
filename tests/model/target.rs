//! The replica's server: one committed state, the earlier ones that it may be restored to, and the
//! requests that are on their way to it.

use super::postgres::{Row, Rows};
use pgflume::core::position::{Entry, Head, Standing};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Acknowledged batches that the ledger remembers; far fewer than in truth, so that it matters.
const LEDGER_ROWS: i64 = 2;

/// One committed state. A deleted row keeps the version that it was deleted by.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub head: Option<Head>,
    /// Which Postgres wrote it.
    pub owner: Option<String>,
    pub ledger: BTreeMap<i64, Entry>,
    pub rows: Rows,
}

/// What one transaction of the replica does.
#[derive(Debug, Clone)]
pub enum Request {
    Apply { from: Head, entry: Entry, acknowledged: i64, items: Vec<(usize, usize, Row)> },
    Reset { from: Option<Head>, to: Head, owner: String, empties: bool },
}

impl State {
    /// The compare-and-set: as `head::advance` and `head::assert_at` have it.
    fn is_at(&self, from: Option<&Head>) -> bool {
        self.head.as_ref() == from
    }

    fn run(&mut self, request: &Request) {
        match request {
            Request::Apply { entry, acknowledged, items, .. } => {
                for &(table, key, row) in items {
                    self.rows[table][key] = row;
                }
                self.head = Some(entry.head.clone());
                self.ledger.insert(entry.head.seq, entry.clone());
                let forgotten = acknowledged.min(&entry.head.seq) - LEDGER_ROWS;
                self.ledger.retain(|seq, _| *seq > forgotten);
            }
            Request::Reset { to, owner, empties, .. } => {
                self.head = Some(to.clone());
                self.owner = Some(owner.clone());
                self.ledger.clear();
                if *empties {
                    self.rows = Rows::default();
                }
            }
        }
    }
}

/// A request that was sent.
pub struct Flight {
    pub id: u32,
    pub request: Rc<Request>,
}

#[derive(Default)]
pub struct Target {
    pub now: Rc<State>,
    history: Vec<Rc<State>>,
    pub flights: Vec<Flight>,
    /// What became of requests: the answers that their senders may read.
    pub answers: Vec<(u32, bool)>,
    sent: u32,
}

impl Target {
    pub fn send(&mut self, request: Request) -> u32 {
        self.sent += 1;
        self.flights.push(Flight { id: self.sent, request: Rc::new(request) });
        self.sent
    }

    /// Runs a request: whether it was written. `stays`: a copy of it is still on its way.
    pub fn deliver(&mut self, at: usize, stays: bool, is_fenced: bool) -> (u32, Rc<Request>, bool) {
        let flight = &self.flights[at];
        let (id, request) = (flight.id, flight.request.clone());
        if !stays {
            self.flights.swap_remove(at);
        }
        let from = match &*request {
            Request::Apply { from, .. } => Some(from),
            Request::Reset { from, .. } => from.as_ref(),
        };
        let is_written = !is_fenced || self.now.is_at(from);
        if is_written {
            self.history.push(self.now.clone());
            Rc::make_mut(&mut self.now).run(&request);
        }
        self.answers.push((id, is_written));
        (id, request, is_written)
    }

    /// The answer to a request, once.
    pub fn answer(&mut self, id: u32) -> Option<bool> {
        let at = self.answers.iter().position(|a| a.0 == id)?;
        Some(self.answers.swap_remove(at).1)
    }

    /// As `Replica::ledger_between`.
    pub fn ledger_between(&self, from: &Head, to: &Head) -> Vec<Entry> {
        self.now.ledger.range(from.seq + 1..=to.seq).map(|(_, entry)| entry.clone()).collect()
    }

    /// As `Replica::standing`.
    pub fn standing(&self) -> Standing {
        Standing { head: self.now.head.clone(), owner: self.now.owner.clone(), ..Standing::default() }
    }

    /// As `Replica::sign`, at once.
    pub fn sign(&mut self, owner: &str) {
        Rc::make_mut(&mut self.now).owner = Some(owner.to_owned());
    }

    /// Goes back by some transactions.
    pub fn restore(&mut self, back: usize) {
        if let Some(at) = self.history.len().checked_sub(back.max(1)) {
            self.now = self.history[at].clone();
            self.history.truncate(at);
        }
    }

    pub fn empty(&mut self) {
        self.history.push(std::mem::take(&mut self.now));
    }
}
