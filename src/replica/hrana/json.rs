//! Answers in JSON. What is not wanted is passed over in the text, and nothing is made of it.

use super::answer::{Failure, Garbled, Outcome};
use super::budget::Budget;
use crate::core::value::Cell;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Steps of one batch.
const STEPS: usize = 100_000;

/// The answer's first result, which is the batch's.
pub(super) fn response(body: &[u8]) -> Result<Result<Outcome, Failure>, Garbled> {
    let text = std::str::from_utf8(body).map_err(|_| Garbled("it is no UTF-8".into()))?;
    let pipeline: Pipeline<'_> = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
    let Some(first) = pipeline.results.0 else { return Err(Garbled("no result in it".into())) };
    let first: StreamResult<'_> = serde_json::from_str(first.get()).map_err(|e| unreadable(&e))?;
    match (first.kind.as_ref(), first.response, first.error) {
        ("ok", Some(Response { result: Some(result) }), _) => outcome(&result).map(Ok),
        ("ok", ..) => Err(Garbled("no batch in it".into())),
        ("error", _, error) => Ok(Err(error.map_or_else(|| Failure::new("", ""), |e| e.failure()))),
        _ => Err(Garbled("no result in it".into())),
    }
}

fn outcome(result: &BatchResult<'_>) -> Result<Outcome, Garbled> {
    let (mut outcome, mut budget) = (Outcome::default(), Budget::new());
    for (step, result) in (0..).zip(&result.step_results.0) {
        let Some(result) = result else { continue };
        budget.row()?;
        let rows = match result.rows {
            Some(rows) => {
                let mut text = serde_json::Deserializer::from_str(rows.get());
                let rows = Rows(&mut budget).deserialize(&mut text);
                budget.check()?;
                rows.map_err(|_| Garbled("a row in it".into()))?
            }
            None => Vec::new(),
        };
        outcome.results.insert(step, rows);
    }
    let mut errors = (0..).zip(&result.step_errors.0);
    outcome.error = errors.find_map(|(step, error)| Some((step, error.as_ref()?.failure())));
    Ok(outcome)
}

/// Where it ends to be JSON, without a word of it.
fn unreadable(error: &serde_json::Error) -> Garbled {
    Garbled(format!("at line {}, column {}", error.line(), error.column()))
}

#[derive(Deserialize)]
struct Pipeline<'a> {
    #[serde(borrow)]
    results: First<'a>,
}

#[derive(Deserialize)]
struct StreamResult<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    #[serde(borrow)]
    error: Option<HranaError<'a>>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<BatchResult<'a>>,
}

#[derive(Deserialize)]
struct BatchResult<'a> {
    #[serde(borrow)]
    step_results: Steps<'a, StmtResult<'a>>,
    #[serde(borrow)]
    step_errors: Steps<'a, HranaError<'a>>,
}

#[derive(Deserialize)]
struct StmtResult<'a> {
    #[serde(borrow)]
    rows: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct HranaError<'a> {
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
}

impl HranaError<'_> {
    fn failure(&self) -> Failure {
        Failure::new(self.code.as_deref().unwrap_or_default(), self.message.as_deref().unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

impl Value<'_> {
    fn cell(&self) -> Option<Cell> {
        let value = || self.value.map(RawValue::get);
        Some(match self.kind.as_ref() {
            "null" => Cell::Null,
            "integer" => Cell::Integer(serde_json::from_str::<Cow<'_, str>>(value()?).ok()?.parse().ok()?),
            "float" => Cell::Real(serde_json::from_str(value()?).ok()?),
            "text" => Cell::Text(serde_json::from_str(value()?).ok()?),
            "blob" => Cell::Blob(STANDARD_NO_PAD.decode(self.base64.as_ref()?.trim_end_matches('=')).ok()?),
            _ => return None,
        })
    }
}

/// The first of a list, as it stands; the rest is only looked at.
struct First<'a>(Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for List<'a> {
            type Value = First<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<'a>, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        from.deserialize_seq(List(PhantomData))
    }
}

/// One entry a step; more than a batch can have are refused.
struct Steps<'a, T>(Vec<Option<T>>, PhantomData<&'a ()>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Steps<'a, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Vec<Option<T>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list with an entry a step")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut steps = Vec::new();
                while let Some(step) = list.next_element()? {
                    if steps.len() == STEPS {
                        return Err(de::Error::custom("too many steps"));
                    }
                    steps.push(step);
                }
                Ok(steps)
            }
        }
        from.deserialize_seq(List(PhantomData)).map(|steps| Self(steps, PhantomData))
    }
}

/// All rows, within the budget.
struct Rows<'b>(&'b mut Budget);

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = Vec<Vec<Cell>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = Vec<Vec<Cell>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = list.next_element_seed(Row(self.0))? {
            rows.push(row);
        }
        Ok(rows)
    }
}

/// One of them.
struct Row<'b>(&'b mut Budget);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = Vec<Cell>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        self.0.row().map_err(D::Error::custom)?;
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Vec<Cell>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut cells = Vec::new();
        while let Some(value) = list.next_element::<Value<'de>>()? {
            self.0.cell().map_err(A::Error::custom)?;
            cells.push(value.cell().ok_or_else(|| A::Error::custom("no value"))?);
        }
        Ok(cells)
    }
}
