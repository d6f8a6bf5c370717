//! Secrets, from `NAME` or from the file that `NAME_FILE` names; never from flags.

use crate::core::config_error::{ConfigError, plain, trimmed, wrong};
use crate::core::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A secret shorter than this can be guessed.
const SECRET_BYTES: usize = 16;

/// The value of `NAME_FILE`'s file without its last line breaks.
pub(super) fn from_file(name: &str) -> Result<Option<String>, ConfigError> {
    let variable = format!("{name}_FILE");
    match std::env::var(&variable) {
        Ok(path) if !path.is_empty() => match std::fs::read_to_string(trimmed(&path)) {
            Ok(text) => Ok(Some(trimmed(&text).to_owned())),
            Err(e) => wrong(format!("{variable} names a file that cannot be read ({e}): check its path and rights")),
        },
        _ => Ok(None),
    }
}

/// A secret from `NAME` or `NAME_FILE`; `None` if neither is set, an error if it is empty or could not stand in
/// the header of a request.
pub fn secret(name: &str) -> Result<Option<Secret>, ConfigError> {
    let text = match std::env::var(name) {
        Ok(text) => Some(text),
        Err(std::env::VarError::NotPresent) => from_file(name)?,
        Err(std::env::VarError::NotUnicode(_)) => return wrong(format!("{name} is not UTF-8")),
    };
    match text.as_deref() {
        Some(text) if text.trim().is_empty() => {
            wrong(format!("{name} is empty: set it to a secret of at least {SECRET_BYTES} bytes, or unset it"))
        }
        Some(text) => Ok(Some(Secret::new(plain(name, text)?))),
        None => Ok(None),
    }
}

/// The same, of one that requests are signed with.
pub fn signature(name: &str) -> Result<Option<Secret>, ConfigError> {
    let secret = secret(name)?;
    secret.iter().try_for_each(|secret| check(name, secret))?;
    Ok(secret)
}

fn check(name: &str, secret: &Secret) -> Result<(), ConfigError> {
    let Some(encoded) = secret.expose().strip_prefix("whsec_") else {
        if secret.expose().len() < SECRET_BYTES {
            tracing::warn!("{name} is shorter than {SECRET_BYTES} bytes and could be guessed: make it longer");
        }
        return Ok(());
    };
    match STANDARD.decode(encoded) {
        Ok(key) if key.is_empty() => wrong(format!("{name} is empty after whsec_: copy the secret again")),
        Ok(key) if key.len() < SECRET_BYTES => wrong(format!(
            "{name} holds fewer than {SECRET_BYTES} bytes after whsec_ and could be guessed: make a longer one, such as whsec_ and what `openssl rand -base64 32` prints"
        )),
        Ok(_) => Ok(()),
        Err(_) => wrong(format!("{name} begins with whsec_ but is not base64 after it: copy the secret again")),
    }
}

/// The secrets of `serve`.
#[derive(Debug, Clone)]
pub struct Signatures {
    /// `WEBHOOK_SIGNATURE`, and `WEBHOOK_SIGNATURE_PREVIOUS` while rotating.
    pub webhook: Vec<Secret>,
    /// What `/nuke` takes: `NUKE_SIGNATURE`, else the same as everything.
    pub nuke: Vec<Secret>,
}

impl Signatures {
    /// Reads them from the environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        let Some(current) = signature("WEBHOOK_SIGNATURE")? else {
            return wrong("WEBHOOK_SIGNATURE is missing: set it to the secret that callers of /sync send");
        };
        let mut webhook = vec![current];
        webhook.extend(signature("WEBHOOK_SIGNATURE_PREVIOUS")?);
        let nuke = match signature("NUKE_SIGNATURE")? {
            Some(own) => vec![own],
            None => webhook.clone(),
        };
        Ok(Self { webhook, nuke })
    }
}
