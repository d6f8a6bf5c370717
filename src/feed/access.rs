//! Who may read which rows of a table: what its definition says of the claims of a token. No IO.

use super::filter::narrow;
use crate::core::claims::Claims;
use crate::core::schema::{ColumnType, Feed, Readers, Table};
use crate::core::value::{Cell, from_text};
use crate::replica::feed_reads::Allowed;
use serde_json::Value;

/// Most values of a claim.
const MOST_VALUES: usize = 500;

/// Why somebody may not read a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// A token is needed.
    Anonymous,
    /// The token lacks this claim, or has one there that compares with nothing.
    Lacks(String),
}

/// Whether a table is read with a token.
pub fn needs_token(table: &Table) -> bool {
    table.feed.as_ref().is_some_and(|feed| feed.readers != Readers::Anybody)
}

/// Leaves of what is allowed only what these claims may read.
pub fn restrict(allowed: &mut Allowed, table: &Table, claims: Option<&Claims>) -> Result<(), Denied> {
    let Some(Feed { readers: Readers::Matching(matches), .. }) = &table.feed else { return Ok(()) };
    let claims = claims.ok_or(Denied::Anonymous)?;
    for one in matches {
        let lacks = || Denied::Lacks(one.claim.clone());
        let column = table.position(&one.column).ok_or_else(lacks)?;
        let kind = table.columns[column].kind;
        let claim = claims.get(&one.claim).ok_or_else(lacks)?;
        let values = match claim {
            Value::Array(list) if list.len() > MOST_VALUES => return Err(lacks()),
            Value::Array(list) => list.iter().map(|value| cell(kind, value)).collect::<Option<Vec<_>>>(),
            value => cell(kind, value).map(|cell| vec![cell]),
        };
        // What no value of the column can be, no row has.
        let values: Vec<Cell> = values.ok_or_else(lacks)?.into_iter().flatten().collect();
        narrow(allowed, column, values);
    }
    Ok(())
}

/// What a column has that equals a claim: `Some(None)` where it has no such values; `None` where it is no claim that anything
/// is compared with.
fn cell(kind: ColumnType, claim: &Value) -> Option<Option<Cell>> {
    let is_whole = |text: &str| text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    Some(match (claim, kind) {
        (Value::String(text), ColumnType::Integer) => text.parse().ok().filter(|_| is_whole(text)).map(Cell::Integer),
        (Value::String(text), _) => from_text(kind, text).ok(),
        (Value::Number(number), ColumnType::Integer) => number.as_i64().map(Cell::Integer),
        (Value::Number(number), ColumnType::Text) => Some(Cell::Text(number.to_string())),
        (Value::Bool(value), ColumnType::Boolean) => Some(Cell::Integer(i64::from(*value))),
        (Value::Bool(value), ColumnType::Text) => Some(Cell::Text(value.to_string())),
        (Value::Number(_) | Value::Bool(_), _) => None,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;
    use serde_json::json;

    fn allowed(claims: Value, beginning: Allowed) -> Result<Allowed, Denied> {
        let schema = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","level":"INTEGER"},
            "feed":{"match":{"org":"orgs","level":"level"},"columns":["id"]}}}"#;
        let table = Schema::parse(schema).unwrap().get("t").unwrap().clone();
        let mut allowed = beginning;
        let claims = claims.as_object().map(|claims| Claims::new(claims.clone()));
        restrict(&mut allowed, &table, claims.as_ref()).map(|()| allowed)
    }

    #[test]
    fn claims_allow_their_own_rows_and_narrow_what_is_asked_for() {
        let (text, number) = (|text: &str| Cell::Text(text.into()), Cell::Integer);
        let one = |orgs: Vec<Cell>, levels: Vec<Cell>| Ok(Allowed::from([(1, orgs), (2, levels)]));
        let nothing = Allowed::new;
        assert_eq!(allowed(json!({"orgs": "a", "level": 1}), nothing()), one(vec![text("a")], vec![number(1)]));
        assert_eq!(
            allowed(json!({"orgs": ["b", "a", "b"], "level": "1"}), nothing()),
            one(vec![text("a"), text("b")], vec![number(1)])
        );
        for level in [json!("x"), json!("true"), json!(true), json!("+1"), json!(1.5), json!(1.0)] {
            assert_eq!(allowed(json!({"orgs": [], "level": level}), nothing()), one(vec![], vec![]));
        }
        let asked = Allowed::from([(1, vec![text("b"), text("c")])]);
        assert_eq!(allowed(json!({"orgs": ["a", "b"], "level": 1}), asked), one(vec![text("b")], vec![number(1)]));
    }

    #[test]
    fn whoever_lacks_a_claim_reads_nothing() {
        assert_eq!(allowed(Value::Null, Allowed::new()), Err(Denied::Anonymous));
        for claims in [
            json!({"level": 1}),
            json!({"orgs": null, "level": 1}),
            json!({"orgs": {"a": 1}, "level": 1}),
            json!({"orgs": ["a", null], "level": 1}),
            json!({"orgs": [["a"]], "level": 1}),
            json!({"orgs": vec!["a"; MOST_VALUES + 1], "level": 1}),
        ] {
            assert_eq!(allowed(claims.clone(), Allowed::new()), Err(Denied::Lacks("orgs".into())), "{claims}");
        }
    }
}
