//! A mistake in the configuration, and the texts that make one.

/// A configuration mistake: one line with the variable and the remedy. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// The mistake as a result.
pub(crate) fn wrong<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(message.into()))
}

/// Without line breaks at its end: files and `kubectl create secret --from-file` leave them there.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_end_matches(['\n', '\r'])
}

/// One line without blanks around it, or the reason why it is none. The reason shows no value.
pub(crate) fn plain<'a>(name: &str, text: &'a str) -> Result<&'a str, ConfigError> {
    let text = trimmed(text);
    if text.contains(char::is_control) {
        return wrong(format!("{name} holds a line break or another control character: copy it again, as one line"));
    }
    if text.trim() != text {
        return wrong(format!("{name} begins or ends with a blank: remove it"));
    }
    Ok(text)
}
