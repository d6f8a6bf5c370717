//! Facts → the steps of a set-up, each one transaction. Pure. `setup` runs them, `--print` writes them.

use super::facts::{Exposed, Facts, Forgotten, Inspected};
use super::options::SetupOptions;
use super::render::{self, Event, Source, Target};
use super::run::LOCK_TIMEOUT_MS;
use super::template::{dollar_quoted, dollar_tag, fill, shown, text};
use crate::core::queue_name::QueueName;
use crate::core::schema::quote;
use crate::postgres::drift::recorded::Definition;
use crate::postgres::drift::watch;
use crate::postgres::installing::{OUR_ROLES, SCHEMA, guarded};
use std::collections::BTreeSet;

/// How often cron asks for a drain, unless told otherwise.
const DEFAULT_SCHEDULE: &str = "*/5 * * * *";

/// Without what a step can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The set-up ends where this fails.
    Required,
    /// The set-up goes on, and says what to do.
    Optional(&'static str),
}

/// One transaction.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it makes, for people.
    pub title: String,
    /// Its SQL, without begin and commit.
    pub sql: String,
    /// Whether the rest can do without.
    pub need: Need,
    /// Nothing to do: all of it is there as it should be.
    pub is_done: bool,
    /// Run each time, whether something has changed or not.
    pub is_routine: bool,
}

impl Step {
    /// A required step with something to do.
    pub fn new(title: impl Into<String>, sql: impl Into<String>) -> Self {
        Self { title: title.into(), sql: sql.into(), need: Need::Required, is_done: false, is_routine: false }
    }

    /// A step that is run each time.
    fn routine(title: impl Into<String>, sql: impl Into<String>) -> Self {
        Self { is_routine: true, ..Self::new(title, sql) }
    }

    /// The whole transaction.
    pub fn transaction(&self) -> String {
        format!(
            "begin;\nset local lock_timeout = '{LOCK_TIMEOUT_MS}ms';\nset local client_min_messages = warning;\n\
             set local search_path = '';\nset local quote_all_identifiers = off;\nset local standard_conforming_strings = on;\n{}commit;\n",
            guarded(&self.sql)
        )
    }
}

/// All steps, in order.
pub fn steps(facts: &Facts, queue: &QueueName, options: &SetupOptions) -> Vec<Step> {
    let mut steps = vec![Step::routine("the schema pgflume", SCHEMA)];
    if !facts.server.has_pgmq {
        steps.push(Step::new("PGMQ", pgmq()));
    }
    steps.push(Step {
        is_done: facts.queues_exist,
        ..Step::new(format!("the queue {} and its dead letters", queue.as_str()), queues(queue))
    });
    steps.push(Step::routine(
        "the schema pgflume and the worker's bookkeeping",
        include_str!("../../../sql/bookkeeping.sql"),
    ));
    let roles = [include_str!("../../../sql/roles.sql"), OUR_ROLES].concat();
    steps.push(Step::routine("the roles pgflume_capture and pgflume_worker", roles));
    steps.push(Step::routine("their rights", rights(facts, queue)));
    steps.push(Step::routine("the guard of the queue", guard(queue)));
    steps.push(Step::routine("the functions of schema pgflume", functions(facts, queue)));
    steps.extend(facts.sources.iter().map(|s| capture(s, queue, options)));
    if options.allow_drop {
        steps.extend(facts.forgotten.iter().map(release));
    }
    steps.push(Step::routine("the record of what is captured", record(facts, queue)));
    steps.extend(evolve_trigger(facts));
    steps.extend(cron(facts, options));
    if options.take_over && !options.keep_grants {
        steps.extend(facts.exposed.iter().flat_map(revoke));
    }
    steps
}

fn pgmq() -> String {
    let embedded = include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"));
    let outer = dollar_tag(embedded, "install");
    fill(include_str!("../../../sql/pgmq_install.sql"), &[("outer", &outer), ("pgmq", &dollar_quoted(embedded))])
}

fn queues(queue: &QueueName) -> String {
    let values = [
        ("queue_text", text(&queue.table())),
        ("queue_name", text(queue.as_str())),
        ("dead_text", text(&queue.dead_table())),
        ("dead_name", text(&queue.dead())),
    ];
    fill(include_str!("../../../sql/queue.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
}

fn rights(facts: &Facts, queue: &QueueName) -> String {
    let source = |s: &Inspected| {
        let (schema, source) = (quote(&s.source.name.schema), s.source.name.quoted());
        let values = [
            ("schema", schema.as_str()),
            ("schema_text", &text(&s.source.name.schema)),
            ("source", &source),
            ("source_text", &text(&source)),
        ];
        fill(include_str!("../../../sql/rights_source.sql"), &values)
    };
    let uses = facts.sources.iter().flat_map(|s| &s.source.targets).flat_map(|t| t.uses.grants());
    let sources: String = facts.sources.iter().map(source).chain(uses.collect::<BTreeSet<_>>()).collect();
    let values = [
        ("queue", queue.table()),
        ("queue_text", text(&queue.table())),
        ("dead", queue.dead_table()),
        ("sources", sources.trim_end().to_owned()),
    ];
    fill(include_str!("../../../sql/rights.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
}

fn guard(queue: &QueueName) -> String {
    let values = [("queue", queue.table()), ("queue_text", text(&queue.table())), ("queue_name", text(queue.as_str()))];
    fill(include_str!("../../../sql/guard.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
}

fn functions(facts: &Facts, queue: &QueueName) -> String {
    // A second queue in the same database leaves the first one's row triggers as they are.
    let image_queue = facts.server.image_queue.as_deref().unwrap_or(queue.as_str());
    let values = [("image_queue", text(image_queue)), ("image_comment", text(&format!("queue: {image_queue}")))];
    let functions = fill(include_str!("../../../sql/functions.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())));
    let body = dollar_quoted(&watch::function_body());
    functions + &fill(include_str!("../../../sql/catalog_function.sql"), &[("body", &body)])
}

fn capture(inspected: &Inspected, queue: &QueueName, options: &SetupOptions) -> Step {
    let source = &inspected.source;
    let on = source.name.quoted();
    let leftovers: Vec<_> = inspected.leftovers.iter().filter(|_| options.take_over).collect();
    // The strongest lock first: taking a stronger one later could deadlock with a writer.
    let is_dropping = !inspected.obsolete.is_empty() || !leftovers.is_empty();
    let mode = if is_dropping { "access exclusive" } else { "share row exclusive" };
    let state = render::capture_state(queue, &source.name);
    let seen = format!("begin perform pg_catalog.set_config('pgflume.seen', {state}::pg_catalog.text, true); end");
    let mut sql = lock(source, &on, mode);
    sql.push_str(&format!("do {};\n", dollar_quoted(&seen)));
    sql.push_str("grant create on schema pgflume to pgflume_capture;\n");
    for function in source.functions(queue) {
        sql.push_str(&render::function(&function));
    }
    if let Some(owner) = &source.partitioned_by {
        let row = quote(&render::function_name(queue, &source.name, Event::Row));
        sql.push_str("-- whoever adds a partition adds this trigger to it\n");
        sql.push_str(&format!("grant execute on function pgflume.{row}() to {};\n", quote(owner)));
    }
    sql.push_str("revoke create on schema pgflume from pgflume_capture;\n");
    for trigger in source.triggers(queue) {
        sql.push_str(&render::trigger(queue, &trigger));
    }
    for partition in &source.partitions {
        let name = quote(&Event::Row.trigger(queue));
        sql.push_str(&format!("alter table {} enable always trigger {name};\n", partition.quoted()));
    }
    for (on, trigger) in
        inspected.obsolete.iter().map(|(on, t)| (on, t)).chain(leftovers.iter().map(|l| (&l.on, &l.trigger)))
    {
        sql.push_str(&render::drop_trigger(on, trigger));
    }
    let names: Vec<_> = source.targets.iter().map(|t| text(&t.table.name)).collect();
    let values = [("queue_name", text(queue.as_str())), ("names", names.join(", ")), ("state", state)];
    let then = if inspected.is_watched {
        include_str!("../../../sql/capture_accepted.sql")
    } else {
        include_str!("../../../sql/capture_resync.sql")
    };
    sql.push_str(&fill(then, &values.each_ref().map(|(n, v)| (*n, v.as_str()))));
    let kind = if source.by_row { "row" } else { "statement" };
    let title = format!("capture of {} by {kind} triggers", shown(&on));
    Step { is_done: inspected.is_captured && !is_dropping, ..Step::new(title, sql) }
}

/// Waits for the table. One without partitions is waited for while nothing else is held.
fn lock(source: &Source, on: &str, mode: &str) -> String {
    if source.partitioned_by.is_none() {
        return format!("lock table {on} in {mode} mode;\n");
    }
    let ms = LOCK_TIMEOUT_MS.to_string();
    fill(include_str!("../../../sql/lock_all.sql"), &[("on", on), ("mode", mode), ("ms", &ms)])
}

/// Takes the right to call a function that gives the secret away, and looks whether it is gone: what could be taken
/// stays taken.
fn revoke(exposed: &Exposed) -> [Step; 2] {
    let (function, grantees) = (exposed.function.as_str(), exposed.grantees.join(", "));
    let values = [("function", function), ("function_text", &text(function)), ("grantees", &grantees)];
    let step = |title: String, sql| Step {
        need: Need::Optional("until then it gives the worker's address or secret away"),
        ..Step::new(title, fill(sql, &values))
    };
    [
        step(format!("no right of {grantees} to execute {function}"), include_str!("../../../sql/takeover_revoke.sql")),
        step(format!("none by another way to {function}"), include_str!("../../../sql/takeover_check.sql")),
    ]
}

/// Ends the capture of a table that `schema.json` no longer names.
fn release(forgotten: &Forgotten) -> Step {
    let on = forgotten.on.quoted();
    let drops: String = forgotten.triggers.iter().map(|t| render::drop_trigger(&forgotten.on, t)).collect();
    Step::new(
        format!("the end of the capture of {}", shown(&on)),
        format!("lock table {on} in access exclusive mode;\n{drops}"),
    )
}

/// What was captured, to tell later what has changed since.
fn record(facts: &Facts, queue: &QueueName) -> String {
    let one = |source: &Source, target: &Target| {
        let events: Vec<&str> = source.events().iter().map(|e| e.name()).collect();
        let table = &target.table;
        let definition = Definition { calls: target.uses.called.clone(), ..Definition::of(table, &events) };
        // A map of texts and lists has no way not to be JSON.
        let definition = serde_json::to_string(&definition).unwrap_or_default();
        let values = [
            ("prefix", text(&render::trigger_prefix(queue))),
            ("queue_name", text(queue.as_str())),
            ("name", text(&table.name)),
            ("source_text", text(&source.name.quoted())),
            ("definition", text(&definition)),
        ];
        fill(include_str!("../../../sql/capture_record.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())))
    };
    let sources = facts.sources.iter().map(|s| &s.source);
    sources.flat_map(|s| s.targets.iter().map(move |t| one(s, t))).collect()
}

/// Only a superuser may make an event trigger; without it added columns are seen with the next call.
fn evolve_trigger(facts: &Facts) -> Option<Step> {
    let evolves = facts.sources.iter().flat_map(|s| &s.source.targets).any(|t| t.table.evolve);
    let mend = "added columns are seen with the worker's next call instead";
    let step = Step::routine(
        "the event trigger for tables that follow their source",
        include_str!("../../../sql/evolve_trigger.sql"),
    );
    (evolves && facts.server.superuser).then_some(Step { need: Need::Optional(mend), ..step })
}

fn cron(facts: &Facts, options: &SetupOptions) -> Option<Step> {
    let server = &facts.server;
    if !server.has_cron && !server.can_cron {
        return None;
    }
    let replace =
        if options.take_over { include_str!("../../../sql/cron_replace.sql").trim_end_matches(' ') } else { "" };
    let values = [
        (
            "extension",
            if server.has_cron { "" } else { "create extension if not exists pg_cron with schema pg_catalog;\n" }
                .to_owned(),
        ),
        ("replace", if replace.is_empty() { String::new() } else { format!("{}\n    ", replace.trim_end()) }),
        ("schedule", text(options.schedule.as_deref().unwrap_or(DEFAULT_SCHEDULE))),
    ];
    let sql = fill(include_str!("../../../sql/cron.sql"), &values.each_ref().map(|(n, v)| (*n, v.as_str())));
    let mend = "let an administrator create the extension pg_cron and grant usage on schema cron to this role, then run setup again; or let the system's cron run `pgflume sync`";
    Some(Step { need: Need::Optional(mend), ..Step::routine("the cron job process_libsql_replication", sql) })
}
