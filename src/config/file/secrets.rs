//! Strings that may hold `${NAME}`, or that a file holds. They are put in after parsing, so that no value can be taken
//! for JSON; `$$` is a dollar.

use super::read::{Broken, Members};
use crate::core::config_error::{ConfigError, trimmed, wrong};
use crate::core::json::Node;
use std::path::{Path, PathBuf};

/// A string as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Template {
    /// A text with variables in it.
    Text(String),
    /// What this file holds.
    File(PathBuf),
}

/// A part of a text.
enum Piece<'a> {
    Plain(&'a str),
    Dollar,
    /// Its name, and where it stands.
    Variable(&'a str, usize),
}

impl Template {
    /// Of a member.
    pub fn of(members: &Members<'_>, name: &str) -> Result<Option<Self>, Broken> {
        let path = members.path_of(name);
        Ok(Some(match members.get(name) {
            None => return Ok(None),
            Some(Node::String(text)) => {
                pieces(text).map_err(|problem| Broken::new(&path, problem))?;
                Self::Text(text.clone())
            }
            Some(node @ Node::Object(_)) => {
                let file = Members::of(node, &path, &["file"])?;
                match file.text("file")? {
                    Some(file) if !file.is_empty() => Self::File(file.into()),
                    _ => return Err(Broken::new(&path, "must name a file: {\"file\": \"PATH\"}")),
                }
            }
            Some(_) => return Err(Broken::new(&path, "must be a string, or {\"file\": \"PATH\"}")),
        }))
    }

    /// Its value; files lie beside `directory`. `written` turns a variable's value
    /// into what stands at its place in the text.
    pub fn value(
        &self,
        path: &str,
        directory: &Path,
        written: impl Fn(&str, usize) -> String,
    ) -> Result<String, ConfigError> {
        match self {
            Self::File(file) => match std::fs::read_to_string(directory.join(file)) {
                Ok(text) => Ok(trimmed(&text).to_owned()),
                Err(e) => wrong(format!("{path} names the file {}, which cannot be read ({e})", file.display())),
            },
            Self::Text(text) => {
                let mut value = String::new();
                for piece in pieces(text).map_err(|problem| ConfigError(format!("{path} {problem}")))? {
                    match piece {
                        Piece::Plain(text) => value.push_str(text),
                        Piece::Dollar => value.push('$'),
                        Piece::Variable(name, at) => match std::env::var(name) {
                            Ok(found) => value.push_str(&written(trimmed(&found), at)),
                            Err(_) => {
                                return wrong(format!(
                                    "{path} needs the variable {name}, which is not set: set it, or put it into .env"
                                ));
                            }
                        },
                    }
                }
                Ok(value)
            }
        }
    }

    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// Cuts a text at its variables, or says what is wrong with it.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('$') {
        let place = text.len() - rest.len() + at;
        pieces.push(Piece::Plain(&rest[..at]));
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            pieces.push(Piece::Dollar);
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((name, after)) = inner else {
            return Err("has a single $: write ${NAME} for a variable, $$ for a dollar".to_owned());
        };
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(format!("has ${{{name}}}, which is no variable's name: use letters, digits and _"));
        }
        pieces.push(Piece::Variable(name, place));
        rest = after;
    }
    pieces.push(Piece::Plain(rest));
    Ok(pieces)
}
