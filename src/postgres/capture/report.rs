//! What a set-up did, in words: what was made, what to look out for, what comes next.

use super::facts::Facts;
use super::options::SetupOptions;
use super::template::shown;
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::postgres::Client;
use std::fmt;
use tokio_postgres::types::Type;

/// What `setup` did.
#[derive(Debug, Clone, Default)]
pub struct SetupReport {
    /// Made or brought up to date.
    pub done: Vec<String>,
    /// In place already.
    pub unchanged: Vec<String>,
    warnings: Vec<String>,
    next: Vec<String>,
}

impl SetupReport {
    pub(super) fn new(facts: &Facts, queue: &QueueName, options: &SetupOptions) -> Self {
        let mut report = Self::default();
        for warning in &facts.warnings {
            report.warn(warning.clone());
        }
        report.about_rows(facts);
        report.about_leftovers(facts, options);
        report.about_exposed(facts, options);
        report.about_cron(facts);
        if let Some(other) = facts.server.image_queue.as_deref().filter(|q| *q != queue.as_str()) {
            report.warn(format!(
                "pgflume.trigger_http_queue_post_to_function_libsql() goes on feeding the queue {}; name this queue as the argument of triggers that should feed it",
                shown(other)
            ));
        }
        report.next.push("if the worker logs in as another role: grant pgflume_worker to <that role>".into());
        let is_called = facts.server.has_http && (facts.server.has_cron || facts.server.can_cron);
        report.next.push(match is_called {
            true => "start the worker: pgflume serve (with --follow it needs no cron)".into(),
            false => "start the worker: pgflume serve --follow (or pgflume sync from a scheduler)".into(),
        });
        report
    }

    fn about_rows(&mut self, facts: &Facts) {
        let filled: Vec<_> =
            facts.sources.iter().filter(|s| s.has_uncaptured_rows()).map(|s| shown(&s.source.name.quoted())).collect();
        if !filled.is_empty() {
            self.next.push(format!(
                "these tables hold rows already, and the worker copies them with its next drains: {} (pgflume status shows how far it is)",
                filled.join(", ")
            ));
        }
    }

    fn about_leftovers(&mut self, facts: &Facts, options: &SetupOptions) {
        let left: Vec<_> = facts
            .sources
            .iter()
            .flat_map(|s| &s.leftovers)
            .map(|l| format!("{} on {}", shown(&l.trigger), shown(&l.on.quoted())))
            .collect();
        if !left.is_empty() && !options.take_over {
            self.warn(format!(
                "triggers of the original migration are still there and double the work: {}; run setup with --take-over",
                left.join(", ")
            ));
        }
    }

    fn about_exposed(&mut self, facts: &Facts, options: &SetupOptions) {
        if !options.take_over || options.keep_grants {
            let exposed: Vec<_> = facts.exposed.iter().map(|e| shown(&e.to_string())).collect();
            if !exposed.is_empty() {
                self.warn(format!(
                    "{}, which returns the worker's address or secret: run setup with --take-over, or revoke it",
                    exposed.join("; ")
                ));
            }
        } else if let Some(exposed) = facts.exposed.iter().find(|e| e.function.contains("signature")) {
            self.next.push(format!(
                "until now {} could read the worker's secret: change it, with WEBHOOK_SIGNATURE_PREVIOUS for the time between",
                exposed.grantees.join(", ")
            ));
        }
    }

    fn about_cron(&mut self, facts: &Facts) {
        let server = &facts.server;
        if !server.has_cron && !server.can_cron {
            self.warn("pg_cron is not available in this database, so nothing asks the worker to drain; let the worker follow (`pgflume serve --follow`), which needs none; or install it and run setup again, or let the system's cron run `pgflume sync`");
        } else if !server.has_http {
            self.warn("neither pg_net nor the http extension is here, so cron cannot reach the worker; let the worker follow (`pgflume serve --follow`), which needs none; or run `create extension pg_net`, or let the system's cron run `pgflume sync`");
        }
    }

    /// Says so where cron would post without an address, without a secret, or to one of several workers only: `is_moved`,
    /// to another one than until now.
    pub(super) async fn check_settings(&mut self, client: &Client, queue: &QueueName, is_moved: bool) -> Result<()> {
        let sql = include_str!("../../../sql/check_settings.sql");
        let row = client.query_typed_one(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
        let (url, secret): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        if !url {
            self.warn(
                "cron does not know where the worker is and posts nothing; run setup with SYNC_URL=https://.../sync",
            );
        }
        if !secret {
            self.warn("cron does not know the webhook secret and posts nothing; run setup with WEBHOOK_SIGNATURE in the environment");
        }
        if let Some(others) = row.try_get::<_, Option<String>>(2)?.filter(|_| url) {
            let moved = if is_moved { "; until now it was another one than this" } else { "" };
            self.warn(format!(
                "cron posts to one address for a whole database, which also has the queue {others}{moved}; a worker that is not there has to follow (pgflume serve --follow), or something else has to call it"
            ));
        }
        Ok(())
    }

    /// Says so where the job's name is taken by something else.
    pub(super) async fn check_job(&mut self, client: &Client) -> Result<()> {
        let found = client.query_typed(include_str!("../../../sql/check_job.sql"), &[]).await;
        // Whoever may not look at the jobs has been told so by the step that made none.
        let is_taken = match found.as_deref() {
            Ok([row, ..]) => row.try_get(0)?,
            _ => false,
        };
        if is_taken {
            self.warn("a cron job process_libsql_replication is there that runs something else, and was left alone; run setup with --take-over to replace it");
        }
        Ok(())
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// What to look out for, each with its remedy.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for SetupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (head, lines) in [
            ("Made:", &self.done),
            ("In place already:", &self.unchanged),
            ("Take note:", &self.warnings),
            ("Next:", &self.next),
        ] {
            if !lines.is_empty() {
                writeln!(f, "{head}")?;
                lines.iter().try_for_each(|line| writeln!(f, "  - {line}"))?;
            }
        }
        Ok(())
    }
}
