//! Hrana 3 over HTTP, as far as one batch needs it: requests as protobuf or JSON, and what they answer.
//! The message numbers are those of libSQL's `docs/HRANA_3_SPEC.md`.

mod answer;
mod budget;
mod json;
mod protobuf;

pub(crate) use answer::Garbled;
pub use answer::{Failure, Outcome};

use crate::core::value::Cell;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::{Message, Oneof};
use serde_json::{Value as Json, json};

/// When a step of a batch runs.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// Always.
    Always,
    /// If that step succeeded.
    Ok(u32),
    /// Unless that step succeeded.
    NotOk(u32),
}

/// One step of a batch.
#[derive(Debug, Clone)]
pub struct BatchStep {
    /// Its condition.
    pub when: When,
    /// Its SQL.
    pub sql: String,
    /// Its parameters.
    pub args: Vec<Cell>,
    /// Whether its rows are wanted.
    pub want_rows: bool,
}

/// How requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `/v3-protobuf/pipeline`.
    Protobuf,
    /// `/v3/pipeline` and `/v2/pipeline`.
    Json,
}

impl Encoding {
    /// The content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// The body of a request that runs `steps` as one batch on a fresh stream and closes it.
    pub fn encode(self, steps: Vec<BatchStep>) -> Vec<u8> {
        match self {
            Self::Protobuf => protobuf_request(steps).encode_to_vec(),
            Self::Json => json_request(&steps).to_string().into_bytes(),
        }
    }

    /// Reads the answer. `Err(Garbled)` leaves the outcome unknown; `Ok(Err)` is the stream's refusal.
    pub fn decode(self, body: &[u8]) -> Result<Result<Outcome, Failure>, Garbled> {
        match self {
            Self::Protobuf => protobuf::response(body),
            Self::Json => json::response(body),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct PipelineRequest {
    #[prost(message, repeated, tag = "2")]
    requests: Vec<StreamRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamRequest {
    #[prost(oneof = "Request", tags = "1, 3")]
    request: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Request {
    #[prost(message, tag = "1")]
    Close(Empty),
    #[prost(message, tag = "3")]
    Batch(BatchRequest),
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct BatchRequest {
    #[prost(message, optional, tag = "1")]
    batch: Option<BatchSteps>,
}

#[derive(Clone, PartialEq, Message)]
struct BatchSteps {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<StepMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct StepMessage {
    #[prost(message, optional, tag = "1")]
    condition: Option<Condition>,
    #[prost(message, optional, tag = "2")]
    stmt: Option<Stmt>,
}

#[derive(Clone, PartialEq, Message)]
struct Condition {
    #[prost(oneof = "Cond", tags = "1, 3")]
    cond: Option<Cond>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Cond {
    #[prost(uint32, tag = "1")]
    StepOk(u32),
    #[prost(message, tag = "3")]
    Not(Box<Condition>),
}

#[derive(Clone, PartialEq, Message)]
struct Stmt {
    #[prost(string, optional, tag = "1")]
    sql: Option<String>,
    #[prost(message, repeated, tag = "3")]
    args: Vec<Value>,
    #[prost(bool, optional, tag = "5")]
    want_rows: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "ValueKind", tags = "1, 2, 3, 4, 5")]
    value: Option<ValueKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum ValueKind {
    #[prost(message, tag = "1")]
    Null(Empty),
    #[prost(sint64, tag = "2")]
    Integer(i64),
    #[prost(double, tag = "3")]
    Float(f64),
    #[prost(string, tag = "4")]
    Text(String),
    #[prost(bytes = "vec", tag = "5")]
    Blob(Vec<u8>),
}

fn protobuf_request(steps: Vec<BatchStep>) -> PipelineRequest {
    let condition = |when| match when {
        When::Always => None,
        When::Ok(step) => Some(Condition { cond: Some(Cond::StepOk(step)) }),
        When::NotOk(step) => {
            let ok = Condition { cond: Some(Cond::StepOk(step)) };
            Some(Condition { cond: Some(Cond::Not(Box::new(ok))) })
        }
    };
    let steps = steps.into_iter().map(|step| StepMessage {
        condition: condition(step.when),
        stmt: Some(Stmt {
            sql: Some(step.sql),
            args: step.args.into_iter().map(to_protobuf).collect(),
            want_rows: Some(step.want_rows),
        }),
    });
    let batch = BatchRequest { batch: Some(BatchSteps { steps: steps.collect() }) };
    let requests = [Request::Batch(batch), Request::Close(Empty {})];
    PipelineRequest { requests: requests.map(|r| StreamRequest { request: Some(r) }).to_vec() }
}

fn to_protobuf(cell: Cell) -> Value {
    Value {
        value: Some(match cell {
            Cell::Null => ValueKind::Null(Empty {}),
            Cell::Integer(i) => ValueKind::Integer(i),
            Cell::Real(r) => ValueKind::Float(r),
            Cell::Text(text) => ValueKind::Text(text),
            Cell::Blob(bytes) => ValueKind::Blob(bytes),
            Cell::Lent(lent) => match lent.text() {
                Some(text) => ValueKind::Text(text.to_owned()),
                None => ValueKind::Blob(lent.bytes().to_vec()),
            },
        }),
    }
}

fn json_request(steps: &[BatchStep]) -> Json {
    let steps: Vec<Json> = steps
        .iter()
        .map(|step| {
            let args: Vec<Json> = step.args.iter().map(to_json).collect();
            let mut made = json!({"stmt": {"sql": step.sql, "args": args, "want_rows": step.want_rows}});
            match step.when {
                When::Always => {}
                When::Ok(i) => made["condition"] = json!({"type": "ok", "step": i}),
                When::NotOk(i) => made["condition"] = json!({"type": "not", "cond": {"type": "ok", "step": i}}),
            }
            made
        })
        .collect();
    json!({"baton": null, "requests": [{"type": "batch", "batch": {"steps": steps}}, {"type": "close"}]})
}

fn to_json(cell: &Cell) -> Json {
    match cell {
        Cell::Null => json!({"type": "null"}),
        Cell::Integer(i) => json!({"type": "integer", "value": i.to_string()}),
        Cell::Real(r) => json!({"type": "float", "value": r}),
        Cell::Text(text) => json!({"type": "text", "value": text}),
        Cell::Blob(bytes) => json!({"type": "blob", "base64": STANDARD_NO_PAD.encode(bytes)}),
        Cell::Lent(lent) => match lent.text() {
            Some(text) => json!({"type": "text", "value": text}),
            None => json!({"type": "blob", "base64": STANDARD_NO_PAD.encode(lent.bytes())}),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_answer_is_read_as_the_server_writes_it() {
        let body = br#"{"baton":null,"results":[{"type":"ok","response":{"type":"batch","result":{
            "step_results":[{"cols":[],"rows":[]},{"cols":[],"rows":[[{"type":"integer","value":"9223372036854775807"},
              {"type":"blob","base64":"AP8"},{"type":"null"},{"type":"text","value":"x"},{"type":"float","value":1.5}]]},null],
            "step_errors":[null,null,{"message":"no","code":"SQLITE_CONSTRAINT"}]}}}]}"#;
        let outcome = Encoding::Json.decode(body).unwrap().unwrap();
        let row = vec![
            Cell::Integer(i64::MAX),
            Cell::Blob(vec![0, 255]),
            Cell::Null,
            Cell::Text("x".into()),
            Cell::Real(1.5),
        ];
        assert_eq!(outcome.results[&1], [row]);
        assert_eq!(outcome.error, Some((2, Failure { code: "SQLITE_CONSTRAINT".into(), message: "no".into() })));
    }

    #[test]
    fn a_json_answer_gives_floats_to_the_last_bit() {
        for text in ["3.492459654808045e-10", "0.1", "1.7976931348623157e308", "5e-324"] {
            let body = format!(
                r#"{{"results":[{{"type":"ok","response":{{"result":{{"step_errors":[],
                   "step_results":[{{"rows":[[{{"type":"float","value":{text}}}]]}}]}}}}}}]}}"#
            );
            let outcome = Encoding::Json.decode(body.as_bytes()).unwrap().unwrap();
            assert_eq!(outcome.results[&0], [vec![Cell::Real(text.parse().unwrap())]], "{text}");
        }
    }

    /// A number in protobuf's own way.
    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    fn number(tag: u64, value: u64) -> Vec<u8> {
        [varint(tag << 3), varint(value)].concat()
    }

    fn message(tag: u64, parts: &[Vec<u8>]) -> Vec<u8> {
        let body = parts.concat();
        [varint(tag << 3 | 2), varint(body.len() as u64), body].concat()
    }

    /// What a server answers to a batch and to `close`.
    fn answer(entries: &[Vec<u8>]) -> Vec<u8> {
        let batch = message(1, &[message(3, &[message(1, entries)])]);
        [number(1, 7), message(3, &[batch]), message(3, &[message(1, &[message(1, &[])])])].concat()
    }

    fn real(value: f64) -> Vec<u8> {
        [varint(3 << 3 | 1), value.to_bits().to_le_bytes().to_vec()].concat()
    }

    #[test]
    fn a_protobuf_answer_is_read_as_the_server_writes_it() {
        let long = "x".repeat(300);
        let row = [
            message(1, &[message(1, &[])]),
            message(1, &[number(2, u64::MAX - 1)]), // zigzag
            message(1, &[number(2, 3)]),
            message(1, &[real(1.5)]),
            message(1, &[message(4, &[long.clone().into_bytes()])]),
            message(1, &[message(5, &[vec![0, 255]])]),
        ];
        let rows = [number(9, 1), message(2, &row), message(2, &row[1..2])];
        let error = [message(1, &[b"no".to_vec()]), message(2, &[b"SQLITE_CONSTRAINT".to_vec()])];
        let entries = [
            message(1, &[number(1, 1), message(2, &rows)]),
            message(1, &[number(1, 200), message(2, &[])]),
            message(2, &[number(1, 300), message(2, &[])]),
            message(2, &[number(1, 2), message(2, &error)]),
        ];
        let outcome = Encoding::Protobuf.decode(&answer(&entries)).unwrap().unwrap();
        let cells = [
            Cell::Null,
            Cell::Integer(i64::MAX),
            Cell::Integer(-2),
            Cell::Real(1.5),
            Cell::Text(long),
            Cell::Blob(vec![0, 255]),
        ];
        assert_eq!(outcome.results[&1], [cells.to_vec(), vec![Cell::Integer(i64::MAX)]]);
        assert_eq!((outcome.results.len(), outcome.results[&200].len()), (2, 0));
        assert_eq!(outcome.error, Some((2, Failure { code: "SQLITE_CONSTRAINT".into(), message: "no".into() })));
        for cut in 1..answer(&entries).len() {
            // Whatever is missing at the end: never another row, and no panic.
            if let Ok(Ok(part)) = Encoding::Protobuf.decode(&answer(&entries)[..cut]) {
                assert!(part.results.values().flatten().all(|row| row.len() == 6 || row.len() == 1), "{cut}");
            }
        }
    }

    #[test]
    fn a_refusal_is_told_from_what_is_no_answer() {
        let refusal = Failure { code: "AUTH".into(), message: "no".into() };
        let error = message(2, &[message(1, &[b"no".to_vec()]), message(2, &[b"AUTH".to_vec()])]);
        assert_eq!(Encoding::Protobuf.decode(&message(3, &[error])).unwrap().unwrap_err(), refusal);
        let body = br#"{"results":[{"type":"error","error":{"message":"no","code":"AUTH"}}]}"#;
        assert_eq!(Encoding::Json.decode(body).unwrap().unwrap_err(), refusal);
        let no_batch = [
            (Encoding::Json, br#"{"results":[{"type":"ok","response":{"type":"close"}}]}"#.to_vec()),
            (Encoding::Json, br#"{"results":[{"type":"ok"}]}"#.to_vec()),
            (Encoding::Protobuf, message(3, &[message(1, &[message(1, &[])])])),
        ];
        for (encoding, body) in no_batch {
            assert!(encoding.decode(&body).unwrap_err().to_string().contains("no batch"), "{encoding:?}");
        }
        let no_result = [
            (Encoding::Json, br#"{"results":[]}"#.to_vec()),
            (Encoding::Json, br#"{"results":[{"type":"other"}]}"#.to_vec()),
            (Encoding::Protobuf, number(1, 7)),
            (Encoding::Protobuf, message(3, &[number(9, 1)])),
        ];
        for (encoding, body) in no_result {
            assert!(encoding.decode(&body).unwrap_err().to_string().contains("no result"), "{encoding:?}");
        }
        let wrong = [number(3, 1), vec![3 << 3 | 3], vec![3 << 3 | 2, 200], [vec![0x80; 10], vec![1]].concat()];
        assert!(wrong.iter().all(|body| Encoding::Protobuf.decode(body).is_err()));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), text in ".*") {
            for encoding in [Encoding::Protobuf, Encoding::Json] {
                encoding.decode(&body).ok();
                encoding.decode(text.as_bytes()).ok();
            }
        }
    }
}
