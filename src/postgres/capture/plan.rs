//! Facts → the steps of a set-up, each one transaction. Pure. `setup` runs them, `--print` writes them.

use super::facts::{Exposed, Facts, Forgotten, Inspected};
use super::functions::Function;
use super::names::{Event, function_name, trigger_prefix};
use super::options::SetupOptions;
use super::run::LOCK_TIMEOUT_MS;
use super::source::{ReplicatedTable, Source};
use super::template::{dollar_quoted, dollar_tag, fill, shown, text};
use super::triggers::{Trigger, capture_state, drop_trigger};
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::quote;
use crate::postgres::bell;
use crate::postgres::drift::recorded::Definition;
use crate::postgres::drift::watch;
use crate::postgres::installing::{OUR_ROLES, SCHEMA, guarded};
use minijinja::context;
use std::collections::BTreeSet;

/// How often cron asks for a drain, unless told otherwise.
const DEFAULT_SCHEDULE: &str = "*/5 * * * *";

/// Without what a step can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The set-up ends where this fails.
    Required,
    /// The set-up goes on, and says what to do.
    Optional(&'static str),
}

/// One transaction.
#[derive(Debug, Clone)]
pub(crate) struct PlanStep {
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

impl PlanStep {
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
pub fn steps(facts: &Facts, queue: &QueueName, options: &SetupOptions) -> Result<Vec<PlanStep>> {
    let mut steps = foundation(facts, queue)?;
    for source in &facts.sources {
        steps.push(capture(source, queue, options)?);
    }
    for forgotten in facts.forgotten.iter().filter(|_| options.allow_drop) {
        steps.push(release(forgotten)?);
    }
    steps.push(PlanStep::routine("the record of what is captured", record(facts, queue)?));
    steps.extend(evolve_trigger(facts));
    steps.extend(cron(facts, options)?);
    for exposed in facts.exposed.iter().filter(|_| options.take_over && !options.keep_grants) {
        steps.extend(revoke(exposed)?);
    }
    Ok(steps)
}

/// What all tables have in common.
fn foundation(facts: &Facts, queue: &QueueName) -> Result<Vec<PlanStep>> {
    let mut steps = vec![PlanStep::routine("the schema pgflume", SCHEMA)];
    if !facts.server.has_pgmq {
        steps.push(PlanStep::new("PGMQ", pgmq()?));
    }
    steps.push(PlanStep {
        is_done: facts.queues_exist,
        ..PlanStep::new(format!("the queue {} and its dead letters", queue.as_str()), queues(queue)?)
    });
    steps.push(PlanStep::routine("the worker's bookkeeping", include_str!("../../../sql/bookkeeping.sql")));
    let roles = [include_str!("../../../sql/roles.sql"), OUR_ROLES].concat();
    steps.push(PlanStep::routine("the roles pgflume_capture and pgflume_worker", roles));
    steps.push(PlanStep::routine("their rights", rights(facts, queue)?));
    steps.push(PlanStep::routine("the guard of the queue", guard(queue)?));
    steps.push(PlanStep::routine("the bell of the queue", bell(queue)?));
    steps.push(PlanStep::routine("the functions of schema pgflume", functions(facts, queue)?));
    if facts.is_writable() {
        let sql = [include_str!("../../../sql/push.sql"), OUR_ROLES].concat();
        steps.push(PlanStep::routine("the role pgflume_push and its journal", sql));
    }
    Ok(steps)
}

fn pgmq() -> Result<String> {
    let embedded = include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"));
    let values = context! { outer => dollar_tag(embedded, "install"), pgmq => dollar_quoted(embedded) };
    fill(include_str!("../../../sql/pgmq_install.sql"), values)
}

fn queues(queue: &QueueName) -> Result<String> {
    let values = context! {
        queue_text => text(&queue.table()),
        queue_name => text(queue.as_str()),
        dead_text => text(&queue.dead_table()),
        dead_name => text(&queue.dead()),
    };
    fill(include_str!("../../../sql/queue.sql"), values)
}

fn rights(facts: &Facts, queue: &QueueName) -> Result<String> {
    let source = |s: &Inspected| {
        let (schema, source) = (&s.source.name.schema, s.source.name.quoted());
        let values = context! {
            schema => quote(schema),
            schema_text => text(schema),
            source_text => text(&source),
            source,
        };
        fill(include_str!("../../../sql/rights_source.sql"), values)
    };
    let uses = facts.sources.iter().flat_map(|s| &s.source.targets).flat_map(|t| t.uses.grants());
    let sources = facts.sources.iter().map(source).collect::<Result<String>>()?;
    let values = context! {
        queue => queue.table(),
        queue_text => text(&queue.table()),
        dead => queue.dead_table(),
        sources => (sources + &uses.collect::<BTreeSet<_>>().into_iter().collect::<String>()).trim_end(),
    };
    fill(include_str!("../../../sql/rights.sql"), values)
}

fn guard(queue: &QueueName) -> Result<String> {
    let values = context! {
        queue => queue.table(),
        queue_text => text(&queue.table()),
        queue_name => text(queue.as_str()),
    };
    fill(include_str!("../../../sql/guard.sql"), values)
}

fn bell(queue: &QueueName) -> Result<String> {
    let values = context! {
        queue => queue.table(),
        queue_text => text(&queue.table()),
        channel => text(&bell::channel(queue)),
        class => bell::CLASS,
        key => text(&bell::key(queue).to_string()),
    };
    fill(include_str!("../../../sql/bell.sql"), values)
}

fn functions(facts: &Facts, queue: &QueueName) -> Result<String> {
    // A second queue in the same database leaves the first one's row triggers as they are.
    let image_queue = facts.server.image_queue.as_deref().unwrap_or(queue.as_str());
    let values = context! {
        image_queue => text(image_queue),
        image_comment => text(&format!("queue: {image_queue}")),
    };
    let functions = fill(include_str!("../../../sql/functions.sql"), values)?;
    let values = context! { body => dollar_quoted(&watch::function_body()) };
    Ok(functions + &fill(include_str!("../../../sql/catalog_function.sql"), values)?)
}

fn capture(inspected: &Inspected, queue: &QueueName, options: &SetupOptions) -> Result<PlanStep> {
    let source = &inspected.source;
    let on = source.name.quoted();
    let leftovers = inspected.leftovers.iter().filter(|_| options.take_over).map(|l| (&l.on, &l.trigger));
    let unwanted: Vec<_> = inspected.obsolete.iter().map(|(on, t)| (on, t)).chain(leftovers).collect();
    // The strongest lock first: taking a stronger one later could deadlock with a writer.
    let mode = if unwanted.is_empty() { "share row exclusive" } else { "access exclusive" };
    let state = capture_state(queue, &source.name)?;
    let seen = format!("begin perform pg_catalog.set_config('pgflume.seen', {state}::pg_catalog.text, true); end");
    let mut sql = lock(source, &on, mode)?;
    sql.push_str(&format!("do {};\n", dollar_quoted(&seen)));
    sql.push_str(&installed(source, queue)?);
    for (on, trigger) in &unwanted {
        sql.push_str(&drop_trigger(on, trigger)?);
    }
    let names: Vec<_> = source.targets.iter().map(|t| text(&t.table.name)).collect();
    let common = context! { queue_name => text(queue.as_str()), names };
    sql.push_str(&if inspected.is_watched {
        fill(include_str!("../../../sql/capture_accepted.sql"), context! { state, ..common })?
    } else {
        fill(include_str!("../../../sql/capture_resync.sql"), common)?
    });
    let kind = if source.by_row { "row" } else { "statement" };
    let title = format!("capture of {} by {kind} triggers", shown(&on));
    Ok(PlanStep { is_done: inspected.is_captured && unwanted.is_empty(), ..PlanStep::new(title, sql) })
}

/// The functions and the triggers of a table.
fn installed(source: &Source, queue: &QueueName) -> Result<String> {
    let mut sql = "grant create on schema pgflume to pgflume_capture;\n".to_owned();
    for function in Function::all(source, queue)? {
        sql.push_str(&function.sql()?);
    }
    if let Some(owner) = &source.partitioned_by {
        let row = quote(&function_name(queue, &source.name, Event::Row));
        sql.push_str("-- whoever adds a partition adds this trigger to it\n");
        sql.push_str(&format!("grant execute on function pgflume.{row}() to {};\n", quote(owner)));
    }
    sql.push_str("revoke create on schema pgflume from pgflume_capture;\n");
    for trigger in Trigger::all(source, queue) {
        sql.push_str(&trigger.sql(queue)?);
    }
    for partition in &source.partitions {
        let name = quote(&Event::Row.trigger(queue));
        sql.push_str(&format!("alter table {} enable always trigger {name};\n", partition.quoted()));
    }
    Ok(sql)
}

/// Waits for the table. One without partitions is waited for while nothing else is held.
fn lock(source: &Source, on: &str, mode: &str) -> Result<String> {
    if source.partitioned_by.is_none() {
        return Ok(format!("lock table {on} in {mode} mode;\n"));
    }
    fill(include_str!("../../../sql/lock_all.sql"), context! { on, mode, ms => LOCK_TIMEOUT_MS })
}

/// Takes the right to call a function that gives the secret away, and looks whether it is gone: what could be taken
/// stays taken.
fn revoke(exposed: &Exposed) -> Result<[PlanStep; 2]> {
    let (function, grantees) = (exposed.function.as_str(), exposed.grantees.join(", "));
    let step = |title: String, sql| PlanStep {
        need: Need::Optional("until then it gives the worker's address or secret away"),
        ..PlanStep::new(title, sql)
    };
    let taken = fill(include_str!("../../../sql/takeover_revoke.sql"), context! { function, grantees => &grantees })?;
    let checked =
        fill(include_str!("../../../sql/takeover_check.sql"), context! { function, function_text => text(function) })?;
    Ok([
        step(format!("no right of {grantees} to execute {function}"), taken),
        step(format!("none by another way to {function}"), checked),
    ])
}

/// Ends the capture of a table that `schema.json` no longer names.
fn release(forgotten: &Forgotten) -> Result<PlanStep> {
    let on = forgotten.on.quoted();
    let drops = forgotten.triggers.iter().map(|t| drop_trigger(&forgotten.on, t)).collect::<Result<String>>()?;
    Ok(PlanStep::new(
        format!("the end of the capture of {}", shown(&on)),
        format!("lock table {on} in access exclusive mode;\n{drops}"),
    ))
}

/// What was captured, to tell later what has changed since.
fn record(facts: &Facts, queue: &QueueName) -> Result<String> {
    let one = |source: &Source, target: &ReplicatedTable| {
        let events: Vec<&str> = source.events().iter().map(|e| e.name()).collect();
        let table = &target.table;
        let definition = Definition { calls: target.uses.called.clone(), ..Definition::of(table, &events) };
        // A map of texts and lists has no way not to be JSON.
        let definition = serde_json::to_string(&definition).unwrap_or_default();
        let values = context! {
            prefix => text(&trigger_prefix(queue)),
            queue_name => text(queue.as_str()),
            name => text(&table.name),
            source_text => text(&source.name.quoted()),
            definition => text(&definition),
        };
        fill(include_str!("../../../sql/capture_record.sql"), values)
    };
    let sources = facts.sources.iter().map(|s| &s.source);
    sources.flat_map(|s| s.targets.iter().map(move |t| one(s, t))).collect()
}

/// Only a superuser may make an event trigger; without it added columns are seen with the next call.
fn evolve_trigger(facts: &Facts) -> Option<PlanStep> {
    let evolves = facts.sources.iter().flat_map(|s| &s.source.targets).any(|t| t.table.evolve);
    let remedy = "added columns are seen with the worker's next call instead";
    let step = PlanStep::routine(
        "the event trigger for tables that follow their source",
        include_str!("../../../sql/evolve_trigger.sql"),
    );
    (evolves && facts.server.superuser).then_some(PlanStep { need: Need::Optional(remedy), ..step })
}

fn cron(facts: &Facts, options: &SetupOptions) -> Result<Option<PlanStep>> {
    let server = &facts.server;
    if !server.has_cron && !server.can_cron {
        return Ok(None);
    }
    let values = context! {
        creates_extension => !server.has_cron,
        takes_over => options.take_over,
        schedule => text(options.schedule.as_deref().unwrap_or(DEFAULT_SCHEDULE)),
    };
    let sql = fill(include_str!("../../../sql/cron.sql"), values)?;
    let remedy = "let an administrator create the extension pg_cron and grant usage on schema cron to this role, then run setup again; or let the system's cron run `pgflume sync`";
    Ok(Some(PlanStep {
        need: Need::Optional(remedy),
        ..PlanStep::routine("the cron job process_libsql_replication", sql)
    }))
}
