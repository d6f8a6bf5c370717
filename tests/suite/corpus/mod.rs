//! Values of every Postgres type: tables, rows written by sessions of all sorts, and a check of the
//! replica against the contract, computed in SQL and by none of pgflume's own code.

mod values;

use crate::store::show;
use crate::support::{Db, schema};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::schema::{Schema, quote};
use pgflume::core::value::Cell;
use pgflume::postgres::PgUrl;
use pgflume::replica::Replica;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Client;
pub use values::TYPES;
use values::{Kind, Needs};

/// A text that a server still takes: sqld refuses values above 5 MB.
pub const LARGE: &str = "repeat(E'é\"\\\\\\n😀', 450000)";

/// A text that only a file takes.
pub const LARGER: &str = "repeat(E'é\"\\\\\\n😀', 650000)";

/// How writers' sessions may be set, one a session.
const SESSIONS: [&str; 5] = [
    "set timezone = 'UTC'",
    "set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set intervalstyle = 'sql_standard'; set bytea_output = 'escape'; set extra_float_digits = -15; set search_path = ''; set quote_all_identifiers = on",
    "set timezone = 'America/St_Johns'; set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601'; set extra_float_digits = 0; set search_path = 'pg_catalog'; set xmlbinary = 'hex'; set xmloption = 'document'; set array_nulls = off",
    "set timezone = '<+07:30>-07:30'; set datestyle = 'Postgres, MDY'; set intervalstyle = 'postgres_verbose'; set escape_string_warning = off; set standard_conforming_strings = off; set lc_monetary = 'C.UTF-8'; set search_path = 'My Types', public",
    "set session_replication_role = 'replica'; set quote_all_identifiers = on; set bytea_output = 'escape'; set default_transaction_isolation = 'serializable'; set row_security = off",
];

/// What the whole database may be set to: also the worker's sessions begin with it. (PGMQ's own functions
/// do not run with standard_conforming_strings = off.)
const DEFAULTS: [&str; 9] = [
    "timezone = 'Asia/Kathmandu'",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'iso_8601'",
    "bytea_output = 'escape'",
    "extra_float_digits = -5",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "xmloption = 'document'",
    "search_path = 'My Types'",
];

/// What the contract pins.
const PINNED: &str = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set bytea_output = 'hex';
    set extra_float_digits = 3; set quote_all_identifiers = off; set lc_monetary = 'C'; set search_path = ''; set array_nulls = on;
    set standard_conforming_strings = on; set xmloption = 'content'";

/// A column of a corpus table: its name, its Postgres type and what `schema.json` calls it.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub postgres: &'static str,
    pub declared: String,
}

/// A table of one type: either its columns are that type in every declaration (key `id`), or its key
/// `k` is. Its rows wait in the schema `stage`.
#[derive(Debug, Clone)]
pub struct CorpusTable {
    pub name: String,
    pub key: &'static str,
    pub columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// Ids up to this may be sent as images: `to_jsonb` makes one key of arrays that differ in their bounds.
    image_rows: usize,
}

/// The corpus in one database.
pub struct Corpus {
    pub tables: Vec<CorpusTable>,
}

/// Both sides, value by value.
#[derive(Debug, Default)]
pub struct Checked {
    pub values: usize,
    pub differences: Vec<String>,
}

impl Corpus {
    /// Makes types, tables and staged rows of all that this server has; the tables are empty.
    pub async fn create(db: &Db) -> Self {
        db.sql("create schema stage").await;
        db.sql(TYPES).await;
        let mut tables = Vec::new();
        for (i, kind) in values::kinds().iter().enumerate() {
            if is_there(db, kind.needs).await {
                tables.push(value_table(i, kind));
                tables.extend(kind.key.split_whitespace().map(|declared| key_table(i, kind, declared)));
            }
        }
        tables.push(large_table(LARGE));
        let mut mistakes = Vec::new();
        for table in &tables {
            if let Err(error) = table.stage(db).await {
                mistakes.push(format!("{}: {error:?}", table.name));
            }
        }
        assert!(mistakes.is_empty(), "{mistakes:#?}");
        for setting in DEFAULTS {
            db.sql(&format!("alter database {} set {setting}", db.name)).await;
        }
        Self { tables }
    }

    /// Adds a text that no server takes.
    pub async fn add_larger(&mut self, db: &Db) {
        let mut table = large_table(LARGER);
        table.name = "larger".into();
        table.stage(db).await.unwrap();
        self.tables.push(table);
    }

    pub fn schema(&self) -> Arc<Schema> {
        let tables = self.tables.iter().map(|table| {
            let columns = table.columns.iter().map(|c| (c.name.clone(), c.declared.clone().into()));
            let columns: serde_json::Map<String, serde_json::Value> = columns.collect();
            // Every declaration is tried, lossy ones too.
            let lossy: Vec<&String> = columns.keys().filter(|name| *name != table.key).collect();
            (table.name.clone(), serde_json::json!({"primaryKey": table.key, "columns": columns, "lossy": lossy}))
        });
        let tables: serde_json::Map<String, serde_json::Value> = tables.collect();
        schema(&serde_json::Value::from(tables).to_string())
    }

    /// Writes the staged rows, each part in a session of its own kind.
    pub async fn fill(&self, db: &Db) {
        let last = |t: &CorpusTable| {
            if t.key == "k" { format!(" and id < greatest(2, {})", t.rows.len()) } else { String::new() }
        };
        for (i, session) in SESSIONS.iter().enumerate() {
            self.write(db, session, |t| {
                let part = format!("id % {} = {i}{}", SESSIONS.len(), last(t));
                format!("insert into public.{0} select * from stage.{0} where {part}", t.name)
            })
            .await;
        }
    }

    /// Updates and deletes, each in a session of its own kind. Value tables: values move to the next row.
    /// Key tables: a key becomes another, or an equal one of another text.
    pub async fn change(&self, db: &Db) {
        self.write(db, SESSIONS[1], |t| t.update(1)).await;
        self.write(db, SESSIONS[2], |t| format!("delete from public.{} where id % 4 = 3", t.name)).await;
        self.write(db, SESSIONS[3], |t| t.update(2)).await;
        self.write(db, SESSIONS[4], |t| format!("update public.{0} c set id = c.id + 1000 where c.id = 4", t.name))
            .await;
        self.write(db, SESSIONS[1], |t| match t.key {
            "k" => format!("update public.{0} c set k = t.k from stage.{0}_twins t where t.id = c.id", t.name),
            _ => format!("insert into public.{0} select * from stage.{0} where id % 8 = 3", t.name),
        })
        .await;
    }

    async fn write(&self, db: &Db, session: &str, sql: impl Fn(&CorpusTable) -> String) {
        let client = connect(db).await;
        client.batch_execute(session).await.unwrap();
        for table in &self.tables {
            let sql = sql(table);
            client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{session}: {sql}: {e:?}"));
        }
    }

    /// Sends the staged rows as Capgo's trigger would, one message a row, and leaves the tables alone.
    /// Rows that `to_jsonb` refuses are left out (a trigger would have failed the write), and rows whose key
    /// is the JSON value null, which an image cannot tell from no key.
    pub async fn send_images(&self, db: &Db) {
        let client = connect(db).await;
        client.batch_execute(PINNED).await.unwrap();
        client.batch_execute("create table stage.sent (name text, id int)").await.unwrap();
        for table in &self.tables {
            let name = &table.name;
            let (key, rows) = (table.key, table.image_rows);
            let sql = format!(
                "do $$declare r stage.{name}; begin for r in select * from stage.{name} where id <= {rows} order by id loop begin
                    continue when to_jsonb(r) ->> '{key}' is null;
                    perform pgmq.send('{DEFAULT_QUEUE}', jsonb_build_object('type', 'INSERT', 'table', '{name}', 'record', to_jsonb(r), 'old_record', null));
                    insert into stage.sent values ('{name}', r.id);
                 exception when data_exception or program_limit_exceeded then null; end; end loop; end$$"
            );
            client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        }
    }

    /// Compares every value of the replica with what the contract says of the source's row.
    pub async fn check(&self, db: &Db, replica: &Replica) -> Checked {
        self.compare(
            db,
            replica,
            |t, c| contract(c, &format!("t.{}", quote(&c.name))) + &format!(" /* {} */", t.name),
            |t| format!("public.{} t", t.name),
        )
        .await
    }

    /// The same for rows that [`Corpus::send_images`] has sent.
    pub async fn check_images(&self, db: &Db, replica: &Replica) -> Checked {
        let sent = |t: &CorpusTable| {
            format!("stage.{0} t where t.id in (select s.id from stage.sent s where s.name = '{0}')", t.name)
        };
        self.compare(db, replica, |_, c| image_contract(c, &format!("t.{}", quote(&c.name))), sent).await
    }

    async fn compare(
        &self,
        db: &Db,
        replica: &Replica,
        expected: impl Fn(&CorpusTable, &Column) -> String,
        from: impl Fn(&CorpusTable) -> String,
    ) -> Checked {
        let client = connect(db).await;
        client.batch_execute(PINNED).await.unwrap();
        let mut checked = Checked::default();
        for table in &self.tables {
            let columns: Vec<_> = table.columns.iter().map(|c| expected(table, c)).collect();
            let sql = format!("select t.id, {} from {}", columns.join(", "), from(table));
            let rows = client.query(&sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            let source = rows.iter().map(|row| {
                let values =
                    (0..columns.len()).map(|i| row.get::<_, Option<String>>(i + 1).unwrap_or("null:NULL".into()));
                (row.get::<_, i32>(0).to_string(), values.collect::<Vec<_>>())
            });
            checked.add(table, source.collect(), table.replica(replica).await);
        }
        checked
    }
}

impl Checked {
    fn add(&mut self, table: &CorpusTable, source: BTreeMap<String, Vec<String>>, replica: Vec<(String, Vec<String>)>) {
        if source.len() != replica.len() {
            self.differences.push(format!("{}: {} rows, the replica has {}", table.name, source.len(), replica.len()));
        }
        let replica: BTreeMap<_, _> = replica.into_iter().collect();
        for (id, expected) in &source {
            let Some(found) = replica.get(id) else {
                self.differences.push(format!("{} {id}: missing", table.name));
                continue;
            };
            self.values += expected.len();
            for ((column, expected), found) in table.columns.iter().zip(expected).zip(found) {
                if expected != found {
                    let short = |text: &str| text.chars().take(120).collect::<String>();
                    let (name, declared, postgres) = (&table.name, &column.declared, column.postgres);
                    self.differences.push(format!(
                        "{name} {id}, {postgres} as {declared}: expected {:?}, found {:?}",
                        short(expected),
                        short(found)
                    ));
                }
            }
        }
    }
}

impl CorpusTable {
    /// Makes the table and its staged rows; a value that Postgres refuses is a mistake of the corpus.
    async fn stage(&self, db: &Db) -> Result<(), tokio_postgres::Error> {
        let (name, key) = (&self.name, self.key);
        let columns: Vec<_> = self.columns.iter().map(|c| format!("{} {}", c.name, c.postgres)).collect();
        let rows: Vec<_> = self.rows.iter().map(|row| format!("({})", row.join(", "))).collect();
        let (columns, rows) = (columns.join(", "), rows.join(",\n"));
        let mut sql = format!(
            "create table public.{name} ({columns}, primary key ({key}));
             create table stage.{name} (like public.{name} including indexes);
             insert into stage.{name} values {rows} on conflict do nothing;"
        );
        if key == "k" {
            sql.push_str(&format!(
                "create table stage.{name}_twins as select distinct on (s.id) s.id, a.k from (values {rows}) a(k, id)
                 join stage.{name} s on a.k = s.k where a.k::text collate \"C\" <> s.k::text"
            ));
        }
        db.client.batch_execute(&sql).await
    }

    fn update(&self, rest: usize) -> String {
        let (name, rows) = (&self.name, self.rows.len());
        if self.key == "k" {
            return format!(
                "update public.{name} c set k = s.k, id = s.id from stage.{name} s
                 where s.id = {rows} and c.id = {rest} and not exists (select from public.{name} o where o.id = {rows})"
            );
        }
        let columns =
            self.columns.iter().filter(|c| c.name != "id").map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        format!(
            "update public.{name} c set ({columns}) = (select {columns} from stage.{name} s where s.id = c.id % {rows} + 1) where c.id % 3 = {rest}"
        )
    }

    /// Its rows in the replica: id, and each value with its storage class.
    async fn replica(&self, replica: &Replica) -> Vec<(String, Vec<String>)> {
        let columns: Vec<_> = self.columns.iter().map(|c| format!("typeof({0}), {0}", c.name)).collect();
        let sql = format!("SELECT id, {} FROM {} ORDER BY id LIMIT 1 OFFSET ?1", columns.join(", "), self.name);
        let whole = sql.replace("LIMIT 1 OFFSET ?1", "");
        let mut rows = Vec::new();
        if self.name.starts_with("large") {
            // A server answers at most 10 MB.
            while let Some(row) = replica.query(&sql, vec![Cell::Integer(rows.len() as i64)]).await.unwrap().pop() {
                rows.push(row);
            }
        } else {
            rows = replica.query(whole, vec![]).await.unwrap();
        }
        rows.iter()
            .map(|row| (show(&row[0]), row[1..].chunks(2).map(|pair| canonical(&pair[0], &pair[1])).collect()))
            .collect()
    }
}

/// `typeof:value`, as [`contract`] writes it.
fn canonical(class: &Cell, cell: &Cell) -> String {
    let value = match cell {
        Cell::Real(real) => format!("{:016x}", real.to_bits()),
        Cell::Blob(bytes) => hex::encode(bytes),
        other => show(other),
    };
    format!("{}:{value}", show(class))
}

/// The contract's "Values in SQLite", in SQL: storage class and value of a column.
fn contract(column: &Column, c: &str) -> String {
    let is_moment =
        column.postgres.starts_with("timestamp") && !column.postgres.ends_with("[]") || column.postgres == "moment";
    match column.declared.as_str() {
        "INTEGER" | "BOOLEAN" if column.postgres == "bool" => format!("'integer:' || {c}::int"),
        "INTEGER" => format!("'integer:' || {c}::text::numeric::int8"),
        "REAL" => format!(
            "case when {c}::text in ('NaN', 'Infinity', '-Infinity') then 'text:' || {c}::text
             else 'real:' || encode(float8send(case when {c} = 0 then 0 else {c}::text::float8 end), 'hex') end"
        ),
        "BLOB" => format!("'blob:' || encode({c}, 'hex')"),
        "JSON" if ["json", "jsonb", "document"].contains(&column.postgres) => format!("'text:' || {c}::text"),
        "JSON" => format!("'text:' || to_jsonb({c})::text"),
        "TEXT" if is_moment => format!(
            r"'text:' || regexp_replace(regexp_replace({c}::text, '^(\S+) (\d)', '\1T\2'), '\+00( BC)?$', '+00:00\1')"
        ),
        "TEXT" | "DECIMAL" => format!("'text:' || {c}::text"),
        other => panic!("{other}"),
    }
}

/// The same for what `to_jsonb` made of it.
fn image_contract(column: &Column, c: &str) -> String {
    match column.declared.as_str() {
        "TEXT" | "DECIMAL" => format!("'text:' || (nullif(to_jsonb({c}), 'null') #>> '{{}}')"),
        "JSON" => format!("'text:' || nullif(to_jsonb({c}), 'null')::text"),
        _ => contract(column, c),
    }
}

fn value_table(i: usize, kind: &Kind) -> CorpusTable {
    let mut columns = vec![Column { name: "id".into(), postgres: "int4", declared: "INTEGER".into() }];
    columns.extend(kind.declared.split_whitespace().map(|declared| Column {
        name: format!("as_{}", declared.to_lowercase()),
        postgres: kind.postgres,
        declared: declared.into(),
    }));
    let all = kind.values.iter().map(|v| (*v, true)).chain(kind.text_only.iter().map(|v| (*v, false)));
    let row = |id: usize, value: &str, everywhere: bool| {
        let values = columns[1..].iter().map(|c| match everywhere || c.declared == "TEXT" {
            true => format!("({value})::{}", kind.postgres),
            false => format!("null::{}", kind.postgres),
        });
        std::iter::once(id.to_string()).chain(values).collect()
    };
    let mut rows: Vec<Vec<String>> =
        all.enumerate().map(|(i, (value, everywhere))| row(i + 1, value, everywhere)).collect();
    rows.push(row(rows.len() + 1, "null", true));
    CorpusTable { name: format!("v{i}_{}", slug(kind.postgres)), key: "id", columns, image_rows: rows.len(), rows }
}

fn key_table(i: usize, kind: &Kind, declared: &str) -> CorpusTable {
    let columns = vec![
        Column { name: "k".into(), postgres: kind.postgres, declared: declared.into() },
        Column { name: "id".into(), postgres: "int4", declared: "INTEGER".into() },
    ];
    let only = if declared == "TEXT" { &kind.text_only[..] } else { &[] };
    let keys = kind
        .values
        .iter()
        .chain(only)
        .filter(|v| !v.contains("repeat('[',") && !v.contains("repeat('1234567890', 100)"));
    let rows =
        keys.enumerate().map(|(i, value)| vec![format!("({value})::{}", kind.postgres), (i + 1).to_string()]).collect();
    let name = format!("k{i}_{}_{}", slug(kind.postgres), declared.to_lowercase());
    CorpusTable { name, key: "k", columns, rows, image_rows: kind.values.len() }
}

fn large_table(value: &str) -> CorpusTable {
    let columns = vec![
        Column { name: "id".into(), postgres: "int4", declared: "INTEGER".into() },
        Column { name: "as_text".into(), postgres: "text", declared: "TEXT".into() },
    ];
    let rows = vec![vec!["1".into(), value.into()], vec!["2".into(), format!("{value} || 'x'")]];
    CorpusTable { name: "large".into(), key: "id", columns, image_rows: rows.len(), rows }
}

fn slug(postgres: &str) -> String {
    let array = postgres.replace("[]", "_array").to_lowercase();
    array.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

async fn is_there(db: &Db, needs: Needs) -> bool {
    match needs {
        Needs::Nothing => true,
        Needs::Version(wanted) => {
            db.one("select current_setting('server_version_num')").await.parse::<i32>().unwrap() >= wanted * 10_000
        }
        Needs::Extension(name) => {
            db.client.batch_execute(&format!("create extension if not exists {name} with schema public")).await.is_ok()
        }
        Needs::Xml => db.client.batch_execute("select '<a/>'::xml").await.is_ok(),
    }
}

async fn connect(db: &Db) -> Client {
    PgUrl::parse(&db.url()).unwrap().connect().await.unwrap()
}
