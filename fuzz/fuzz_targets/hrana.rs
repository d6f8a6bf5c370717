//! Any bytes as a server's answer. What one encoding says is written in the other and has to be read as the
//! same; and an answer that is cut off is never read as another one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgflume::core::value::Cell;
use pgflume::replica::hrana::{Encoding, Failure, Outcome};
use serde_json::{Value, json};

/// The largest number of a step that is written as a JSON array: its length is a step's number.
const STEPS: u32 = 100;

fuzz_target!(|data: &[u8]| {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let Ok(Ok(outcome)) = encoding.decode(data) else { continue };
        if let Some((_, failure)) = &outcome.error {
            assert!(data.len() >= failure.message.len());
        }
        same(&protobuf(&outcome), Encoding::Protobuf, &outcome);
        let steps = outcome.results.keys().chain(outcome.error.iter().map(|(step, _)| step)).max();
        if steps.is_none_or(|&last| last < STEPS) && is_finite(&outcome) {
            same(json_text(&outcome).as_bytes(), Encoding::Json, &outcome);
        }
    }
});

fn same(body: &[u8], encoding: Encoding, expected: &Outcome) {
    let again = encoding.decode(body).expect("what is written is read").expect("it is no refusal");
    assert_eq!(again.results, expected.results);
    assert_eq!(again.error, expected.error);
    for cut in [body.len() / 2, body.len().saturating_sub(1)] {
        assert!(cut == body.len() || encoding.decode(&body[..cut]).is_err(), "cut off at {cut} of {}", body.len());
    }
}

fn is_finite(outcome: &Outcome) -> bool {
    let mut cells = outcome.results.values().flatten().flatten();
    cells.all(|cell| !matches!(cell, Cell::Real(r) if !r.is_finite()))
}

fn json_text(outcome: &Outcome) -> String {
    let mut steps =
        outcome.results.keys().chain(outcome.error.iter().map(|(step, _)| step)).copied().max().unwrap_or(0);
    steps += 1;
    let cell = |cell: &Cell| match cell {
        Cell::Null => json!({"type": "null"}),
        Cell::Integer(i) => json!({"type": "integer", "value": i.to_string()}),
        Cell::Real(r) => json!({"type": "float", "value": r}),
        Cell::Text(text) => json!({"type": "text", "value": text}),
        Cell::Blob(bytes) => json!({"type": "blob", "base64": base64(bytes)}),
        Cell::Lent(_) => unreachable!("an answer lends nothing"),
    };
    let result = |step| match outcome.results.get(&step) {
        Some(rows) => {
            json!({"rows": rows.iter().map(|row| row.iter().map(cell).collect()).collect::<Vec<Vec<Value>>>()})
        }
        None => Value::Null,
    };
    let error = |step| match &outcome.error {
        Some((failed, Failure { code, message })) if *failed == step => json!({"code": code, "message": message}),
        _ => Value::Null,
    };
    let results: Vec<Value> = (0..steps).map(result).collect();
    let errors: Vec<Value> = (0..steps).map(error).collect();
    json!({"results": [{"type": "ok", "response": {"result": {"step_results": results, "step_errors": errors}}}]})
        .to_string()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        text.extend((0..=part.len()).map(|i| digit(bits >> (18 - 6 * i))));
    }
    text
}

/// The message numbers are those of libSQL's `docs/HRANA_3_SPEC.md`.
fn protobuf(outcome: &Outcome) -> Vec<u8> {
    let mut result = Vec::new();
    for (step, rows) in &outcome.results {
        let rows: Vec<u8> = rows
            .iter()
            .flat_map(|row| field(2, &row.iter().flat_map(|c| field(1, &value(c))).collect::<Vec<_>>()))
            .collect();
        result.extend(field(1, &[number(1, u64::from(*step)), field(2, &rows)].concat()));
    }
    if let Some((step, failure)) = &outcome.error {
        let error = [field(1, failure.message.as_bytes()), field(2, failure.code.as_bytes())].concat();
        result.extend(field(2, &[number(1, u64::from(*step)), field(2, &error)].concat()));
    }
    field(3, &field(1, &field(3, &field(1, &result))))
}

fn value(cell: &Cell) -> Vec<u8> {
    match cell {
        Cell::Null => field(1, &[]),
        Cell::Integer(i) => number(2, ((i << 1) ^ (i >> 63)).cast_unsigned()),
        Cell::Real(r) => [&[3 << 3 | 1], r.to_le_bytes().as_slice()].concat(),
        Cell::Text(text) => field(4, text.as_bytes()),
        Cell::Blob(bytes) => field(5, bytes),
        Cell::Lent(_) => unreachable!("an answer lends nothing"),
    }
}

/// A length-delimited field.
fn field(tag: u64, content: &[u8]) -> Vec<u8> {
    [&varint(tag << 3 | 2), &varint(content.len() as u64), content].concat()
}

fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
