//! Answers in protobuf, read field by field from the bytes: nothing is made of what is not wanted. The numbers of
//! the fields are those of libSQL's `docs/HRANA_3_SPEC.md`.

use super::answer::{Failure, Garbled, Outcome};
use super::budget::Budget;
use crate::core::value::Cell;

/// The answer's first result, which is the batch's; what follows (of `close`) is passed over.
pub(super) fn response(body: &[u8]) -> Result<Result<Outcome, Failure>, Garbled> {
    let mut first = None;
    let mut fields = Fields(body);
    while let Some((tag, field)) = fields.next()? {
        if tag == 3 && first.is_none() {
            first = Some(field.bytes()?);
        }
    }
    stream_result(first.ok_or_else(|| Garbled("no result in it".into()))?)
}

fn stream_result(bytes: &[u8]) -> Result<Result<Outcome, Failure>, Garbled> {
    let mut result = None;
    let mut fields = Fields(bytes);
    while let Some((tag, field)) = fields.next()? {
        match tag {
            1 => result = Some(Ok(field.bytes()?)),
            2 => result = Some(Err(field.bytes()?)),
            _ => {}
        }
    }
    match result {
        Some(Ok(response)) => {
            let batch = last(response, 3)?.and_then(|batch| last(batch, 1).transpose()).transpose()?;
            outcome(batch.ok_or_else(|| Garbled("no batch in it".into()))?).map(Ok)
        }
        Some(Err(error)) => failure(error).map(Err),
        None => Err(Garbled("no result in it".into())),
    }
}

fn outcome(bytes: &[u8]) -> Result<Outcome, Garbled> {
    let (mut outcome, mut budget) = (Outcome::default(), Budget::new());
    let mut fields = Fields(bytes);
    while let Some((tag, field)) = fields.next()? {
        match tag {
            1 => {
                budget.row()?;
                let (step, result) = entry(field.bytes()?)?;
                outcome.results.insert(step, rows(result, &mut budget)?);
            }
            2 => {
                let (step, error) = entry(field.bytes()?)?;
                if outcome.error.as_ref().is_none_or(|(first, _)| step <= *first) {
                    outcome.error = Some((step, failure(error)?));
                }
            }
            _ => {}
        }
    }
    Ok(outcome)
}

/// A map's entry: a step's number and its message.
fn entry(bytes: &[u8]) -> Result<(u32, &[u8]), Garbled> {
    let (mut step, mut message) = (0, &[][..]);
    let mut fields = Fields(bytes);
    while let Some((tag, field)) = fields.next()? {
        match tag {
            1 => step = u32::try_from(field.number()?).map_err(|_| Garbled("a step's number in it".into()))?,
            2 => message = field.bytes()?,
            _ => {}
        }
    }
    Ok((step, message))
}

fn rows(bytes: &[u8], budget: &mut Budget) -> Result<Vec<Vec<Cell>>, Garbled> {
    let mut rows = Vec::new();
    let mut fields = Fields(bytes);
    while let Some((tag, field)) = fields.next()? {
        if tag == 2 {
            budget.row()?;
            rows.push(row(field.bytes()?, budget)?);
        }
    }
    Ok(rows)
}

fn row(bytes: &[u8], budget: &mut Budget) -> Result<Vec<Cell>, Garbled> {
    let mut cells = Vec::new();
    let mut fields = Fields(bytes);
    while let Some((tag, field)) = fields.next()? {
        if tag == 1 {
            budget.cell()?;
            cells.push(cell(field.bytes()?)?);
        }
    }
    Ok(cells)
}

fn cell(bytes: &[u8]) -> Result<Cell, Garbled> {
    let mut cell = Cell::Null;
    let mut fields = Fields(bytes);
    while let Some((tag, field)) = fields.next()? {
        cell = match tag {
            1 => Cell::Null,
            2 => Cell::Integer(zigzag(field.number()?)),
            3 => Cell::Real(f64::from_bits(field.number()?)),
            4 => Cell::Text(text(field.bytes()?)?),
            5 => Cell::Blob(field.bytes()?.to_vec()),
            _ => continue,
        };
    }
    Ok(cell)
}

fn failure(bytes: &[u8]) -> Result<Failure, Garbled> {
    let message = last(bytes, 1)?.map(text).transpose()?.unwrap_or_default();
    let code = last(bytes, 2)?.map(text).transpose()?.unwrap_or_default();
    Ok(Failure::new(&code, &message))
}

fn text(bytes: &[u8]) -> Result<String, Garbled> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Garbled("a text in it that is no UTF-8".into()))
}

/// How signed integers are written.
fn zigzag(number: u64) -> i64 {
    ((number >> 1) as i64) ^ -((number & 1) as i64)
}

/// The bytes of the field `wanted`, which may be there once; the last counts.
fn last(bytes: &[u8], wanted: u32) -> Result<Option<&[u8]>, Garbled> {
    let mut found = None;
    let mut fields = Fields(bytes);
    while let Some((tag, field)) = fields.next()? {
        if tag == wanted {
            found = Some(field.bytes()?);
        }
    }
    Ok(found)
}

/// The fields of one message (<https://protobuf.dev/programming-guides/encoding/>).
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(self) -> Result<u64, Garbled> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(Garbled("a field of another type in it".into())),
        }
    }

    fn bytes(self) -> Result<&'a [u8], Garbled> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(Garbled("a field of another type in it".into())),
        }
    }
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, Garbled> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| Garbled("a field's number in it".into()))?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Number(little_endian(self.take(8)?)),
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Field::Number(little_endian(self.take(4)?)),
            _ => return Err(Garbled("a field of an unknown type in it".into())),
        };
        Ok(Some((tag, field)))
    }

    fn varint(&mut self) -> Result<u64, Garbled> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Garbled("a number in it that does not end".into()))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(|| Garbled("it is cut off".into()))?;
        self.0 = rest;
        Ok(taken)
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
