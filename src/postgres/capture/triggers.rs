//! The triggers of a source, and the SQL that makes, describes and removes them. No IO.

use super::names::{Event, function_name, trigger_prefix};
use super::source::Source;
use super::template::{dollar_quoted, fill, text};
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::{SourceName, quote};
use minijinja::context;

/// A trigger, enabled always, and what it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trigger {
    /// On which table.
    pub on: SourceName,
    /// When.
    pub event: Event,
    /// The function's name in schema pgflume.
    pub function: String,
}

impl Trigger {
    /// All that a source must have; Postgres itself adds row triggers to partitions.
    pub fn all(source: &Source, queue: &QueueName) -> Vec<Self> {
        let trigger = |on: &SourceName, event| Self {
            on: on.clone(),
            event,
            function: function_name(queue, &source.name, event),
        };
        let own = source.events().iter().map(|&event| trigger(&source.name, event));
        own.chain(source.partitions.iter().map(|p| trigger(p, Event::Truncate))).collect()
    }

    /// The SQL that makes it.
    pub fn sql(&self, queue: &QueueName) -> Result<String> {
        let name = self.event.trigger(queue);
        let (sees_old, sees_new) = match self.event {
            Event::Insert => (false, true),
            Event::Update => (true, true),
            Event::Delete => (true, false),
            Event::Truncate | Event::Row => (false, false),
        };
        let values = context! {
            trigger => quote(&name),
            trigger_text => text(&name),
            event => if self.event == Event::Row { "insert or update or delete" } else { self.event.name() },
            on => self.on.quoted(),
            on_text => text(&self.on.quoted()),
            sees_old,
            sees_new,
            level => if self.event == Event::Row { "row" } else { "statement" },
            function => format!("pgflume.{}", quote(&self.function)),
            function_text => text(&self.function),
            type => catalog_type(self.event),
        };
        let body = fill(include_str!("../../../sql/capture_trigger.sql"), values)?;
        Ok(format!("do {};\n", dollar_quoted(&body)))
    }
}

/// As `pg_trigger.tgtype` has it: row 1, insert 4, delete 8, update 16, truncate 32.
fn catalog_type(event: Event) -> u8 {
    match event {
        Event::Insert => 4,
        Event::Update => 16,
        Event::Delete => 8,
        Event::Truncate => 32,
        Event::Row => 1 + 4 + 8 + 16,
    }
}

/// The SQL that says how the capture of a table is, as `sql/catalog_traits.sql` says it.
pub(crate) fn capture_state(queue: &QueueName, on: &SourceName) -> Result<String> {
    let values = context! { prefix => text(&trigger_prefix(queue)), on_text => text(&on.quoted()) };
    fill(include_str!("../../../sql/capture_state.sql"), values)
}

/// The SQL that removes a trigger if it is there.
pub(crate) fn drop_trigger(on: &SourceName, name: &str) -> Result<String> {
    let values = context! {
        on => on.quoted(),
        on_text => text(&on.quoted()),
        trigger => quote(name),
        trigger_text => text(name),
    };
    fill(include_str!("../../../sql/drop_trigger.sql"), values)
}
