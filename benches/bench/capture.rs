//! What capture costs the writer: the same writes without a trigger, with a floor, with Capgo's row trigger, and
//! with what `pgflume setup` installs; and what a NOTIFY in each commit would add.

use crate::ground::{Ground, Table, connect};
use crate::report::{Section, median, thousands};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};
use std::collections::BTreeMap;
use std::time::Instant;

/// How a copy of the table is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Not at all.
    Plain,
    /// By statement triggers that get the rows, look at none, and put one constant message on a queue.
    Floor,
    /// By Capgo's row trigger: each row's image a message.
    Capgo,
    /// By `pgflume setup`.
    Ours,
    /// So, and each transaction also notifies a listener.
    Notify,
}

/// In bulk, and what single rows have besides.
const BULK: [Way; 4] = [Way::Plain, Way::Floor, Way::Capgo, Way::Ours];
const SINGLE: [Way; 5] = [Way::Plain, Way::Floor, Way::Capgo, Way::Ours, Way::Notify];

/// Statements of the bulk, in this order.
const STATEMENTS: [&str; 4] = ["insert", "update", "update that changes nothing", "delete"];

/// How single rows are committed.
const COMMITS: [(&str, &str); 2] = [("on", "flushed by each commit"), ("off", "flushed later: no wait for the disk")];

/// The queue of Capgo's trigger and of the floor.
const IMAGES: &str = "images";

/// Concurrent writers of single rows.
const CLIENTS: u32 = 8;

/// Rows of the table that single rows are written to.
const SINGLE_ROWS: i64 = 100_000;

/// Capgo's trigger runs once a row, so a part of the rows says what all take; all of them would take minutes.
const CAPGO_PART: i64 = 10;

/// Each round's figures: milliseconds of a bulk statement, bytes on the queue, or single rows a second.
type Rounds = BTreeMap<(String, Way), Vec<f64>>;

impl Way {
    /// The schema of its copy of the table.
    fn schema(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Floor => "floor",
            Self::Capgo => "capgo",
            Self::Ours | Self::Notify => "public",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "without",
            Self::Floor => "floor",
            Self::Capgo => "reference: Capgo's trigger",
            Self::Ours => "pgflume",
            Self::Notify => "pgflume and NOTIFY",
        }
    }

    fn queue(self) -> &'static str {
        if self == Self::Ours { DEFAULT_QUEUE } else { IMAGES }
    }

    /// What is written in bulk is this part of the rows; time and bytes count so often.
    fn part(self) -> i64 {
        if self == Self::Capgo { CAPGO_PART } else { 1 }
    }
}

/// Runs everything interleaved, `ground.runs()` times.
pub async fn run(ground: &Ground) -> Section {
    let rows: i64 = if ground.is_quick { 10_000 } else { 100_000 };
    let mut lines = Vec::new();
    let mut bars = Vec::new();
    for table in [Table::Narrow, Table::Wide] {
        let label = if table == Table::Narrow { "narrow" } else { "wide" };
        prepare(ground, table, rows).await;
        let found = bulk(ground, table, rows).await;
        for statement in STATEMENTS {
            lines.push(bulk_line(&found, label, statement));
            bars.extend(BULK[1..].iter().map(|&way| {
                (format!("{}, {statement} ({label})", way.name()), ratio(&found, statement, way, Way::Plain))
            }));
        }
        lines.push(bytes_line(&found, label, rows));
        if table == Table::Narrow {
            let found = single(ground, table).await;
            lines.extend(COMMITS.map(|(_, name)| single_line(&found, name)));
        }
        clean(ground, table).await;
    }
    Section {
        name: "capture",
        what: format!(
            "{} rows written by one statement, and single rows (insert, update, delete, a transaction each) by {CLIENTS} clients of pgbench. \
             Medians of {} rounds in which the ways take turns; each × is the median of that round's ratios to the same without capture. \
             The floor is a statement trigger that gets the rows and puts one constant message on a queue. Capgo's trigger gets a tenth of the bulk, and its time and bytes count ten times. Bytes are those of the column `message` as stored.",
            thousands(rows as f64),
            ground.runs()
        ),
        head: vec!["write", "without", "floor", "Capgo's row trigger", "pgflume", "pgflume and NOTIFY"],
        rows: lines,
        plot: ("Bulk writes, × the same without capture".into(), bars),
    }
    .print()
}

fn ratio(found: &Rounds, name: &str, way: Way, base: Way) -> f64 {
    let of = |way| &found[&(name.to_owned(), way)];
    median(of(way).iter().zip(of(base)).map(|(value, base)| value / base).collect())
}

fn value(found: &Rounds, name: &str, way: Way) -> f64 {
    median(found[&(name.to_owned(), way)].clone())
}

fn bulk_line(found: &Rounds, label: &str, statement: &str) -> Vec<String> {
    let cell = |way| format!("{:.2} ×", ratio(found, statement, way, Way::Plain));
    let without = format!("{} ms", thousands(value(found, statement, Way::Plain)));
    let cells = [Way::Floor, Way::Capgo, Way::Ours].map(cell);
    [vec![format!("{label}: {statement}"), without], cells.into(), vec![String::new()]].concat()
}

fn bytes_line(found: &Rounds, label: &str, rows: i64) -> Vec<String> {
    let of = |way| value(found, "bytes", way) / rows as f64;
    let ours = format!("{:.1} bytes, {:.4} × Capgo's", of(Way::Ours), of(Way::Ours) / of(Way::Capgo));
    let capgo = format!("{} bytes", thousands(of(Way::Capgo)));
    vec![format!("{label}: queue, a row written four times"), String::new(), String::new(), capgo, ours, String::new()]
}

fn single_line(found: &Rounds, commit: &str) -> Vec<String> {
    let cell = |way| format!("{:.2} ×", ratio(found, commit, way, Way::Plain));
    let ours = format!("{}, {:.2} × Capgo's", cell(Way::Ours), ratio(found, commit, Way::Ours, Way::Capgo));
    let notify = format!("{}, {:.2} × pgflume's", cell(Way::Notify), ratio(found, commit, Way::Notify, Way::Ours));
    let without = format!("{} rows/s", thousands(value(found, commit, Way::Plain)));
    vec![format!("single rows, {commit}"), without, cell(Way::Floor), cell(Way::Capgo), ours, notify]
}

/// A filled table to copy from, an empty copy of it for each way, and its triggers.
async fn prepare(ground: &Ground, table: Table, rows: i64) {
    let name = table.name();
    ground.fill(table, rows.max(SINGLE_ROWS)).await;
    ground.sql(&format!("select pgmq.create('{IMAGES}');\nalter table {name} rename to source_rows;\nalter index {name}_pkey rename to source_rows_pkey")).await;
    for way in BULK {
        let schema = way.schema();
        let copy = format!("{schema}.{name}");
        ground
            .sql(&format!("create schema if not exists {schema};\ncreate table {copy} (like source_rows including all) with (autovacuum_enabled = off);\n{}", triggers(way, &copy)))
            .await;
    }
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    setup(&PgUrl::parse(&ground.url).unwrap(), &table.schema(), &queue, &SetupOptions::default()).await.unwrap();
}

fn triggers(way: Way, table: &str) -> String {
    let function = |name: &str, body: &str| {
        format!(
            "create function {}.{name}() returns trigger language plpgsql as $$ begin {body} return null; end $$;\n",
            way.schema()
        )
    };
    let floor = |event: &str, side: &str| {
        format!(
            "create trigger {event} after {event} on {table} referencing {side} for each statement execute function floor.message();\n"
        )
    };
    match way {
        Way::Plain => "select 1".into(),
        Way::Floor => [
            function(
                "message",
                &format!("insert into pgmq.q_{IMAGES} (vt, message) values (clock_timestamp(), '{{}}');"),
            ),
            floor("insert", "new table as new_rows"),
            floor("update", "old table as old_rows new table as new_rows"),
            floor("delete", "old table as old_rows"),
        ]
        .concat(),
        Way::Capgo => {
            let send = format!(
                "perform pgmq.send('{IMAGES}', jsonb_build_object('table', tg_table_name, 'type', tg_op, 'record', to_jsonb(new), 'old_record', to_jsonb(old)));"
            );
            function("image", &send)
                + &format!(
                    "create trigger image after insert or update or delete on {table} for each row execute function capgo.image()"
                )
        }
        Way::Ours | Way::Notify => {
            function("notify_writer", "notify pgflume;")
                + &format!(
                    "create trigger notify_writer after insert or update or delete on {table} for each statement execute function notify_writer();\n"
                )
                + &format!("alter table {table} disable trigger notify_writer")
        }
    }
}

async fn clean(ground: &Ground, table: Table) {
    let own = ["plain", "floor", "capgo", "pgflume"];
    ground
        .sql(&format!(
            "drop table {}, source_rows;\ndrop function notify_writer();\ndrop schema {} cascade;\nselect pgmq.drop_queue('{IMAGES}')",
            table.name(),
            own.join(", ")
        ))
        .await;
}

async fn bulk(ground: &Ground, table: Table, rows: i64) -> Rounds {
    let mut found = Rounds::new();
    for _ in 0..ground.runs() {
        for statement in STATEMENTS {
            for way in BULK {
                ground.sql("checkpoint").await;
                let sql = bulk_sql(table, way, statement, rows);
                let started = Instant::now();
                ground.sql(&sql).await;
                let took = started.elapsed().as_secs_f64() * 1000.0 * way.part() as f64;
                found.entry((statement.to_owned(), way)).or_default().push(took);
                ground.sql(&format!("vacuum {}.{}", way.schema(), table.name())).await;
            }
        }
        for way in [Way::Capgo, Way::Ours] {
            let bytes = bytes(ground, way).await * way.part() as f64;
            found.entry(("bytes".to_owned(), way)).or_default().push(bytes);
        }
        empty(ground, table).await;
    }
    found
}

fn bulk_sql(table: Table, way: Way, statement: &str, rows: i64) -> String {
    let (schema, name) = (way.schema(), table.name());
    let copy = format!("{schema}.{name}");
    let (changed, same) = changes(table);
    match statement {
        "insert" => format!("insert into {copy} select * from public.source_rows where id <= {}", rows / way.part()),
        "update" => format!("update {copy} set {changed}"),
        "delete" => format!("delete from {copy}"),
        _ => format!("update {copy} set {same}"),
    }
}

/// Of a replicated column, and of nothing.
fn changes(table: Table) -> (&'static str, &'static str) {
    match table {
        Table::Narrow => ("version = version + 1", "version = version"),
        Table::Wide => ("name = name || 'x'", "name = name"),
    }
}

/// On the way's queue; the floor's messages are all the same two bytes long.
async fn bytes(ground: &Ground, way: Way) -> f64 {
    let sql =
        format!("select sum(pg_column_size(message))::float8 from pgmq.q_{} where message <> '{{}}'", way.queue());
    ground.client.query_one(&sql, &[]).await.unwrap().get(0)
}

async fn empty(ground: &Ground, table: Table) {
    let copies = BULK.map(|way| format!("{}.{}", way.schema(), table.name()));
    ground.sql(&format!("truncate {}, pgmq.q_{IMAGES}, pgmq.q_{DEFAULT_QUEUE}", copies.join(", "))).await;
}

async fn single(ground: &Ground, table: Table) -> Rounds {
    let mut found = Rounds::new();
    let (rounds, seconds) = if ground.is_quick { (1, 1) } else { (ground.runs(), 2) };
    let listener = connect(&ground.url).await;
    listener.batch_execute("listen pgflume").await.unwrap();
    for way in BULK {
        ground
            .sql(&format!(
                "insert into {0}.{1} select * from source_rows where id <= {SINGLE_ROWS};\nvacuum analyze {0}.{1}",
                way.schema(),
                table.name()
            ))
            .await;
    }
    for _ in 0..rounds {
        for (commit, name) in COMMITS {
            for way in SINGLE {
                notify(ground, table, way == Way::Notify).await;
                ground.sql(&format!("truncate pgmq.q_{IMAGES}, pgmq.q_{DEFAULT_QUEUE};\ncheckpoint")).await;
                let scripts = ground.pgbench(&script(table, way), CLIENTS, seconds, commit).await;
                found.entry((name.to_owned(), way)).or_default().push(scripts * 3.0);
            }
        }
    }
    empty(ground, table).await;
    found
}

async fn notify(ground: &Ground, table: Table, is_on: bool) {
    let what = if is_on { "enable" } else { "disable" };
    ground.sql(&format!("alter table public.{} {what} trigger notify_writer", table.name())).await;
}

/// Three transactions of one row each.
fn script(table: Table, way: Way) -> String {
    let copy = format!("{}.{}", way.schema(), table.name());
    format!(
        "\\set id random(1, {SINGLE_ROWS})\n\\set new random(1000000, 2000000000)\n\
         insert into {copy} select {} from (select :new::bigint as i) i on conflict do nothing;\n\
         update {copy} set {} where id = :id;\ndelete from {copy} where id = :new;\n",
        table.row(),
        changes(table).0
    )
}
