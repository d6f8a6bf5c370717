//! A client's `where`: comparisons of declared columns with values, joined by AND. It is read into the values that each
//! column may have, and narrows only; nothing of its text reaches SQL. No IO.
//!
//! ```text
//! condition := comparison { AND comparison }
//! comparison := column = value | column IN ( value { , value } )
//! column := name | "name"       value := 'text' | number | true | false | $n
//! ```

use crate::core::schema::Table;
use crate::core::value::{Cell, from_text};
use crate::replica::feed_reads::Allowed;
use std::collections::BTreeMap;

/// Longest text, in bytes.
const MOST_BYTES: usize = 16 * 1024;

/// Most values of a column.
const MOST_VALUES: usize = 500;

/// Reads a condition; or says what is wrong with it. `parameters`: by their numbers.
pub fn parse(text: &str, parameters: &BTreeMap<u32, String>, table: &Table) -> Result<Allowed, String> {
    if text.len() > MOST_BYTES {
        return Err(format!("is longer than {MOST_BYTES} bytes"));
    }
    let tokens = tokens(text)?;
    let mut reader = Reader { tokens: &tokens, parameters, table };
    let mut allowed = Allowed::new();
    loop {
        let (column, values) = reader.comparison()?;
        narrow(&mut allowed, column, values);
        match reader.next() {
            None => return Ok(allowed),
            Some(token) if token.is_word("and") => {}
            Some(_) => return Err("may join comparisons with AND only".to_owned()),
        }
    }
}

/// Leaves of a column only these values, of those that it may have by now.
pub fn narrow(allowed: &mut Allowed, column: usize, mut values: Vec<Cell>) {
    values.sort();
    values.dedup();
    match allowed.get_mut(&column) {
        Some(known) => known.retain(|value| values.contains(value)),
        None => drop(allowed.insert(column, values)),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A name or keyword as it stands.
    Word(String),
    /// A name in double quotes.
    Name(String),
    Text(String),
    Number(String),
    Parameter(u32),
    Sign(char),
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let take = |rest: &str, is_part: fn(char) -> bool| rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let token = match first {
            '\'' | '"' => {
                let (content, behind) = quoted(&rest[1..], first).ok_or("has a quote that does not end")?;
                rest = behind;
                if first == '"' { Token::Name(content) } else { Token::Text(content) }
            }
            '$' => {
                let end = take(&rest[1..], |c| c.is_ascii_digit()) + 1;
                let number = rest[1..end].parse().map_err(|_| "has a $ without a number")?;
                rest = &rest[end..];
                Token::Parameter(number)
            }
            '-' | '0'..='9' => {
                let end = take(&rest[1..], |c| c.is_ascii_digit()) + 1;
                let number = rest[..end].to_owned();
                rest = &rest[end..];
                Token::Number(number)
            }
            '=' | '(' | ')' | ',' => {
                rest = &rest[1..];
                Token::Sign(first)
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = take(rest, |c| c.is_alphanumeric() || c == '_');
                let word = rest[..end].to_owned();
                rest = &rest[end..];
                Token::Word(word)
            }
            other => {
                return Err(format!(
                    "holds {other:?}, which it may not: columns are compared with = and IN, and joined with AND"
                ));
            }
        };
        tokens.push(token);
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// What stands before the closing quote, of which two stand for one, and what comes behind it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let (mut content, mut rest) = (String::new(), text);
    loop {
        let end = rest.find(quote)?;
        content.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        let Some(more) = rest.strip_prefix(quote) else { return Some((content, rest)) };
        content.push(quote);
        rest = more;
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    parameters: &'a BTreeMap<u32, String>,
    table: &'a Table,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn comparison(&mut self) -> Result<(usize, Vec<Cell>), String> {
        let name = match self.next() {
            Some(Token::Name(name) | Token::Word(name)) => name,
            _ => return Err("lacks a column".to_owned()),
        };
        let known: Vec<&str> = self.table.feed.iter().flat_map(|feed| &feed.filter).map(String::as_str).collect();
        let column = self.table.position(name).filter(|_| known.contains(&name.as_str()));
        let column = column.ok_or_else(|| match known.is_empty() {
            true => "cannot be used with this table: its feed names no `filter` columns".to_owned(),
            false => format!("names {name:?}: rows can be filtered by {}", known.join(", ")),
        })?;
        match self.next() {
            Some(Token::Sign('=')) => Ok((column, self.value(column)?.into_iter().collect())),
            Some(token) if token.is_word("in") => Ok((column, self.list(column)?)),
            _ => Err(format!("lacks = or IN behind {name:?}")),
        }
    }

    fn list(&mut self, column: usize) -> Result<Vec<Cell>, String> {
        if self.next() != Some(&Token::Sign('(')) {
            return Err("lacks ( behind IN".to_owned());
        }
        let mut values = Vec::new();
        loop {
            values.extend(self.value(column)?);
            match self.next() {
                Some(Token::Sign(',')) if values.len() < MOST_VALUES => {}
                Some(Token::Sign(',')) => return Err(format!("has more than {MOST_VALUES} values behind IN")),
                Some(Token::Sign(')')) => return Ok(values),
                _ => return Err("lacks ) behind the values of IN".to_owned()),
            }
        }
    }

    /// A value as the column has it; `None` where it has no such values.
    fn value(&mut self, column: usize) -> Result<Option<Cell>, String> {
        let text = match self.next() {
            Some(Token::Text(text) | Token::Number(text)) => text,
            Some(Token::Word(word)) if ["true", "false"].contains(&word.to_lowercase().as_str()) => {
                &word.to_lowercase()
            }
            Some(Token::Parameter(number)) => {
                self.parameters.get(number).ok_or_else(|| format!("has no params[{number}] for ${number}"))?
            }
            _ => return Err("lacks a value: 'text', a number, true, false or $1".to_owned()),
        };
        Ok(from_text(self.table.columns[column].kind, text).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;
    use proptest::prelude::*;

    fn table() -> std::sync::Arc<Table> {
        let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","done":"BOOLEAN","A b":"INTEGER","x":"TEXT"},
            "feed":{"public":true,"filter":["org","done","A b"]}}}"#;
        Schema::parse(json).unwrap().get("t").unwrap().clone()
    }

    fn read(text: &str, parameters: &[(u32, &str)]) -> Result<Allowed, String> {
        let table = table();
        let parameters = parameters.iter().map(|(n, text)| (*n, (*text).to_owned())).collect();
        parse(text, &parameters, &table)
    }

    #[test]
    fn comparisons_are_joined_and_narrow_only() {
        let (text, number) = (|text: &str| Cell::Text(text.into()), Cell::Integer);
        let cases = [
            ("org = 'a'", Allowed::from([(1, vec![text("a")])])),
            ("org='it''s'", Allowed::from([(1, vec![text("it's")])])),
            (
                r#""A b" IN (3, -1,3) and done = true"#,
                Allowed::from([(2, vec![number(1)]), (3, vec![number(-1), number(3)])]),
            ),
            ("org = $1 AND org IN ('a', 'b')", Allowed::from([(1, vec![text("b")])])),
            ("org = 'a' AND org = 'b'", Allowed::from([(1, vec![])])),
            ("done = 'f'", Allowed::from([(2, vec![number(0)])])),
            (r#""A b" = 'no number'"#, Allowed::from([(3, vec![])])),
        ];
        for (given, expected) in cases {
            assert_eq!(read(given, &[(1, "b")]), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_is_no_such_condition_is_refused() {
        for text in [
            "",
            "ORG = 'a'",
            "org",
            "org =",
            "org = 'a",
            "org = 'a' OR 1 = 1",
            "1 = 1) OR (1 = 1",
            "x = 'a'",
            "id = 1",
            "org = 'a' --",
            "org IN ()",
            "org IN ('a'",
            "org IN 'a'",
            "org = $2",
            "org = $",
            "org = other",
            "org <> 'a'",
            "org = 'a' AND",
            "org = 'a';",
            "org = E'a'",
            "(org = 'a')",
            "NOT org = 'a'",
            "org IS NULL",
            "org = 'a'::text",
            "org = 'a' 'b'",
        ] {
            assert!(read(text, &[(1, "b")]).is_err(), "{text}");
        }
        let many = format!("org IN ({}'a')", "'a',".repeat(MOST_VALUES));
        assert!(read(&many, &[]).unwrap_err().contains("more than"));
        assert!(read(&" ".repeat(MOST_BYTES + 1), &[]).unwrap_err().contains("longer"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_opens_another_column(text in "(?s).{0,60}|(org|x|id|done|and|or|in|=|'a'|\\(|\\)|\\$1| ){1,12}") {
            if let Ok(allowed) = read(&text, &[(1, "b")]) {
                prop_assert!(!allowed.is_empty() && allowed.keys().all(|at| [1, 2, 3].contains(at)));
            }
        }
    }
}
