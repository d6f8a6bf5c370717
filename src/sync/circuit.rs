//! Stops hammering a side that is down. After some failures in a row it opens: calls are refused at once, until a
//! rest is over; then one of them tries, and its success closes it. Knows errors and times, asks nobody.

use crate::core::backoff::Backoff;
use crate::core::chance::Chance;
use crate::core::error::{Error, ErrorKind, Result};
use serde::Serialize;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Failed drains in a row after which a side is taken for down: fewer is a restart or a lost connection.
const MOST_FAILURES: u32 = 5;

/// The same where somebody has to act (credentials, quota): once may be a change of tokens.
const MOST_HALTS: u32 = 2;

/// Rest after passing failures: short, because nobody says when the side is back.
const REST: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// Rest while somebody has to act: never longer than a call of cron comes after the remedy.
const HALTED_REST: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

/// What a caller is told who comes while another one tries.
const TRIAL: Duration = Duration::from_secs(1);

/// Refuses calls while a side is down.
#[derive(Debug, Default)]
pub struct Circuit {
    state: Mutex<CircuitState>,
    chance: Chance,
}

#[derive(Debug, Default)]
struct CircuitState {
    /// Failed drains in a row.
    failures: u32,
    /// Those at the end of them of a whole side.
    halts: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: SystemTime,
    /// Rests in a row.
    rests: u32,
    until: Instant,
    kind: ErrorKind,
    why: String,
    is_tried: bool,
}

/// How the circuit stands; the fields but the first are there unless it is closed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CircuitReport {
    /// `closed`, `open`, or `half-open` when the rest is over and nothing has succeeded yet.
    pub state: &'static str,
    /// Since when it is not closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When the next call is let through, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_seconds: Option<f64>,
    /// The failure that opened it or kept it open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for CircuitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let (Some(since), Some(seconds), Some(reason)) = (&self.since, self.next_try_seconds, &self.reason) {
            write!(f, " since {since}, next try in {:.0} s: {reason}", seconds.ceil())?;
        }
        Ok(())
    }
}

impl CircuitReport {
    /// Whether calls are refused.
    pub fn is_open(&self) -> bool {
        self.state == "open"
    }

    /// Whether the last failure has not been made up for.
    pub fn is_closed(&self) -> bool {
        self.state == "closed"
    }
}

/// Leave to call. Without a verdict it is as if it had not been asked for.
pub(crate) struct Leave<'a> {
    circuit: &'a Circuit,
    is_trial: bool,
}

impl Circuit {
    /// A closed one. Its rests have a random length.
    pub fn new(chance: Chance) -> Self {
        Self { state: Mutex::default(), chance }
    }

    /// Leave to call, or the refusal with the last failure and the time to come back.
    pub(crate) fn enter(&self) -> Result<Leave<'_>> {
        let mut state = self.state();
        let Some(open) = &mut state.open else { return Ok(Leave { circuit: self, is_trial: false }) };
        let left = open.until.saturating_duration_since(Instant::now());
        if left.is_zero() && !open.is_tried {
            open.is_tried = true;
            tracing::warn!(circuit = "half-open", "the next call tries whether both sides work again");
            return Ok(Leave { circuit: self, is_trial: true });
        }
        let left = if left.is_zero() { TRIAL } else { left };
        let text = format!(
            "not tried, because the last tries failed; try again in {:.0} s: {}",
            left.as_secs_f64().ceil(),
            open.why
        );
        Err(Error::new(open.kind.clone(), text).come_back_after(left))
    }

    /// Both sides work.
    pub fn succeeded(&self) {
        let mut state = self.state();
        if state.open.is_some() {
            tracing::info!(circuit = "closed", "both sides answer again");
        }
        *state = CircuitState::default();
    }

    /// A drain failed.
    pub fn failed(&self, error: &Error) {
        let is_refused = match error.kind() {
            ErrorKind::Retry | ErrorKind::Unknown | ErrorKind::Overload | ErrorKind::Locked | ErrorKind::Overtaken => {
                false
            }
            ErrorKind::WholeSide => true,
            // Somebody has to act, but both sides answer.
            ErrorKind::TooLarge | ErrorKind::Row | ErrorKind::Schema | ErrorKind::Table { .. } | ErrorKind::Halt => {
                return self.succeeded();
            }
        };
        let mut state = self.state();
        state.failures += 1;
        state.halts = if is_refused { state.halts + 1 } else { 0 };
        if state.open.is_some()
            || error.retry_after().is_some()
            || state.failures >= MOST_FAILURES
            || state.halts >= MOST_HALTS
        {
            state.rest(error, self.chance.fraction());
        }
    }

    /// How it stands.
    pub fn report(&self) -> CircuitReport {
        let state = self.state();
        let Some(open) = &state.open else {
            return CircuitReport { state: "closed", since: None, next_try_seconds: None, reason: None };
        };
        let left = open.until.saturating_duration_since(Instant::now());
        CircuitReport {
            state: if left.is_zero() { "half-open" } else { "open" },
            since: Some(humantime::format_rfc3339_seconds(open.since).to_string()),
            next_try_seconds: Some(left.as_secs_f64()),
            reason: Some(open.why.clone()),
        }
    }

    fn state(&self) -> MutexGuard<'_, CircuitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CircuitState {
    /// Opens, or rests once more.
    fn rest(&mut self, error: &Error, fraction: f64) {
        let rests = self.open.as_ref().map_or(0, |open| open.rests) + 1;
        let rest = if error.needs_operator() { HALTED_REST } else { REST };
        // A server that names a time is not asked before it.
        let wait = rest.rest(rests, fraction).max(error.retry_after().unwrap_or_default());
        tracing::error!(
            circuit = "open",
            wait_ms = wait.as_millis() as u64,
            error = %error,
            "a side is down or refuses: calls are refused for a while, what is queued stays there"
        );
        self.open = Some(Open {
            since: self.open.as_ref().map_or_else(SystemTime::now, |open| open.since),
            rests,
            until: Instant::now() + wait,
            kind: error.kind().clone(),
            why: error.to_string(),
            is_tried: false,
        });
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.is_trial
            && let Some(open) = &mut self.circuit.state().open
        {
            open.is_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::Side;

    fn down() -> Error {
        Error::retry("it is down")
    }

    fn refused() -> Error {
        Error::side("the token is refused")
    }

    /// Lets the rest pass.
    fn age(circuit: &Circuit) {
        if let Some(open) = &mut circuit.state().open {
            open.until = Instant::now();
        }
    }

    fn rest_of(circuit: &Circuit) -> f64 {
        circuit.report().next_try_seconds.unwrap()
    }

    #[test]
    fn failures_in_a_row_open_it_and_others_do_not() {
        let one_table = || Error::halt("this table").of_table("t", Side::Target);
        let cases: [(&str, Vec<Option<Error>>, bool); 7] = [
            ("four", (0..4).map(|_| Some(down())).collect(), false),
            ("five", (0..5).map(|_| Some(down())).collect(), true),
            ("five unknown", (0..5).map(|_| Some(Error::unknown("?"))).collect(), true),
            ("a success in between", (0..9).map(|i| (i != 4).then(down)).collect(), false),
            ("two halts", vec![Some(refused()), Some(refused())], true),
            ("not in a row", vec![Some(refused()), Some(down()), Some(refused())], false),
            ("one table's", (0..9).map(|_| Some(one_table())).collect(), false),
        ];
        for (name, outcomes, expected) in cases {
            let circuit = Circuit::default();
            for outcome in outcomes {
                drop(circuit.enter().unwrap_or_else(|e| panic!("{name}: {e}")));
                outcome.map_or_else(|| circuit.succeeded(), |e| circuit.failed(&e));
            }
            assert_eq!((circuit.enter().is_err(), circuit.report().is_open()), (expected, expected), "{name}");
        }
    }

    #[test]
    fn one_call_tries_after_the_rest_and_its_success_closes_it() {
        let circuit = Circuit::default();
        (0..5).for_each(|_| circuit.failed(&down()));
        let error = circuit.enter().err().unwrap();
        assert_eq!(error.kind(), &ErrorKind::Retry);
        assert!(error.to_string().contains("it is down"), "{error}");
        assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(1)));
        age(&circuit);
        let trial = circuit.enter().unwrap();
        assert!(circuit.enter().is_err(), "one at a time");
        drop(trial);
        let trial = circuit.enter().unwrap_or_else(|e| panic!("a call that came to nothing: {e}"));
        circuit.failed(&down());
        drop(trial);
        assert!(circuit.enter().is_err(), "it failed again");
        age(&circuit);
        let trial = circuit.enter().unwrap();
        circuit.succeeded();
        drop(trial);
        assert!(circuit.report().is_closed() && circuit.enter().is_ok());
        (0..4).for_each(|_| circuit.failed(&down()));
        assert!(circuit.enter().is_ok(), "counted anew");
    }

    #[test]
    fn rests_double_up_to_their_bound_and_a_servers_own_is_kept() {
        for (error, first, most) in [(down as fn() -> Error, 1.0, 30.0), (refused, 5.0, 60.0)] {
            let circuit = Circuit::default();
            (0..5).for_each(|_| circuit.failed(&error()));
            let mut bound: f64 = first;
            if error().kind() == &ErrorKind::Retry {
                assert!((0.4..=bound).contains(&rest_of(&circuit)));
            }
            for _ in 0..10 {
                age(&circuit);
                circuit.failed(&error());
                bound = (bound * 2.0).min(most);
                assert!(rest_of(&circuit) <= most);
            }
            assert!((most * 0.45..=most).contains(&rest_of(&circuit)), "{}", rest_of(&circuit));
        }
        let circuit = Circuit::default();
        circuit.failed(&down().come_back_after(Duration::from_secs(100)));
        assert!((99.0..=100.0).contains(&rest_of(&circuit)), "at the first failure");
    }
}
