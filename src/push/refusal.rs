//! What an error of Postgres means for a change: final, or to be tried again. No IO.

use crate::core::error::{Error, ErrorKind};
use tokio_postgres::error::{DbError, ErrorPosition, Severity};

/// The SQLSTATE by which Postgres refuses a change for good; `None`: the same may succeed later.
///
/// A client drops what is refused, and keeps what is not, before all that it has queued behind. So what is refused is what
/// will be again, whatever anybody does: constraints, rights, values, what a trigger raises. Locks, time, connections
/// and resources pass, and a table that is not as the definition says is the operator's to mend.
pub(super) fn code(error: &Error) -> Option<String> {
    // Not Postgres, but what the operator's function gave.
    if *error.kind() == ErrorKind::Row {
        return error.sqlstate().map(str::to_owned);
    }
    let db = error.made_of::<tokio_postgres::Error>()?.as_db_error()?;
    is_final(db).then(|| db.code().code().to_owned())
}

fn is_final(db: &DbError) -> bool {
    let is_ended = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) || db.file().is_none();
    let is_placed = matches!(db.position(), Some(ErrorPosition::Original(_)));
    !is_ended && is_final_code(db.code().code(), is_placed)
}

/// `is_placed`: it is about our statement's own text, and nothing else.
fn is_final_code(code: &str, is_placed: bool) -> bool {
    let is = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    let passes = is(&["08", "25", "40", "53", "55P03", "57", "58", "XX001", "XX002"]);
    // A policy that asks itself, a publication without a key, a column that nobody may set, a foreign server: the operator's.
    let passes = passes || is(&["42P17", "55000", "428C9", "HV"]);
    let is_of_definition = is_placed && is(&["42", "3F", "0A"]) && code != "42501";
    !passes && !is_of_definition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_fail_again_is_refused_and_what_may_pass_is_not() {
        for code in ["23505", "23503", "23514", "42501", "22P02", "22003", "22P05", "P0001", "54001", "XX000"] {
            assert!(is_final_code(code, false), "{code}");
        }
        for code in [
            "40001", "40P01", "55P03", "57014", "57P01", "53100", "08006", "25006", "58030", "42P17", "55000", "428C9",
            "HV00L",
        ] {
            assert!(!is_final_code(code, false), "{code}");
        }
        // A column that is gone is the operator's matter; one that a trigger misses is not ours.
        assert!(!is_final_code("42703", true) && is_final_code("42703", false));
        assert!(is_final_code("42501", true));
    }
}
