//! Rows as JSON arrays, which `json_each` unpacks in the database: many rows in one parameter. Pure.

use super::statements;
use crate::core::schema::ColumnType;
use crate::core::value::Cell;

/// A JSON array is sent once it is this long, in bytes: a longer one is slower to unpack, and sqld refuses values above
/// 5 MB.
pub(super) const ARRAY_BYTES: usize = 128 * 1024;

/// A row larger than this goes alone: as JSON it may be six times as long.
const LARGE_ROW_BYTES: usize = 512 * 1024;

/// Whether a row goes alone, its values as parameters.
pub fn is_large(row: &[Cell]) -> bool {
    row.iter().map(Cell::bytes).sum::<usize>() > LARGE_ROW_BYTES
}

/// What a row that goes alone has as parameters: bytes as they are, since as hex half as many would fit.
pub(crate) fn row_slots(kinds: &[ColumnType], row: &[Cell]) -> Vec<Cell> {
    let slots = kinds.iter().zip(row).flat_map(|(kind, cell)| {
        let (first, second) = match cell {
            _ if *kind == ColumnType::Blob && cell.as_blob().is_some() => (cell.clone(), None),
            _ => {
                let (first, second) = statements::slots(*kind, cell);
                (first.into_owned(), second)
            }
        };
        std::iter::once(first).chain(second)
    });
    slots.collect()
}

/// Rows as one JSON array of arrays of [`statements::slots`]; those of wide rows in arrays of their own.
#[derive(Default)]
pub struct Array {
    /// The JSON.
    pub text: String,
    /// Whether a double among them needs the long form of the SQL.
    pub far_reals: bool,
    /// Rows in it.
    pub rows: usize,
}

/// Rows as JSON arrays of arrays, cut at [`ARRAY_BYTES`].
pub fn arrays(kinds: &[ColumnType], rows: &[&[Cell]]) -> Vec<Array> {
    let mut done = Vec::new();
    let mut array = Array::default();
    for row in rows {
        array.text.push(if array.text.is_empty() { '[' } else { ',' });
        array.far_reals |= row.iter().any(statements::is_far);
        push_row(&mut array.text, kinds, row);
        array.rows += 1;
        if array.text.len() >= ARRAY_BYTES {
            done.push(std::mem::take(&mut array));
        }
    }
    done.push(array);
    done.retain(|a| !a.text.is_empty());
    for array in &mut done {
        array.text.push(']');
    }
    done
}

/// Adds a row as a JSON array of [`statements::slots`].
pub(super) fn push_row(out: &mut String, kinds: &[ColumnType], row: &[Cell]) {
    let is_folded = statements::is_folded(kinds.iter().copied());
    let mut next = 0;
    for (kind, cell) in kinds.iter().zip(row) {
        let (first, second) = statements::slots(*kind, cell);
        for slot in std::iter::once(first.as_ref()).chain(second.as_ref()) {
            out.push_str(separator(next, is_folded));
            next += 1;
            push_json(out, slot);
        }
    }
    out.push_str(if is_folded { "]]" } else { "]" });
}

/// What stands before a slot.
fn separator(slot: usize, is_folded: bool) -> &'static str {
    match (slot, is_folded) {
        (0, true) => "[[",
        (0, false) => "[",
        (_, true) if slot.is_multiple_of(statements::FOLD_SLOTS) => "],[",
        _ => ",",
    }
}

/// Adds a value; `null` for doubles and bytes, which `slots` leaves none of.
pub(super) fn push_json(out: &mut String, cell: &Cell) {
    match cell {
        Cell::Integer(i) => out.push_str(itoa::Buffer::new().format(*i)),
        Cell::Text(text) => push_string(out, text),
        Cell::Null | Cell::Real(_) | Cell::Blob(_) => out.push_str("null"),
        Cell::Lent(lent) => push_string(out, lent.text().unwrap_or_default()),
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x00..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..i]);
        out.push_str(escape);
        if escape.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        }
        plain = i + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_json_that_says_it() {
        let all: String = (0..=0x2ff_u32).filter_map(char::from_u32).chain("\u{2028}\u{feff}𝄞".chars()).collect();
        for text in ["", "\"", "\\", "\u{0}\u{1f}\u{20}\u{7f}", "a\nb", "\n", all.as_str()] {
            let mut json = String::new();
            push_json(&mut json, &Cell::Text(text.to_owned()));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
