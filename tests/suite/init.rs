//! `pgflume init` as a user runs it: what it writes for which tables, what it leaves out and why, and that a
//! second run changes nothing that is there.

use crate::support::{Db, Home, Path, Rig, cluster};
use pgflume::core::schema::{Schema, Table};
use std::process::{Command, Output};
use std::sync::Arc;
use tempfile::TempDir;

/// A directory to run in, and the database.
struct Desk {
    db: Db,
    directory: TempDir,
}

impl Desk {
    async fn new(sql: &str) -> Self {
        let desk = Self { db: Db::new().await, directory: tempfile::tempdir().unwrap() };
        desk.db.sql(sql).await;
        desk
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(arguments).env_clear().current_dir(self.directory.path());
        command.env("PGMQ_URL", self.db.url()).output().unwrap()
    }

    /// Runs `pgflume init`, which has to succeed, and gives what it said.
    fn init(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["init"], arguments].concat());
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{said}");
        said
    }

    /// Runs it where it has to fail, and gives the exit code and what it said.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(&[&["init"], arguments].concat());
        assert_eq!(text(&output.stdout), "");
        (output.status.code().unwrap(), text(&output.stderr))
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("schema.json")).unwrap()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.directory.path().join("schema.json"), text).unwrap();
    }

    fn schema(&self) -> Arc<Schema> {
        Arc::new(Schema::parse(&self.file()).unwrap())
    }

    fn tables(&self) -> Vec<String> {
        self.schema().tables().map(|t| format!("{}={}", t.name, t.source.written())).collect()
    }

    fn setup(&self) {
        let output = self.run(&["setup"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn columns(table: &Table) -> Vec<String> {
    table.columns.iter().map(|c| format!("{} {}", c.name, c.kind.name())).collect()
}

const KINDS: &str = "
    create type mood as enum ('ok', 'it''s \"odd\"');
    create domain email as text; create domain address as email; create domain addresses as address[];
    create type pair as (a int, b text);
    create extension hstore; create extension citext;
    create table kinds (id bigint primary key, small smallint, mine oid, flag boolean, ratio double precision,
        single real, price numeric(10,2), label varchar(20), code char(3), feeling mood, mail address, raw bytea,
        doc jsonb, src json, at timestamptz, plain timestamp, day date, clock timetz, span interval, token uuid,
        ip inet, cash money, bits bit varying, spot point, words tsvector, during tstzrange, parts int4multirange,
        duo pair, tags text[], amounts numeric[], ratios float8[], docs jsonb[], srcs json[], duos pair[],
        feelings mood[], mails addresses, days date[], more hstore, soft citext,
        doubled bigint generated always as (id * 2) stored);
    create index on kinds (label); create unique index on kinds (price, label); create index on kinds (label);
    create index on kinds (id); create index on kinds (lower(label)); create index on kinds (small) where flag;
    create index on kinds using gin (tags);
    insert into kinds values (9007199254740993, 1, 4294967295, true, 0.1, 0.1, 1.10, 'a', 'b', 'it''s \"odd\"', 'm@x',
        '\\x00ff', '{\"a\": 1.00}', '{\"b\":  2}', '2024-02-29 12:00+02', '2024-02-29 12:00', '2024-02-29',
        '12:00+02', '1 day', '6ba7b810-9dad-11d1-80b4-00c04fd430c8', '10.0.0.1', '12.50', '101', '(1,2)', 'b a',
        '[2024-01-01 00:00+00,)', '{[1,3)}', '(1,\"x y\")', '{a,NULL,\"b\\\"c\"}', '{1.10,NaN}', '{-0,0.1}',
        array['{\"a\": 1}'::jsonb], array['{\"b\":  2}'::json], array[(1,'x')::pair], '{ok}', '{m@x}',
        '{2024-02-29}', 'a=>1', 'Ü')";

#[tokio::test(flavor = "multi_thread")]
async fn each_column_gets_a_type_that_loses_nothing_and_the_table_replicates() {
    let desk = Desk::new(KINDS).await;
    let said = desk.init(&[]);
    assert!(said.contains("public.kinds: 40 columns, key id, 2 indexes"), "{said}");
    assert!(said.contains("public.kinds without 3 index(es)"), "{said}");
    let schema = desk.schema();
    let kinds = schema.get("kinds").unwrap();
    assert_eq!(
        columns(kinds).join(", "),
        "id INTEGER, small INTEGER, mine INTEGER, flag BOOLEAN, ratio REAL, single REAL, price REAL, label TEXT, \
         code TEXT, feeling TEXT, mail TEXT, raw BLOB, doc JSON, src JSON, at TEXT, plain TEXT, day TEXT, clock TEXT, \
         span TEXT, token TEXT, ip TEXT, cash TEXT, bits TEXT, spot TEXT, words TEXT, during TEXT, parts TEXT, \
         duo TEXT, tags JSON, amounts JSON, ratios TEXT, docs JSON, srcs TEXT, duos TEXT, feelings JSON, mails JSON, \
         days JSON, more TEXT, soft TEXT, doubled INTEGER"
    );
    let index = |i: &Vec<usize>| i.iter().map(|&c| kinds.columns[c].name.as_str()).collect::<Vec<_>>().join(" ");
    assert_eq!(kinds.indexes.iter().map(index).collect::<Vec<_>>(), ["label", "price label"]);
    desk.setup();
    desk.db.sql("update kinds set small = 2").await;
    let rig = Rig::with(desk.db, Home::new(Path::File), schema);
    rig.drain().await;
    assert_eq!(rig.db.dead().await, [""; 0]);
    assert_eq!(
        rig.rows("SELECT id, mine, price, feeling, raw, doc, at, duo, tags, amounts, ratios, docs, srcs, duos, more FROM kinds")
            .await,
        [concat!(
            "9007199254740993|4294967295|1.1|it's \"odd\"|x'00ff'|{\"a\": 1.00}|2024-02-29T10:00:00+00:00|(1,\"x y\")|",
            "[\"a\", null, \"b\\\"c\"]|[1.10, \"NaN\"]|{-0,0.1}|[{\"a\": 1}]|{\"{\\\"b\\\":  2}\"}|{\"(1,x)\"}|\"a\"=>\"1\""
        )]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn money_compares_and_sorts_as_a_number_and_what_a_double_does_not_hold_stays_text() {
    let desk = Desk::new(
        "create extension if not exists citext; create domain money2 as numeric(12, 2);
         create table prices (id int primary key, price numeric(12,2), cost money2, exact numeric(20,4), free numeric, mail citext unique, rate numeric(15,15));
         insert into prices values (1, 999.90, 1, 1, 1, 'a', 0.123456789012345), (2, 99.90, 1.10, 1, 1, 'b', 0), (3, 1000.05, 9999999999.99, 1, 1, 'c', 0.999999999999999)",
    )
    .await;
    let said = desk.init(&[]);
    let schema = desk.schema();
    assert_eq!(
        columns(schema.get("prices").unwrap()).join(", "),
        "id INTEGER, price REAL, cost REAL, exact DECIMAL, free DECIMAL, mail TEXT, rate REAL"
    );
    for told in ["which sorts as text: exact, free;", "as citext does not: mail;", "what is unique beside the key"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    desk.setup();
    let rig = Rig::with(desk.db, Home::new(Path::File), schema);
    rig.drain().await;
    assert_eq!(rig.rows("SELECT id FROM prices WHERE price > 100 ORDER BY price").await, ["1", "3"]);
    assert_eq!(rig.rows("SELECT cost FROM prices ORDER BY cost").await, ["1.0", "1.1", "9999999999.99"]);
    assert_eq!(
        rig.rows("SELECT typeof(rate) || count(*) FROM prices WHERE rate IN (0.123456789012345, 0.999999999999999)")
            .await,
        ["real2"]
    );
    let told = "SELECT types ->> 'price', types ->> 'cost' FROM _pgflume_tables WHERE \"table\" = 'prices'";
    assert_eq!(rig.rows(told).await, ["numeric(12,2)|numeric(12,2)"]);
    crate::limits::assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_keys_are_taken_as_they_are_and_replicate() {
    let long = "l".repeat(63);
    let desk = Desk::new(&format!(
        r#"create schema crm; create schema "my.schema"; create schema "Odd ""one""";
        create table orders (id int primary key); create table crm.orders (id int primary key, v text);
        create table "crm_orders" (id int primary key);
        create table "Orders" (id int primary key);
        create table "my.schema"."a.b" (id int primary key);
        create table "Odd ""one"""."say ""hi"" ü" ("the key" int, "Größe" text, "größe" int, "the ""other""" text,
            primary key ("the ""other""", "the key"));
        create table {long} ({long} int primary key);
        create table crm.{long} (id int primary key);
        create table sqlite_things (id int primary key);
        create table "$schema" (id int primary key);
        create table by_unique (a int, b int not null unique, c int not null, unique (b, c));
        create table by_array (tags text[] primary key);
        create table p (id int primary key, at date) partition by range (id);
        create table p1 partition of p for values from (0) to (10)"#
    ))
    .await;
    let said = desk.init(&[]);
    // public first, each schema in order of its names; whoever comes late takes its schema's name before its own
    let mut expected = vec![
        "$schema".to_owned(),
        "by_array=public.by_array".into(),
        "by_unique=public.by_unique".into(),
        "crm_orders=public.crm_orders".into(),
        format!("{long}=public.{long}"),
        "Orders=public.Orders".into(),
        "p=public.p".into(),
        "public_orders=public.orders".into(),
        "public_sqlite_things=public.sqlite_things".into(),
        r#"say "hi" ü=Odd "one"."say ""hi"" ü""#.into(),
        r#"a.b="my.schema"."a.b""#.into(),
    ];
    expected[0] = "public_$schema=public.$schema".into();
    expected[9] = r#"say "hi" ü="Odd ""one"""."say ""hi"" ü""#.into();
    expected.sort();
    assert_eq!(desk.tables(), expected, "{said}");
    assert!(said.contains("for whose names there is no room") && said.contains(&format!("crm.{long}")), "{said}");
    assert!(said.contains(r#"without column "größe""#), "{said}");
    let schema = desk.schema();
    let key = |table: &str| schema.get(table).unwrap().key_columns().map(|c| c.name.clone()).collect::<Vec<_>>();
    assert_eq!(key(r#"say "hi" ü"#), [r#"the "other""#, "the key"]);
    assert_eq!(key("by_unique"), ["b"]);
    assert_eq!(columns(schema.get("by_array").unwrap()), ["tags TEXT"]);
    desk.setup();
    desk.db
        .sql(&format!(
            r#"insert into "Odd ""one"""."say ""hi"" ü" values (1, 'groß', 2, 'x'); insert into {long} values (5);
            insert into p values (3); insert into by_array values ('{{a,b}}'); insert into orders values (7)"#
        ))
        .await;
    let rig = Rig::with(desk.db, Home::new(Path::File), schema);
    rig.drain().await;
    assert_eq!(rig.db.dead().await, [""; 0]);
    assert_eq!(rig.rows(r#"SELECT * FROM "say ""hi"" ü""#).await, ["1|groß|x"]);
    assert_eq!(rig.rows(&format!("SELECT * FROM {long}")).await, ["5"]);
    assert_eq!(rig.rows("SELECT p.id, tags, o.id FROM p, by_array, public_orders o").await, ["3|{a,b}|7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replicated_is_left_out_with_the_reason() {
    let desk = Desk::new(
        "create table good (id int primary key); create table nokey (id int); create table nullable (id int unique);
         create unlogged table fleeting (id int primary key); create view seen as select 1 as id;
         create materialized view stored as select 1 as id; create schema net; create table net.job (id int primary key);
         create table parent (id int primary key); create table child (primary key (id)) inherits (parent);
         create table whole (id int primary key) partition by range (id);
         create table part partition of whole default partition by range (id); create table leaf partition of part default;
         create table unkeyed (id int) partition by range (id);
         create table lone partition of unkeyed (primary key (id)) default;
         create extension postgres_fdw; create server elsewhere foreign data wrapper postgres_fdw;
         create foreign table far (id int) server elsewhere",
    )
    .await;
    let said = desk.init(&[]);
    assert_eq!(desk.tables(), ["child=public.child", "good=public.good", "whole=public.whole"]);
    for line in [
        "without a primary key or a unique index over NOT NULL columns; `alter table … add primary key (…)`: public.nokey, public.nullable, public.unkeyed",
        "`alter table … set logged`: public.fleeting",
        "views, which have no key and no triggers; name the table behind one, or define it in the schema file of a sync that pulls: public.seen",
        "which have no key and no triggers; define one in the schema file of a sync that pulls: public.stored",
        "foreign tables, which have no key here; replicate them where they live, or define one in the schema file of a sync that pulls: public.far",
        "replicate the children, or partition instead: public.parent",
        "partitions of public.whole, which is replicated as a whole: public.part, public.leaf",
        "partitions of public.unkeyed, which is not replicated; ask for one with --table by its name: public.lone",
        "the schema net, which is machinery: net.job",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("pgmq."), "what is ours is left out without a word: {said}");
    // by its name a partition can be had, and machinery not even so
    desk.init(&["--table", "lone"]);
    assert_eq!(desk.tables().len(), 4);
    desk.setup();
    // a part that is replicated by itself keeps the whole out
    desk.db
        .sql(
            "create table log (id int primary key) partition by range (id); create table log1 partition of log default",
        )
        .await;
    let split = r#"{"log1": {"primaryKey": "id", "columns": {"id": "INTEGER"}}}"#;
    std::fs::write(desk.directory.path().join("split.json"), split).unwrap();
    let said = desk.init(&["--table", "log*", "--output", "split.json"]);
    assert!(said.contains("has a part, public.log1; take that out first: public.log"), "{said}");
    // but nobody gets silence for what he asked for
    let before = desk.file();
    for (name, reason) in
        [("nokey", "without a primary key"), ("public.seen", "views"), ("leaf", "partitions of public.whole")]
    {
        let (code, said) = desk.refused(&["--table", name]);
        assert!(code == 1 && said.contains(name) && said.contains(reason), "{code} {said}");
    }
    assert_eq!(desk.file(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_tables_and_one_that_means_nothing_is_an_error() {
    let desk = Desk::new(
        "create schema crm; create table orders (id int primary key); create table order_items (id int primary key);
         create table logs (id int primary key); create table crm.orders (id int primary key); create table crm.people (id int primary key)",
    )
    .await;
    let chosen = |arguments: &[&str]| {
        let output = desk.run(&[&["init", "--stdout"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let schema = Schema::parse(&text(&output.stdout)).unwrap();
        schema.tables().map(|t| t.source.written()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        chosen(&[]),
        "crm.orders public.logs public.order_items public.orders crm.people"
            .split(' ')
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    );
    assert_eq!(chosen(&["--table", "orders"]), "crm.orders public.orders");
    assert_eq!(chosen(&["--table", "public.order*,crm.peopl?"]), "public.order_items public.orders crm.people");
    assert_eq!(chosen(&["--table", "logs", "--table", "crm.people"]), "public.logs crm.people");
    assert_eq!(chosen(&["--exclude", "crm.*", "--exclude", "logs"]), "public.order_items public.orders");
    assert!(!desk.directory.path().join("schema.json").exists(), "--stdout writes nothing");
    for (arguments, expected) in [
        (
            ["--table", "ordres"],
            "--table ordres: no table of this database matches; near are crm.orders, public.orders",
        ),
        (["--exclude", "log"], "--exclude log: no table of this database matches; near are public.logs"),
        (["--table", "zzz*"], "no name is like it"),
        (["--table", "a.b.c"], "is no pattern"),
    ] {
        let (code, said) = desk.refused(&arguments);
        assert!(code == 2 && said.contains(expected), "{code} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_keeps_what_the_user_wrote() {
    let desk = Desk::new(
        "create table orders (id int primary key, total numeric, note text, secret text);
         create table people (id int primary key, name text)",
    )
    .await;
    let mine = r#"{ "people": {"columns":{"id":"INTEGER"}, "primaryKey":"id"},
  "purchases": {
    "source": "public.orders", "where": "total > 0",
    "primaryKey": "id",
    "columns": {
      "total": "REAL", "id": "INTEGER",
      "gone": "TEXT"
    },
    "lossy": ["total"]
  }
}
"#;
    desk.write(mine);
    let said = desk.init(&[]);
    assert_eq!(desk.file(), mine, "to the byte");
    for line in [
        "Kept as they are:\n  - purchases, people",
        "purchases: note TEXT, secret TEXT",
        "people: name TEXT",
        r#"public.orders has no column "gone" any more"#,
        "schema.json is as it was",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    desk.db.sql("create table logs (id int primary key)").await;
    let said = desk.init(&[]);
    assert!(said.contains("public.logs: 1 columns") && said.contains("schema.json is written"), "{said}");
    let file = desk.file();
    assert!(file.starts_with(mine.trim_end().trim_end_matches(['}', '\n'])), "{file}");
    assert_eq!(desk.tables(), ["logs=public.logs", "people=public.people", "purchases=public.orders"]);
    desk.init(&["--table", "people", "--add-columns"]);
    assert_eq!(columns(desk.schema().get("people").unwrap()), ["id INTEGER", "name TEXT"]);
    assert_eq!(desk.schema().get("purchases").unwrap().columns.len(), 3, "not asked for");
    desk.init(&["--add-columns"]);
    let file = desk.file();
    assert!(
        file.contains("      \"gone\": \"TEXT\",\n      \"note\": \"TEXT\",\n      \"secret\": \"TEXT\"\n    },"),
        "{file}"
    );
    desk.init(&["--add-columns"]);
    assert_eq!(desk.file(), file, "and again nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_left_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new("create table t (id int primary key)").await;
    let path = desk.directory.path().join("schema.json");
    for broken in ["{\"t\": ", "[]", r#"{"t": {"primaryKey": "id", "columns": {"id": "VARCHAR"}}}"#] {
        desk.write(broken);
        let (code, said) = desk.refused(&[]);
        assert!(code == 2 && said.contains("schema.json: $") && said.contains("left alone"), "{code} {said}");
        assert_eq!(desk.file(), broken);
    }
    desk.write("{}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    desk.init(&[]);
    assert_eq!(desk.tables(), ["t=public.t"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    desk.init(&["--output", "other.json"]);
    let other = std::fs::read_to_string(desk.directory.path().join("other.json")).unwrap();
    assert!(other.contains(pgflume::postgres::init::JSON_SCHEMA) && Schema::parse(&other).is_ok());
    assert_eq!(std::fs::read_dir(desk.directory.path()).unwrap().count(), 2, "no temporary file stays");
    let empty = Db::on(cluster(), "template1").await;
    let nothing = Desk { db: empty, directory: tempfile::tempdir().unwrap() };
    let (code, said) = nothing.refused(&[]);
    assert!(code == 1 && said.contains("no table that can be replicated"), "{code} {said}");
    let output = Command::new(env!("CARGO_BIN_EXE_pgflume")).arg("init").env_clear().output().unwrap();
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("PGMQ_URL is missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_refuses_a_type_that_loses_something_unless_it_is_listed() {
    let desk = Desk::new("create table t (id int primary key, price numeric, at timestamptz)").await;
    let json = |columns: &str, more: &str| {
        format!(r#"{{"t": {{"primaryKey": "id", "columns": {{"id": "INTEGER", {columns}}}{more}}}}}"#)
    };
    for (text_of_file, expected) in [
        (json(r#""price": "REAL""#, ""), "$.t.columns.price: REAL loses something of numeric"),
        (json(r#""at": "INTEGER""#, r#", "lossy": ["at"]"#), "$.t.columns.at: INTEGER cannot hold timestamptz"),
    ] {
        desk.write(&text_of_file);
        let output = desk.run(&["setup"]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(expected) && said.contains("declare it"), "{said}");
    }
    desk.write(&json(r#""price": "REAL""#, r#", "lossy": ["price"]"#));
    desk.setup();
}

/// SQLite keeps tables and indexes in one name space, and a name of ours says only the table and the columns.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_whose_name_is_taken_is_left_out_with_a_note_and_the_rest_is_written() {
    let long = "l".repeat(60);
    let desk = Desk::new(&format!(
        "create table account (id int primary key, user_name text); create index on account (user_name);
         create table account_user (id int primary key, name text); create index on account_user (name);
         create table a (id int primary key, name text, other text); create index on a (name); create index on a (other);
         create table idx_a_name (id int primary key); create table \"IDX_A_OTHER\" (id int primary key);
         create table t (a int, b_c int, a_b int, c int primary key); create index on t (a, b_c); create index on t (a_b, c);
         create table {long} (id int primary key, {long} text); create index on {long} ({long});
         create table _pgflume_key_a (id int primary key); create table sqlite_x (id int primary key)"
    ))
    .await;
    let said = desk.init(&[]);
    for (note, name) in [
        ("public.account_user without the index over name", "idx_account_user_name"),
        ("public.a without the index over name", "idx_a_name"),
        ("public.a without the index over other", "idx_a_other"),
        ("public.t without the index over a_b, c", "idx_t_a_b_c"),
    ] {
        assert!(said.lines().any(|l| l.contains(note) && l.contains(name)), "{note}: {said}");
    }
    assert!(said.contains("public.account: 2 columns, key id, 1 indexes"), "{said}");
    assert!(said.contains("public.account_user: 2 columns, key id, 0 indexes"), "{said}");
    let schema = desk.schema();
    assert_eq!(schema.get(&long).unwrap().indexes.len(), 1);
    assert!(schema.get("public__pgflume_key_a").is_some() && schema.get("public_sqlite_x").is_some());
    desk.setup();
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema);
    rig.drain().await;
    assert_eq!(
        rig.rows("SELECT count(*) FROM sqlite_master WHERE name LIKE 'idx|_%' ESCAPE '|' AND type = 'index'").await,
        ["3"]
    );

    // What comes later makes way for what the file has.
    desk.db
        .sql("create table account_use (id int primary key, r_name text, er text); create index on account_use (r_name);
            create table t_a (id int primary key, b_c text); create index on t_a (b_c); create table idx_t_a_b_c (id int primary key)")
        .await;
    let said = desk.init(&[]);
    assert!(said.contains("public.t_a without the index over b_c"), "{said}");
    assert!(said.contains("public.idx_t_a_b_c, as \"public_idx_t_a_b_c\""), "{said}");
    desk.setup();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_index_name_in_a_file_written_by_hand_is_an_error_with_its_path() {
    let desk = Desk::new("create table account (id int primary key, user_name text)").await;
    desk.write(
        r#"{"account": {"primaryKey": "id", "columns": {"id": "INTEGER", "user_name": "TEXT"}, "indexes": ["user_name"]},
            "account_user": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}, "indexes": ["name"]}}"#,
    );
    let (code, said) = desk.refused(&[]);
    assert!(code == 2 && said.contains("$.account_user.indexes[0]"), "{code} {said}");
}
