//! Edits of `pgflume.json` that leave the rest as people wrote it, and questions on a terminal.

use crate::config::file::{ConfigFile, JSON_SCHEMA};
use crate::config::replace;
use crate::core::config_error::{ConfigError, wrong};
use crate::core::json::edit;
use serde_json::{Value, json};
use std::io::IsTerminal as _;

/// What an edit may fail with.
type Edited = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Adds a member to `connections` or `syncs`, which are made where they are missing.
pub(super) fn add(file: &ConfigFile, section: &str, name: &str, value: &Value) -> Edited {
    let text = match file.text.trim() {
        "" => format!("{{\n  \"$schema\": {}\n}}\n", json!(JSON_SCHEMA)),
        _ => file.text.clone(),
    };
    let text = match edit::range_of(&text, &[section]) {
        Some(_) => text,
        None => edit::with_member(&text, &[], section, "{}").ok_or_else(uneditable)?,
    };
    let text = edit::with_member(&text, &[section], name, &spaced(value)).ok_or_else(uneditable)?;
    write(file, &text)
}

/// Sets a member of the object at a path.
pub(super) fn set(file: &ConfigFile, path: &[&str], name: &str, value: &Value) -> Edited {
    let whole: Vec<&str> = path.iter().copied().chain([name]).collect();
    let text = match edit::range_of(&file.text, &whole) {
        Some(_) => edit::with_value(&file.text, &whole, &value.to_string()),
        None => edit::with_member(&file.text, path, name, &value.to_string()),
    };
    write(file, &text.ok_or_else(uneditable)?)
}

/// Takes a member out.
pub(super) fn remove(file: &ConfigFile, path: &[&str]) -> Edited {
    write(file, &edit::without(&file.text, path).ok_or_else(uneditable)?)
}

fn uneditable() -> ConfigError {
    ConfigError("the file cannot be edited where it should be: edit it by hand".into())
}

/// Writes what every other command can read, or nothing.
fn write(file: &ConfigFile, text: &str) -> Edited {
    ConfigFile::parse(&file.path, text)?;
    let before = (!file.text.is_empty()).then_some(file.text.as_str());
    replace::replace(&file.path, before, text)
        .map_err(|e| format!("{} was not written ({e})", file.path.display()).into())
}

/// On one line, with blanks.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("{}: {}", json!(name), spaced(value));
            format!("{{ {} }}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        plain => plain.to_string(),
    }
}

/// What a flag says, or the answer to a question where somebody sits at a terminal.
pub(super) fn given_or_asked(flag: Option<String>, name: &str, question: &str) -> Result<String, ConfigError> {
    match flag {
        Some(value) => Ok(value),
        None if std::io::stdin().is_terminal() => {
            let asked = dialoguer::Input::<String>::new().with_prompt(question).interact_text();
            asked.map_err(|e| ConfigError(format!("{name} was not answered ({e})")))
        }
        None => wrong(format!("{name} is missing: give it, or run this on a terminal to be asked")),
    }
}
