//! Fills the SQL templates of `sql/` and quotes what goes into them. A template quotes nothing: what it gets is SQL
//! already. No IO.

use crate::core::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What other templates include.
const SHARED: [(&str, &str); 2] = [
    ("capture_known.sql", include_str!("../../../sql/capture_known.sql")),
    ("capture_marks.sql", include_str!("../../../sql/capture_marks.sql")),
];

/// The template with these values. A name that is not among them is an error; so is, where debug assertions are on, a
/// value that the template has no use for.
pub fn fill(template: &str, values: Value) -> Result<String> {
    filled(template, &values).map_err(|e| Error::halt(format!("a template of SQL: {e}; this is a bug of pgflume")))
}

fn filled(template: &str, values: &Value) -> std::result::Result<String, minijinja::Error> {
    let environment = environment()?;
    debug_assert_eq!(unused(&environment, template, values), Vec::<String>::new(), "no use for these in {template}");
    environment.template_from_str(template)?.render(values.clone())
}

fn environment<'a>() -> std::result::Result<Environment<'a>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // A line that holds a tag and nothing else leaves nothing.
    environment
        .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?);
    for (name, source) in SHARED {
        environment.add_template(name, source)?;
    }
    Ok(environment)
}

/// The values that neither the template names nor what it includes; within lists and maps: those that neither reads as
/// an attribute of anything.
fn unused<'a>(environment: &Environment<'a>, template: &'a str, values: &Value) -> Vec<String> {
    let included = SHARED.iter().filter(|(name, _)| template.contains(&format!("\"{name}\"")));
    let texts: Vec<&'a str> = std::iter::once(template).chain(included.map(|(_, text)| *text)).collect();
    let parsed = texts.iter().filter_map(|text| environment.template_from_str(text).ok());
    let named: BTreeSet<String> = parsed.flat_map(|t| t.undeclared_variables(false)).collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let attributes = texts.iter().flat_map(|text| text.split('.').skip(1));
    let attributes: BTreeSet<&str> = attributes.filter_map(|rest| rest.split(|c| !is_word(c)).next()).collect();
    let (mut found, mut inner) = (Vec::new(), Vec::new());
    for (name, value) in entries(values) {
        found.extend((!named.contains(&name)).then_some(name));
        inner.push(value);
    }
    while let Some(value) = inner.pop() {
        for (name, value) in entries(&value) {
            found.extend((!attributes.contains(name.as_str())).then_some(name));
            inner.push(value);
        }
        if value.kind() == ValueKind::Seq {
            inner.extend(value.try_iter().into_iter().flatten());
        }
    }
    found
}

/// Of a map.
fn entries(map: &Value) -> Vec<(String, Value)> {
    let names = (map.kind() == ValueKind::Map).then(|| map.try_iter().ok()).flatten().into_iter().flatten();
    names.filter_map(|name| Some((name.to_string(), map.get_item(&name).ok()?))).collect()
}

/// A string literal that means the same whatever `standard_conforming_strings` is: function bodies are
/// parsed under the settings of whoever writes to the table.
pub fn text(value: &str) -> String {
    let quoted = crate::core::schema::literal(value);
    if quoted.contains('\\') { format!("E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

/// `text` between dollar quotes that do not occur in it, and the tag.
pub(crate) fn dollar_quoted(text: &str) -> String {
    let tag = dollar_tag(text, "body");
    format!("{tag}{text}{tag}")
}

/// A dollar quote that does not occur in `text`.
pub(crate) fn dollar_tag(text: &str, base: &str) -> String {
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
    use minijinja::context;

    #[test]
    fn all_sql_is_a_template() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/sql")).unwrap();
        for path in folder.map(|entry| entry.unwrap().path()) {
            let sql = std::fs::read_to_string(&path).unwrap();
            let wrong = environment().unwrap().template_from_str(&sql).err().map(|e| e.to_string());
            assert_eq!(wrong, None, "{}", path.display());
        }
    }

    #[test]
    fn values_are_not_looked_into() {
        let values = context! { a => "{{ b }}", b => "<'&\">" };
        assert_eq!(fill("{{ a }} {{ b }}\n", values).unwrap(), "{{ b }} <'&\">\n");
    }

    #[test]
    fn a_value_that_is_missing_is_an_error() {
        for template in ["{{ b }}", "{{ a.b }}", "{% if b %}{% endif %}", "{% for c in b %}{% endfor %}"] {
            let error = filled(&format!("{{{{ a }}}}{template}"), &context! { a => context! {} });
            assert!(error.is_err(), "{template}");
        }
    }

    #[test]
    fn a_value_that_no_template_names_is_found() {
        let values = context! { a => vec![context! { b => "", c => "" }], d => "" };
        let found = |template: &str| unused(&environment().unwrap(), template, &values);
        assert_eq!(found("{% for x in a %}{{ x.b }}{{ x.c }}{% endfor %}{{ d }}"), Vec::<String>::new());
        assert_eq!(found("{% for x in a %}{{ x.b }}{% endfor %}"), ["d", "c"]);
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
