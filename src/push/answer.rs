//! What became of a request, as it is answered and as the journal keeps it. No IO.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The answer to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The transaction that wrote all of it, as Postgres numbers them for ever (xid8); `None`: nothing was written.
    pub txid: Option<u64>,
    /// Where clients that are fed find it; filled in by whoever waited for it.
    #[serde(default)]
    pub pos: Option<String>,
    /// What became of each change, in their order.
    pub results: Vec<Outcome>,
    /// It was answered before: nothing was done now.
    pub duplicate: bool,
}

/// What became of one change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// In a word.
    pub status: Status,
    /// Of a conflict: the row as it is, `null` where there is none, or none of the client's; left out where it may not
    /// be read, or is large.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub now: Option<Box<RawValue>>,
    /// Of a rejection: Postgres' SQLSTATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What became of a change, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is committed.
    Applied,
    /// The row is not as the client knew it, or not there.
    Conflict,
    /// Postgres refuses it, and will again.
    Rejected,
    /// Not done, because of another change of the request.
    Skipped,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Applied, Self::Conflict, Self::Rejected, Self::Skipped];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
            Self::Skipped => "skipped",
        }
    }
}

/// A `null` that is there is not the same as nothing.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

impl Outcome {
    /// It is committed.
    pub fn applied() -> Self {
        Self { status: Status::Applied, now: None, code: None }
    }

    /// The row is another one.
    pub fn conflict(now: Option<Box<RawValue>>) -> Self {
        Self { status: Status::Conflict, now, code: None }
    }

    /// Postgres refuses it.
    pub fn rejected(code: impl Into<String>) -> Self {
        Self { status: Status::Rejected, now: None, code: Some(code.into()) }
    }

    /// Another one was in the way.
    pub fn skipped() -> Self {
        Self { status: Status::Skipped, now: None, code: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_journal_keeps_is_what_was_answered_to_the_last_digit() {
        let row = RawValue::from_string(r#"{"n":12345678901234567890.10}"#.into()).unwrap();
        let gone = RawValue::from_string("null".into()).unwrap();
        let results = vec![
            Outcome::conflict(Some(row)),
            Outcome::conflict(Some(gone)),
            Outcome::conflict(None),
            Outcome::rejected("23505"),
            Outcome::skipped(),
        ];
        let text = serde_json::to_string(&Answer { txid: Some(7), pos: None, results, duplicate: false }).unwrap();
        assert_eq!(
            text,
            r#"{"txid":7,"pos":null,"results":[{"status":"conflict","now":{"n":12345678901234567890.10}},{"status":"conflict","now":null},{"status":"conflict"},{"status":"rejected","code":"23505"},{"status":"skipped"}],"duplicate":false}"#
        );
        let kept: Answer = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&kept).unwrap(), text);
    }
}
