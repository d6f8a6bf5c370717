//! Fills the SQL templates of `sql/` and quotes what goes into them. No IO.

use std::fmt::Write as _;

/// Replaces each `{{name}}` in one pass, so that a value that looks like a placeholder stays a value.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let found = after
            .split_once("}}")
            .and_then(|(name, end)| values.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value, end)));
        let Some((value, end)) = found else {
            filled.push_str("{{");
            rest = after;
            continue;
        };
        filled.push_str(value);
        rest = end;
    }
    filled.push_str(rest);
    filled
}

/// A string literal that means the same whatever `standard_conforming_strings` is: function bodies are
/// parsed under the settings of whoever writes to the table.
pub fn text(value: &str) -> String {
    let quoted = crate::core::schema::literal(value);
    if quoted.contains('\\') { format!("E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

/// `text` between dollar quotes that do not occur in it, and the tag.
pub fn dollar_quoted(text: &str) -> String {
    let tag = dollar_tag(text, "body");
    format!("{tag}{text}{tag}")
}

/// A dollar quote that does not occur in `text`.
pub fn dollar_tag(text: &str, base: &str) -> String {
    let mut tag = format!("${base}$");
    let mut i = 0;
    // The text may also end with the beginning of the tag.
    while text.contains(tag.trim_end_matches('$')) {
        i += 1;
        tag.clear();
        // Writing to a String does not fail.
        write!(tag, "${base}{i}$").ok();
    }
    tag
}

/// A name for people on one line, whatever is in it.
pub fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_looked_into() {
        assert_eq!(fill("{{a}} {{b}} {{c}}", &[("a", "{{b}}"), ("b", "2")]), "{{b}} 2 {{c}}");
    }

    #[test]
    fn literals_survive_any_setting() {
        assert_eq!(text("a'b"), "'a''b'");
        assert_eq!(text(r"a\'b"), r"E'a\\''b'");
    }

    #[test]
    fn a_dollar_quote_is_one_that_the_text_does_not_hold() {
        assert_eq!(dollar_quoted("x"), "$body$x$body$");
        assert_eq!(dollar_quoted("$body$"), "$body1$$body$$body1$");
        assert_eq!(dollar_quoted("ends with $body"), "$body1$ends with $body$body1$");
    }
}
