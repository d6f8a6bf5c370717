//! How long the log is kept that clients are fed from, and how long they wait for a consistent cut: flags and environment.

use crate::core::config_error::{ConfigError, wrong};
use crate::replica::FEED_RETENTION;
use std::time::Duration;

/// The shortest time that the log is kept: who polls has to come back within it.
const LEAST_RETENTION: Duration = Duration::from_secs(60);

/// What a writer that feeds clients goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feeding {
    /// How long the log of changes is kept.
    pub retention: Duration,
    /// After how long behind a backlog the end of a step is delivered though it is no consistent cut; `None`: never.
    pub patience: Option<Duration>,
}

impl Default for Feeding {
    fn default() -> Self {
        Self { retention: FEED_RETENTION, patience: None }
    }
}

/// `FEED_RETENTION` and `FEED_PATIENCE`.
pub(super) fn feeding(retention: Option<&str>, patience: Option<&str>) -> Result<Feeding, ConfigError> {
    let read = |name: &str, text: &str| {
        humantime::parse_duration(text)
            .map_err(|e| ConfigError(format!("{name} is no time ({e}): write it like 90s, 30m, 24h or 2days")))
    };
    let retention = match retention {
        None => FEED_RETENTION,
        Some(text) => match read("FEED_RETENTION", text)? {
            time if time >= LEAST_RETENTION => time,
            _ => return wrong("FEED_RETENTION is too short: write 1m or more"),
        },
    };
    let patience = match patience {
        None | Some("0") => None,
        Some(text) => Some(read("FEED_PATIENCE", text)?).filter(|time| !time.is_zero()),
    };
    Ok(Feeding { retention, patience })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_what_is_none_is_refused_by_its_name() {
        assert_eq!(feeding(None, None).unwrap(), Feeding::default());
        let given = feeding(Some("2days"), Some("5s")).unwrap();
        assert_eq!((given.retention.as_secs(), given.patience), (172_800, Some(Duration::from_secs(5))));
        assert_eq!(feeding(None, Some("0")).unwrap().patience, None);
        for (retention, patience, name) in [
            (Some("soon"), None, "FEED_RETENTION"),
            (Some("0s"), None, "FEED_RETENTION"),
            (None, Some("x"), "FEED_PATIENCE"),
        ] {
            assert!(feeding(retention, patience).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
