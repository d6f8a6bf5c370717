//! The owner of a captured table tries to have code of its own run as the worker, whatever Postgres lets an owner do.
//! Each function that the owner plants writes a line into the server's log that says as whom it ran.

use crate::support::{Db, Home, Path, Rig, config, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::demo::postgres::Cluster;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::sync::Worker;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const TABLES: &str = r#"{
    "t": {"primaryKey": "id", "columns": {"id": "TEXT", "v": "TEXT", "n": "INTEGER", "k": "TEXT"}, "source": "al.t"},
    "p": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "TEXT"}, "source": "al.p"}
}"#;

/// What the owner begins with.
const OWNED: &str = "
    create role al login; create role flume superuser login;
    create schema al authorization al; grant all on schema al to public;
    set role al; set search_path = al;
    create function al.spy(what text) returns text language plpgsql immutable as
        $$ begin raise log 'SPY % ran as % in %', what, current_user, current_database(); return what; end $$;
    create function al.check(what text) returns bool language plpgsql immutable as
        $$ begin raise log 'SPY % ran as % in %', what, current_user, current_database(); return true; end $$;
    create domain al.code as text;
    create type al.kind as enum ('a', 'b');
    create table al.t (id al.code primary key, v text, n int, k al.kind);
    create table al.p (id int primary key, v text) partition by range (id);
    create table al.p_1 partition of al.p for values from (0) to (1000);
    insert into al.t values ('a', 'x', 1, 'a'), ('b', 'y', 2, 'b');
    insert into al.p values (1, 'x');
    reset role; reset search_path";

/// What an owner may do; none of it may run anything as the worker. What is done, and how it is undone.
const ATTEMPTS: [(&str, &str, &str); 17] = [
    (
        "a view in the table's place",
        "alter table al.t rename to t_real; create view al.t as select id, al.spy('view') as v, n, k from al.t_real; grant select on al.t to public",
        "drop view al.t; alter table al.t_real rename to t",
    ),
    (
        "a materialized view in the table's place",
        "alter table al.t rename to t_real; create materialized view al.t as select id, v, n, k from al.t_real; grant select on al.t to public",
        "drop materialized view al.t; alter table al.t_real rename to t",
    ),
    (
        "a check of the key's domain",
        "alter domain al.code add constraint c check (al.check('domain')) not valid",
        "alter domain al.code drop constraint c",
    ),
    (
        "a cast of a type of one's own to text",
        "create function al.cast(al.kind) returns text language sql immutable as $$ select al.spy('cast') $$; create cast (al.kind as text) with function al.cast(al.kind) as implicit",
        "drop cast (al.kind as text); drop function al.cast(al.kind)",
    ),
    (
        "a rule for writes",
        "create rule r as on update to al.t do also select al.spy('rule')",
        "drop rule r on al.t",
    ),
    (
        "a column's default",
        "alter table al.t alter column v set default al.spy('default')",
        "alter table al.t alter column v drop default",
    ),
    (
        "a generated column",
        "alter table al.t add column g text generated always as (al.spy('generated')) stored",
        "alter table al.t drop column g",
    ),
    (
        "a policy",
        "alter table al.t enable row level security; create policy p on al.t using (al.check('policy'))",
        "drop policy p on al.t; alter table al.t disable row level security",
    ),
    (
        "a policy that is forced",
        "alter table al.t enable row level security; alter table al.t force row level security; create policy p on al.t using (al.check('forced'))",
        "drop policy p on al.t; alter table al.t no force row level security; alter table al.t disable row level security",
    ),
    (
        "an inheritance child with a check",
        "create table al.child (check (al.check('child'))) inherits (al.t)",
        "drop table al.child",
    ),
    (
        "a partition with a check",
        "create table al.p_2 partition of al.p for values from (1000) to (2000); alter table al.p_2 add check (al.check('partition'))",
        "drop table al.p_2",
    ),
    (
        "a check of the table",
        "alter table al.t add constraint c check (al.check('table')) not valid",
        "alter table al.t drop constraint c",
    ),
    (
        "functions and operators of Postgres' names in the owner's schema",
        "create function al.to_jsonb(al.kind) returns jsonb language sql as $$ select pg_catalog.to_jsonb(al.spy('function')) $$;
         create function al.equals(al.kind, al.kind) returns bool language sql as $$ select al.check('operator') $$;
         create operator al.= (leftarg = al.kind, rightarg = al.kind, function = al.equals)",
        "drop operator al.= (al.kind, al.kind); drop function al.equals(al.kind, al.kind); drop function al.to_jsonb(al.kind)",
    ),
    (
        "an index on an expression of the row",
        "create index i on al.t ((al.spy(v)))",
        "drop index al.i",
    ),
    (
        "a trigger for the owner's own writes",
        "create function al.fire() returns trigger language plpgsql as $$ begin perform al.spy('trigger'); return null; end $$; create trigger z after update on al.t for each row execute function al.fire()",
        "drop trigger z on al.t; drop function al.fire()",
    ),
    (
        "another table in the table's place",
        "alter table al.t rename to t_real; create table al.t (id al.code primary key, v text default al.spy('swap'), n int, k al.kind)",
        "drop table al.t; alter table al.t_real rename to t",
    ),
    (
        "a comparison of one's own for the type in the other table's key",
        "create function al.less(al.kind, al.kind) returns bool language sql as $$ select al.check('less') $$;
         create operator al.< (leftarg = al.kind, rightarg = al.kind, function = al.less)",
        "drop operator al.< (al.kind, al.kind); drop function al.less(al.kind, al.kind)",
    ),
];

/// What Postgres runs as whoever plans a SELECT of the table, whatever the SELECT: `docs/security.md` names each.
const OF_ANY_SELECT: [(&str, &str, &str); 3] = [
    ("index on a constant expression", "create index i on al.t ((al.spy('constant')))", "drop index al.i"),
    ("predicate of a partial index", "create index i on al.t (v) where al.check('predicate')", "drop index al.i"),
    ("extended statistics", "create statistics al.s on v, (al.spy('statistics')) from al.t", "drop statistics al.s"),
];

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(crate::support::own_cluster)
}

/// How often a planted function of this database ran as the worker.
fn calls(rig: &Rig) -> usize {
    let ran = format!("ran as flume in {}", rig.db.name);
    let log = std::fs::read_to_string(cluster().log_file()).unwrap();
    log.lines().filter(|line| line.contains("SPY") && line.ends_with(&ran)).count()
}

async fn owned(name: &str) -> Rig {
    let db = Db::named(name.to_owned(), cluster(), "with_pgmq").await;
    let made = OWNED.replace("create role al login; create role flume superuser login;", "");
    for role in ["al login", "flume superuser login"] {
        let sql = format!("do $$ begin create role {role}; exception when duplicate_object then null; end $$");
        db.sql(&sql).await;
    }
    db.sql(&made).await;
    let (queue, url) = (QueueName::parse(DEFAULT_QUEUE).unwrap(), PgUrl::parse(&db.url()).unwrap());
    capture::setup(&url, &schema(TABLES), &queue, &SetupOptions::default()).await.unwrap();
    let home = Home::new(Path::File);
    let url = db.url().replace("postgres@", "flume@");
    let worker = Arc::new(Worker::new(config(&url, home.target(), schema(TABLES))));
    let rig = Rig { db, home, worker };
    rig.drain().await;
    rig
}

/// Does it, writes, and has the worker do all that it does; then undoes it.
async fn attempt(rig: &Rig, (what, done, undone): (&str, &str, &str)) -> usize {
    let before = calls(rig);
    rig.db.sql(&format!("set role al; {done}; reset role")).await;
    // Where the name is no longer a table that can be written to, there is nothing to write.
    let write = "update al.t set n = n + 1; update al.p set v = v || 'x'";
    drop(rig.db.client.batch_execute(write).await);
    // Whether it pauses the table or copies it is the matter of other tests.
    drop(rig.worker.drain(Duration::from_secs(20)).await);
    for table in ["t", "p"] {
        let wanted = pgflume::operate::resync::request(&rig.worker, &[table]).await;
        assert!(wanted.is_ok(), "{what}: {wanted:?}");
    }
    drop(rig.worker.drain(Duration::from_secs(20)).await);
    drop(pgflume::operate::status::status(&rig.worker).await);
    drop(pgflume::operate::status::unready(&rig.worker).await);
    let spied = calls(rig) - before;
    rig.db.sql(&format!("set role al; {undone}; reset role")).await;
    spied
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_the_owner_of_a_table_does_runs_as_the_worker() {
    let rig = owned("owners").await;
    for attempted in ATTEMPTS {
        assert_eq!(attempt(&rig, attempted).await, 0, "{}", attempted.0);
    }
    // The function does tell: the worker's own call is seen.
    let flume = PgUrl::parse(&rig.db.url().replace("postgres@", "flume@")).unwrap().connect().await.unwrap();
    let before = calls(&rig);
    flume.batch_execute("select al.spy('own')").await.unwrap();
    assert_eq!(calls(&rig) - before, 1);
}

/// Who installs is often a superuser, and reads no row of a table.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_the_owner_of_a_table_does_runs_as_whoever_installs() {
    let rig = owned("owners_and_installer").await;
    let (queue, url) =
        (QueueName::parse(DEFAULT_QUEUE).unwrap(), PgUrl::parse(&rig.db.url().replace("postgres@", "flume@")).unwrap());
    for (what, done, undone) in OF_ANY_SELECT {
        rig.db.sql(&format!("set role al; {done}; reset role")).await;
        let before = calls(&rig);
        let options = SetupOptions::default();
        capture::print(&url, &schema(TABLES), &queue, &options).await.unwrap();
        capture::plan(&url, &schema(TABLES), &queue, &options).await.unwrap();
        capture::setup(&url, &schema(TABLES), &queue, &options).await.unwrap();
        assert_eq!(calls(&rig) - before, 0, "{what}");
        rig.db.sql(&format!("set role al; {undone}; reset role")).await;
    }
}

/// Planning evaluates constant expressions of a table's indexes and statistics as whoever reads the table.
#[tokio::test(flavor = "multi_thread")]
async fn what_any_select_runs_is_named_in_the_documents() {
    let rig = owned("owners_of_any").await;
    let page = include_str!("../../docs/security.md");
    let flume = PgUrl::parse(&rig.db.url().replace("postgres@", "flume@")).unwrap().connect().await.unwrap();
    for (what, done, undone) in OF_ANY_SELECT {
        rig.db.sql(&format!("set role al; {done}; reset role")).await;
        let before = calls(&rig);
        flume.batch_execute("select v from al.t where v = 'x'").await.unwrap();
        assert!(calls(&rig) > before, "{what}: not even a SELECT of one's own runs it: forbid it");
        assert!(page.contains(what), "docs/security.md does not name: {what}");
        rig.db.sql(&format!("set role al; {undone}; reset role")).await;
    }
}
