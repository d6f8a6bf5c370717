//! Edits of a JSON text that leave every other byte as it is. Takes text, gives text. No IO.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

/// Where and what to insert so that an object gets more members, in the manner in which it is written.
pub fn append(text: &str, object: Range<usize>, members: &[String]) -> (usize, String) {
    let inner = &text[object.start + 1..object.end - 1];
    let at = object.start + 1 + inner.trim_end().len();
    let comma = if inner.trim().is_empty() { "" } else { "," };
    let Some(line) = inner.rfind('\n') else {
        return (at, format!("{comma} {}", members.join(", ")));
    };
    let last_line = &inner[line + 1..];
    let (indent, end) = if last_line.trim().is_empty() { (last_line, "") } else { ("", "\n") };
    let step = if indent.contains('\t') { "\t" } else { "  " };
    let lines: Vec<_> = members.iter().map(|m| format!("\n{indent}{step}{m}")).collect();
    (at, format!("{comma}{}{end}", lines.join(",")))
}

/// The members of an object in order, each with its text; `None` if it is no object.
pub fn members(text: &str) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(text).ok().map(|m| m.0)
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Where the value at a path of members stands; `None` where there is none.
pub fn range_of(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let start = text.len() - text.trim_start().len();
    let mut range = start..text.trim_end().len();
    for name in path {
        let part = &text[range.clone()];
        let all = members(part)?;
        let value = all.iter().rev().find(|(member, _)| member == name)?.1.get();
        // A raw value is a part of the text that it was read from.
        let at = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        range = at..at + value.len();
    }
    Some(range)
}

/// The text with a member at the end of the object at `path`; `None` where there is no such object.
pub fn with_member(text: &str, path: &[&str], name: &str, value: &str) -> Option<String> {
    let object = range_of(text, path)?;
    members(&text[object.clone()])?;
    let is_empty = text[object.start + 1..object.end - 1].trim().is_empty();
    let member = format!("{}: {value}", serde_json::Value::from(name));
    let (at, insertion) = match is_empty {
        true => {
            let indent = "  ".repeat(path.len());
            (object.start + 1, format!("\n{indent}  {member}\n{indent}"))
        }
        false => append(text, object.clone(), &[member]),
    };
    let end = if is_empty { object.end - 1 } else { at };
    Some(format!("{}{insertion}{}", &text[..at], &text[end..]))
}

/// The text with another value at `path`.
pub fn with_value(text: &str, path: &[&str], value: &str) -> Option<String> {
    let range = range_of(text, path)?;
    Some(format!("{}{value}{}", &text[..range.start], &text[range.end..]))
}

/// The text without the member at `path`, and the comma that parted it from the others.
pub fn without(text: &str, path: &[&str]) -> Option<String> {
    let (name, parents) = path.split_last()?;
    let object = range_of(text, parents)?;
    let all = members(&text[object.clone()])?;
    let at = all.iter().position(|(member, _)| member == name)?;
    let end_of = |i: usize| {
        let value = all[i].1.get();
        value.as_ptr() as usize + value.len() - text.as_ptr() as usize
    };
    let (from, to) = match (at, all.len()) {
        (0, 1) => (object.start + 1, object.end - 1),
        // From behind the value before, with its comma.
        (0, _) => {
            let comma = text[end_of(0)..].find(',')? + end_of(0);
            (object.start + 1, comma + 1)
        }
        (at, _) => (end_of(at - 1), end_of(at)),
    };
    Some(format!("{}{}", &text[..from], &text[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"a\": {\n    \"x\": {\"n\": 1},\n    \"y\": [ 2 ]\n  },\n  \"b\":{}\n}\n";

    #[test]
    fn members_come_and_go_and_the_rest_stays() {
        let with = with_member(TEXT, &["a"], "z", "3").unwrap();
        assert_eq!(with, TEXT.replace("[ 2 ]", "[ 2 ],\n    \"z\": 3"));
        assert_eq!(without(&with, &["a", "z"]).unwrap(), TEXT);
        let with = with_member(TEXT, &["b"], "q", "true").unwrap();
        assert_eq!(with, TEXT.replace("\"b\":{}", "\"b\":{\n    \"q\": true\n  }"));
        assert_eq!(without(TEXT, &["a", "x"]).unwrap(), TEXT.replace("\n    \"x\": {\"n\": 1},", ""));
        assert_eq!(without(TEXT, &["b"]).unwrap(), TEXT.replace(",\n  \"b\":{}", ""));
        assert_eq!(with_value(TEXT, &["a", "x", "n"], "7").unwrap(), TEXT.replace("1}", "7}"));
        for path in [&["c"][..], &["a", "c"], &["a", "y", "0"]] {
            assert_eq!(without(TEXT, path), None, "{path:?}");
            assert_eq!(with_value(TEXT, path, "1"), None, "{path:?}");
        }
        assert_eq!(with_member(TEXT, &["a", "y"], "k", "1"), None, "no object");
        let empty = with_member("{}", &[], "k", "{}").unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&empty).unwrap(), serde_json::json!({"k": {}}));
    }
}
