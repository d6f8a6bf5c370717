//! Patterns for tables: `apps`, `public.*`, `crm.order?`, `"my.schema".*`. Takes text, answers whether a
//! table is meant. No IO.

use crate::core::schema::SourceName;

/// How many near names a complaint lists.
const NEAR_NAMES: usize = 5;

/// A pattern for tables. Without a schema it is meant for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    schema: Option<Part>,
    table: Part,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    AnyOne,
    Any,
}

impl Pattern {
    /// `None` if it is none: an empty part, an open quote, or more than two parts.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, rest) = part(text)?;
        let (schema, table) = match rest.strip_prefix('.') {
            None => (None, first),
            Some(rest) => {
                let (second, end) = part(rest)?;
                if !end.is_empty() {
                    return None;
                }
                (Some(first), second)
            }
        };
        Some(Self { text: text.to_owned(), schema, table })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this table is meant.
    pub fn matches(&self, name: &SourceName) -> bool {
        self.schema.as_ref().is_none_or(|s| s.matches(&name.schema)) && self.table.matches(&name.table)
    }

    /// Whether it spells its schema out.
    pub fn names_schema(&self) -> bool {
        self.schema.as_ref().is_some_and(Part::is_literal)
    }

    /// Whether it spells the table out: then the user means just this one.
    pub fn names_table(&self) -> bool {
        self.table.is_literal()
    }

    /// The names nearest to what it asks for, best first.
    pub fn near<'a>(&self, names: impl Iterator<Item = &'a SourceName>) -> Vec<String> {
        let wanted = self.table.0.iter().filter_map(|t| match t {
            Token::Char(c) => Some(*c),
            Token::Any | Token::AnyOne => None,
        });
        let wanted: Vec<char> = wanted.flat_map(char::to_lowercase).collect();
        let limit = (wanted.len() / 3).max(2);
        let mut near: Vec<_> = names
            .map(|name| (distance(&wanted, &name.table.to_lowercase().chars().collect::<Vec<_>>()), name.written()))
            .filter(|(far, _)| *far <= limit)
            .collect();
        near.sort();
        near.into_iter().take(NEAR_NAMES).map(|(_, name)| name).collect()
    }
}

impl Part {
    fn is_literal(&self) -> bool {
        self.0.iter().all(|t| matches!(t, Token::Char(_)))
    }

    /// Each `*` first takes nothing, and one character more whenever the rest does not fit.
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (&self.0, text.chars().collect::<Vec<_>>());
        let (mut p, mut t) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(Token::Any) => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(token) if *token == Token::AnyOne || *token == Token::Char(text[t]) => {
                    p += 1;
                    t += 1;
                }
                _ => {
                    let Some((at, taken)) = star else {
                        return false;
                    };
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
            }
        }
        pattern[p..].iter().all(|t| *t == Token::Any)
    }
}

/// One part of a pattern and what follows; a quoted part is taken literally.
fn part(text: &str) -> Option<(Part, &str)> {
    let mut tokens = Vec::new();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        tokens.extend(text[..end].chars().map(|c| match c {
            '*' => Token::Any,
            '?' => Token::AnyOne,
            c => Token::Char(c),
        }));
        let is_cut = text[end..].starts_with('"');
        return (!tokens.is_empty() && !is_cut).then_some((Part(tokens), &text[end..]));
    };
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            tokens.push(Token::Char(c));
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            tokens.push(Token::Char('"'));
        } else {
            let rest = &quoted[at + 1..];
            let is_end = rest.is_empty() || rest.starts_with('.');
            return (!tokens.is_empty() && is_end).then_some((Part(tokens), rest));
        }
    }
    None
}

/// How many letters have to be added, taken away or changed.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: &str, table: &str) -> SourceName {
        SourceName { schema: schema.into(), table: table.into() }
    }

    #[test]
    fn a_pattern_means_what_it_says() {
        let cases = [
            ("apps", "public", "apps", true),
            ("apps", "crm", "apps", true),
            ("apps", "public", "Apps", false),
            ("public.apps", "crm", "apps", false),
            ("public.*", "public", "anything at all", true),
            ("*.apps", "crm", "apps", true),
            ("app*s", "public", "apps", true),
            ("a*p*s", "public", "apples and pears", true),
            ("app?", "public", "apps", true),
            ("app?", "public", "app", false),
            ("*", "x", "ü", true),
            (r#""my.schema".t"#, "my.schema", "t", true),
            (r#""a*b""#, "public", "a*b", true),
            (r#""a*b""#, "public", "aXb", false),
            (r#""q""q""#, "public", "q\"q", true),
        ];
        for (pattern, schema, table, expected) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&name(schema, table)), expected, "{pattern} {table}");
        }
        for bad in ["", ".", "a.", ".a", "a.b.c", "\"a", "a\"b\"", "\"a\"b", "\"\""] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn near_names_are_found_whatever_their_case() {
        let names = [name("public", "orders"), name("crm", "Order"), name("public", "customers")];
        let near = |text: &str| Pattern::parse(text).unwrap().near(names.iter());
        assert_eq!(near("ordres"), [r#"crm.Order"#, "public.orders"]);
        assert_eq!(near("nothing_like_it"), [""; 0]);
    }
}
