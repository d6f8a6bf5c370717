//! Views, foreign tables and what else has no versions to tell by: pulled by stamps, whole, or compared.

use super::{Rig, cluster};
use crate::support::{Db, PATHS, Path, until};
use pgflume::provider::StampOptions;
use pgflume::provider::postgres::PostgresProvider;
use pgflume::provider::{Limits, Promise};
use pgflume::pull::{Pace, Passed, Pull};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const BASE: &str = "create table base (id int primary key, v text, hidden boolean default false, updated_at timestamptz default clock_timestamp());
    insert into base (id, v) select i, 'old' from generate_series(1, 100) i;
    create view shown as select id, v, updated_at from base where not hidden";

const SHOWN: &str = r#"{"shown":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

const BARE: &str =
    "create table base (id int primary key, v text); insert into base select i, 'old' from generate_series(1, 100) i;
    create view shown as select id, v from base";

fn pull(rig: &Rig, stamps: StampOptions) -> Pull {
    Pull::new("p".into(), Arc::new(PostgresProvider { stamps, ..rig.provider() }), rig.home.target(), false)
}

fn problem(done: &Passed) -> String {
    done.problems.get("shown").cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_pulled_by_its_stamps_and_a_count() {
    for path in PATHS {
        let rig = Rig::new(path, BASE, SHOWN).await;
        let done = rig.pass().await;
        assert_eq!((done.rows, done.problems.len()), (100, 0), "{done:?}");
        rig.assert_equal("shown", &["id", "v"]).await;
        let first = rig.pass().await;
        let idle = rig.pass().await;
        assert_eq!((first.rows, idle.rows, idle.removed), (0, 0, 0), "{idle:?}");
        assert_eq!(idle.batches, 0, "rows that are read again and are as they were need no writing");
        rig.db
            .sql("update base set v = 'new', updated_at = clock_timestamp() where id in (1, 2); delete from base where id = 3;
                  update base set hidden = true where id = 4; insert into base (id, v) values (101, 'late')")
            .await;
        let done = rig.pass().await;
        assert_eq!((done.rows, done.removed), (3, 2), "{done:?}");
        rig.assert_equal("shown", &["id", "v"]).await;
        // An old stamp on a new row, and one that has none, which is looked at each time.
        rig.db.sql("insert into base values (102, 'restored', false, '2001-01-01'), (103, 'bare', false, null)").await;
        rig.pass().await;
        rig.assert_equal("shown", &["id", "v"]).await;
        rig.db.sql("update base set v = 'still bare' where id = 103").await;
        assert_eq!(rig.pass().await.rows, 1);
        // Of the far future: it hides nothing that comes later.
        rig.db
            .sql("insert into base values (104, 'far', false, '2999-01-01'), (105, 'for ever', false, 'infinity')")
            .await;
        rig.pass().await;
        rig.db.sql("update base set v = 'newer', updated_at = clock_timestamp() where id = 50").await;
        assert_eq!(rig.pass().await.rows, 1);
        rig.assert_equal("shown", &["id", "v"]).await;
        // What is not stamped is found by comparing.
        rig.db.sql("update base set v = 'unstamped' where id = 60").await;
        let found = rig.pull().verify(&[], true).await.unwrap();
        assert!(found.is_equal(), "{found:?}");
        rig.assert_equal("shown", &["id", "v"]).await;
        let status = rig.pull().status().await;
        let promise = &status.tables["shown"].promise;
        assert_eq!(*promise, Some(Promise::Stamped(vec!["updated_at".into()]).to_string()), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_writer_commits_later_than_it_stamps_is_found() {
    let _armed = super::armed();
    let rig = Rig::new(Path::File, BASE, SHOWN).await;
    rig.pass().await;
    rig.db.sql("begin; update base set v = 'late', updated_at = clock_timestamp() where id = 7").await;
    let other = Db::existing(&rig.db.name, cluster()).await;
    other.sql("update base set v = 'sooner', updated_at = clock_timestamp() where id = 8").await;
    assert_eq!(rig.pass().await.rows, 1);
    rig.db.sql("commit").await;
    rig.pass().await;
    rig.assert_equal("shown", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_view_without_stamps_is_read_whole_and_a_large_one_only_if_somebody_says_how_often() {
    let rig = Rig::new(Path::File, BARE, SHOWN).await;
    assert_eq!(rig.pass().await.rows, 100);
    rig.db.sql("update base set v = 'new' where id < 10; delete from base where id = 50; insert into base values (0, 'zero')").await;
    let done = rig.pass().await;
    assert_eq!((done.rows, done.removed), (10, 1), "{done:?}");
    rig.assert_equal("shown", &["id", "v"]).await;
    let status = rig.pull().status().await;
    assert_eq!(status.tables["shown"].promise, Some(Promise::Compared.to_string()));
    rig.db.sql("insert into base select i, 'many' from generate_series(1000, 12000) i").await;
    let done = rig.pass().await;
    assert!(problem(&done).contains("11101 rows") && problem(&done).contains("`compare`"), "{done:?}");
    let compared = StampOptions { is_compared: true, ..StampOptions::default() };
    pull(&rig, compared.clone()).pass().await.unwrap();
    rig.assert_equal("shown", &["id", "v"]).await;
    // One that goes and one that comes are seen by their keys.
    rig.db.sql("delete from base where id = 1400; insert into base values (20000, 'came')").await;
    pull(&rig, compared.clone()).pass().await.unwrap();
    rig.assert_equal("shown", &["id", "v"]).await;
    // What changes is seen by comparing alone.
    rig.db.sql("update base set v = 'unseen' where id = 1501").await;
    let done = pull(&rig, compared.clone()).pass().await.unwrap();
    assert_eq!((done.rows, done.removed), (0, 0), "{done:?}");
    let found = pull(&rig, compared.clone()).verify(&[], true).await.unwrap();
    assert_eq!((found.tables["shown"].different, found.tables["shown"].repaired), (1, 1), "{found:?}");
    rig.assert_equal("shown", &["id", "v"]).await;
    // More than is held at once.
    rig.db.sql("update base set v = 'all'").await;
    let found = pull(&rig, compared).verify(&[], true).await.unwrap();
    assert_eq!((found.tables["shown"].different, found.tables["shown"].repaired), (11_101, 11_101), "{found:?}");
    rig.assert_equal("shown", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_without_a_stamp_are_read_each_time_and_written_once() {
    let rig = Rig::new(Path::File, BASE, SHOWN).await;
    rig.db.sql("update base set updated_at = null; insert into base select i, 'bare', false, null from generate_series(1000, 25000) i").await;
    assert_eq!(rig.pass().await.rows, 24_101);
    rig.db.sql("update base set v = 'new' where id = 1000").await;
    assert_eq!(rig.pass().await.rows, 1, "what is as it was is not written again");
    rig.assert_equal("shown", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn materialized_views_foreign_tables_and_other_access_methods_are_pulled() {
    let rig = Rig::new(
        Path::File,
        "create table base (id int primary key, v text); insert into base select i, 'old' from generate_series(1, 50) i;
         create role somebody_else; create function public.theirs(t text) returns text language sql as 'select t';
         alter function public.theirs owner to somebody_else;
         create materialized view kept as select id, public.theirs(v) as v from base;
         create access method heap2 type table handler heap_tableam_handler;
         create table odd (id int primary key, v text) using heap2; insert into odd select id, v from base",
        r#"{"kept":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "odd":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "far":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    rig.db
        .sql(&format!(
            "create extension postgres_fdw; create server elsewhere foreign data wrapper postgres_fdw options (host '127.0.0.1', port '{}', dbname '{}');
             create user mapping for {} server elsewhere options (user 'postgres', password_required 'false');
             create foreign table far (id int, v text) server elsewhere options (table_name 'base')",
            cluster().port(), rig.db.name, rig.reader()
        ))
        .await;
    rig.grant().await;
    let done = rig.pass().await;
    assert_eq!((done.rows, done.problems.len()), (150, 0), "{done:?}");
    rig.db.sql("update base set v = 'new' where id < 5; delete from base where id = 9; update odd set v = 'odd' where id = 1").await;
    rig.db.sql("refresh materialized view kept").await;
    let done = rig.pass().await;
    assert_eq!((done.rows, done.removed), (9, 2), "{done:?}");
    rig.db
        .sql("create table base2 (id int primary key, v text); insert into base2 select id, v || '!' from base; alter foreign table far options (set table_name 'base2')")
        .await;
    assert_eq!(rig.pass().await.rows, 49, "what the foreign table leads to is another");
    rig.db.sql("alter foreign table far options (set table_name 'base')").await;
    rig.pass().await;
    let all = "SELECT (SELECT group_concat(id || v) FROM kept) = (SELECT group_concat(id || v) FROM far), (SELECT count(*) FROM odd WHERE v = 'odd')";
    assert_eq!(rig.rows(all).await, ["1|1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_defined_otherwise_is_read_again() {
    let rig = Rig::new(
        Path::File,
        &format!(
            "{BASE}; create function public.loud(t text) returns text language sql immutable as 'select upper(t)';
             create view inner_view as select id, public.loud(v) as v, updated_at from base;
             create or replace view shown as select id, v, updated_at from inner_view"
        ),
        SHOWN,
    )
    .await;
    rig.pass().await;
    assert_eq!(rig.rows("SELECT DISTINCT v FROM shown").await, ["OLD"]);
    rig.db
        .sql(
            "create or replace function public.loud(t text) returns text language sql immutable as 'select t || ''!'''",
        )
        .await;
    rig.pass().await;
    assert_eq!(rig.rows("SELECT DISTINCT v FROM shown").await, ["old!"]);
    rig.db.sql("create or replace view inner_view as select id, 'x'::text as v, updated_at from base").await;
    rig.pass().await;
    assert_eq!(rig.rows("SELECT DISTINCT v FROM shown").await, ["x"]);
    rig.db
        .sql("create or replace view shown as select id, 'y'::text as v, updated_at from inner_view where id > 50")
        .await;
    rig.pass().await;
    assert_eq!(rig.rows("SELECT DISTINCT v, count(*) FROM shown").await, ["y|50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_view_shows_and_cannot_be_taken_is_said_and_keeps_nobody_back() {
    let rig = Rig::new(
        Path::File,
        &format!(
            "{BARE}; create table t (id int primary key); insert into t values (1);
             create view twice as select id % 50 as id, v from base; create view keyless as select nullif(id, 3) as id, v from base;
             create view broken as select id, (1 / (id - 5))::text as v from base; create materialized view empty as select id, v from base with no data;
             create view own as select id, v from base; create view closed as select id, v from base;
             create view nested as select id, v from base; create view summed as select id, v from base;
             create view domained as select id, v from base"
        ),
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "twice":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "keyless":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "broken":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "empty":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "own":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "nested":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "summed":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "domained":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "closed":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    let somebody = format!("somebody_{}", rig.db.name);
    rig.db
        .sql(&format!(
            "create role {somebody}; grant create on schema public to {somebody}; set role {somebody};
             create function public.mine(t text) returns text language sql as 'select t';
             create function public.mine_check(t text) returns bool language sql as 'select true';
             create function public.mine_step(n bigint, t text) returns bigint language sql as 'select n + 1'; reset role;
             create or replace view own as select id, public.mine(v) as v from base;
             create or replace view nested as select id, v from (select id, v from own) o;
             create aggregate public.summing(text) (sfunc = public.mine_step, stype = bigint, initcond = '0');
             create or replace view summed as select id, public.summing(v)::text as v from base group by id;
             create domain inside as text check (public.mine_check(value)); create domain outside as inside;
             create or replace view domained as select id, v::outside::text as v from base;
             revoke all on closed from {}",
            rig.reader()
        ))
        .await;
    let done = rig.pass().await;
    let problem = |name: &str| done.problems.get(name).cloned().unwrap_or_default();
    for (name, words) in [
        ("twice", "several rows under one key"),
        ("keyless", "1 rows of \"public\".\"keyless\" have no key"),
        ("broken", "SQLSTATE 22012"),
        ("empty", "refresh materialized view"),
        ("own", "public.mine"),
        ("nested", "public.mine"),
        ("summed", "public.mine_step"),
        ("domained", "public.mine_check"),
        ("closed", "grant select"),
    ] {
        assert!(problem(name).contains(words), "{name}: {done:?}");
    }
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["1"]);
    let named = |column: &str| StampOptions {
        columns: BTreeMap::from([("closed".to_owned(), vec![column.to_owned()])]),
        ..StampOptions::default()
    };
    rig.grant().await;
    let done = pull(&rig, named("v")).pass().await.unwrap();
    assert!(done.problems["closed"].contains("\"v\", which is text"), "{done:?}");
    let done = pull(&rig, named("nope")).pass().await.unwrap();
    assert!(done.problems["closed"].contains("does not have"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_which_each_look_finds_much_is_closed_by_the_view_that_reads_it() {
    for path in PATHS {
        let rig = Rig::new(
            path,
            &format!("{BARE}; insert into base select i, 'old' from generate_series(1000, 2000) i;
                     create table t (id int primary key, v text); insert into t select id, v from base;
                     create view again as select id, v from base"),
            r#"{"shown":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},"again":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
                "t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
        )
        .await;
        let few = Limits { rows: 20, bytes: 1 << 20 };
        let pace = Pace { closing: few, part: few, view_time: Duration::ZERO };
        // However long it takes here, that nothing has changed is not told.
        let pass = async || rig.pull().at_pace(pace).beating(None).pass().await.unwrap();
        pass().await;
        for table in ["shown", "again", "t"] {
            rig.assert_equal(table, &["id", "v"]).await;
        }
        let idle = pass().await;
        assert_eq!((idle.rows, idle.removed, idle.batches), (0, 0, 0), "{idle:?}");
        assert!(idle.caught_up_at.is_some());
        rig.db.sql("update base set v = 'new' where id < 5; delete from base where id = 9; update t set v = 'new' where id < 3").await;
        let done = pass().await;
        assert_eq!((done.rows, done.removed), (10, 2), "{done:?}");
        let found = rig.pull().at_pace(pace).verify(&[], false).await.unwrap();
        assert!(found.is_equal(), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_cannot_be_locked_or_whose_base_is_keeps_nobody_back() {
    let rig = Rig::new(
        Path::File,
        &format!("{BARE}; create table t (id int primary key); insert into t values (1); create view denied as select id, v from base"),
        r#"{"shown":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},"t":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "denied":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    let owner = format!("owner_{}", rig.db.name);
    rig.db.sql(&format!("create role {owner}; alter view denied owner to {owner}")).await;
    rig.grant().await;
    let done = rig.pass().await;
    assert_eq!((done.rows, done.problems.len()), (101, 1), "{done:?}");
    assert!(done.problems["denied"].contains("permission denied"), "{done:?}");
    rig.db
        .sql(&format!(
            "grant select on base to {owner}; update base set v = 'new' where id = 1; insert into t values (2)"
        ))
        .await;
    rig.db.sql("begin; lock table base in access exclusive mode").await;
    let began = std::time::Instant::now();
    let done = rig.pass().await;
    assert!(problem(&done).contains("keeps a lock") && done.rows == 1, "{done:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waits for it");
    rig.db.sql("commit").await;
    let done = rig.pass().await;
    assert!(done.problems.is_empty(), "{done:?}");
    rig.assert_equal("shown", &["id", "v"]).await;
    rig.assert_equal("denied", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_replica_refuses_in_a_long_view_stands_aside_and_the_view_follows() {
    let rig = Rig::new(
        Path::File,
        &format!("{BARE}; insert into base select i, 'old' from generate_series(1000, 2000) i"),
        SHOWN,
    )
    .await;
    let few = Limits { rows: 20, bytes: 1 << 20 };
    let pace = Pace { closing: few, part: few, view_time: Duration::ZERO };
    rig.pull().at_pace(pace).pass().await.unwrap();
    rig.replica("CREATE TRIGGER no BEFORE UPDATE ON shown WHEN NEW.v = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    rig.db.sql("update base set v = 'bad' where id = 2000; update base set v = 'good' where id = 1").await;
    let done = rig.pull().at_pace(pace).pass().await.unwrap();
    assert_eq!((done.rows, done.dead), (1, 1), "{done:?}");
    assert_eq!(rig.rows("SELECT until FROM _pgflume_owners").await, ["NULL"]);
    assert_eq!(rig.pull().status().await.tables["shown"].state, "following");
    rig.replica("DROP TRIGGER no").await;
    rig.pull().at_pace(pace).pass().await.unwrap();
    rig.assert_equal("shown", &["id", "v"]).await;
    assert!(rig.rows("SELECT * FROM _pgflume_dead").await.is_empty());
}

/// A view that takes its time before `b_shown` is read.
const SLOW: &str = "create view a_slow as select 1 as id, pg_catalog.pg_sleep(1)::text as v";
const SLOW_JSON: &str = r#"{"a_slow":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},"b_shown":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_moved_before_a_view_reads_it_is_never_read_as_empty_and_keeps_nobody_back() {
    let shown = [
        ("create view b_shown as select id, v from base", "truncate base; insert into base values (1, 'again')"),
        (
            "create function public.through() returns table (id int, v text) language sql as 'select id, v from public.base'; create view b_shown as select * from public.through()",
            "truncate base; insert into base values (1, 'again')",
        ),
        ("create materialized view b_shown as select id, v from base", "refresh materialized view b_shown"),
        (
            "create table parts (id int, v text, primary key (id)) partition by range (id); create table low partition of parts for values from (0) to (100);
             create table high (id int primary key, v text); insert into parts values (1, 'low'); insert into high values (200, 'high');
             create view b_shown as select id, v from parts",
            "alter table parts attach partition high for values from (100) to (300)",
        ),
    ];
    for (make, moves) in shown {
        let rig = Arc::new(
            Rig::new(
                Path::File,
                &format!("create table base (id int primary key, v text); insert into base select i, 'old' from generate_series(1, 25) i;
                         create table t (id int primary key, v text); {SLOW}; {make}"),
                SLOW_JSON,
            )
            .await,
        );
        rig.pass().await;
        let before = rig.rows("SELECT count(*) FROM b_shown").await;
        rig.db.sql("insert into t values (1, 'new')").await;
        let mover = Db::existing(&rig.db.name, cluster()).await;
        let pass = tokio::spawn({
            let rig = rig.clone();
            async move { rig.pass().await }
        });
        until("the slow view is read", async || {
            let sql =
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
            mover.one(sql).await != "0"
        })
        .await;
        mover.sql(moves).await;
        let done = pass.await.unwrap();
        assert!(
            done.problems["b_shown"].contains("while it was read") && done.caught_up_at.is_none(),
            "{moves}: {done:?}"
        );
        assert_eq!(rig.rows("SELECT count(*) FROM b_shown").await, before, "{moves}");
        assert_eq!(rig.rows("SELECT v FROM t").await, ["new"], "{moves}");
        let done = rig.pass().await;
        assert!(done.problems.is_empty(), "{moves}: {done:?}");
        rig.assert_equal("b_shown", &["id", "v"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_writes_or_waits_for_ever_keeps_nobody_back() {
    let rig = Rig::new(
        Path::File,
        "create table base (id int primary key, v text); insert into base values (1, 'a'); create sequence numbers; grant usage on sequence numbers to public;
         create table t (id int primary key, v text); insert into t values (1, 'a');
         create view a_slow as select id, pg_catalog.set_config('lock_timeout', '0', true) as v from t;
         create view b_shown as select id, pg_catalog.nextval('numbers')::text as v from base",
        SLOW_JSON,
    )
    .await;
    let done = rig.pass().await;
    assert!(done.problems["b_shown"].contains("it writes while it is read"), "{done:?}");
    assert_eq!(rig.rows("SELECT v FROM t").await, ["a"]);
    rig.db.sql("create or replace view b_shown as select id, v from base").await;
    rig.db.sql("begin; lock table base in access exclusive mode").await;
    let done = rig.pass().await;
    assert!(done.problems["b_shown"].contains("keeps a lock"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_come_twice_are_named_though_the_numbers_of_rows_agree() {
    let rig = Rig::new(
        Path::File,
        "create table base (n serial, id int, v text); insert into base (id, v) values (1, 'a'), (2, 'b'), (3, 'c');
         create view shown as select id, v from base",
        SHOWN,
    )
    .await;
    rig.pass().await;
    rig.db.sql("delete from base where id = 3; insert into base (id, v) values (1, 'again')").await;
    let done = rig.pass().await;
    assert!(problem(&done).contains("several rows under one key (3 rows, 2 keys)"), "{done:?}");
    assert!(done.caught_up_at.is_none());
    let found = rig.pull().verify(&[], false).await.unwrap();
    assert!(!found.is_equal(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_view_sets_while_it_is_read_changes_no_other_table() {
    let rig = Rig::new(
        Path::File,
        "create table base (id int primary key); insert into base values (1);
         create view a_view as select id, pg_catalog.set_config('intervalstyle', 'iso_8601', true) as v from base;
         create table b_table (id int primary key, v interval); insert into b_table values (1, '1 day 2 hours')",
        r#"{"a_view":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},"b_table":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    for change in ["", "update b_table set v = v"] {
        rig.db.sql(change).await;
        rig.pass().await;
        assert_eq!(rig.rows("SELECT v FROM b_table").await, ["1 day 02:00:00"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stamps_of_days_of_old_and_of_another_column_lose_nothing() {
    let rig = Rig::new(
        Path::File,
        "create table base (id int primary key, v text, day date, other timestamptz);
         insert into base select i, 'old', '2024-05-02', '2030-01-01' from generate_series(1, 5) i;
         create view shown as select id, v, day, other from base",
        SHOWN,
    )
    .await;
    let by = |column: &str| StampOptions {
        columns: BTreeMap::from([("shown".to_owned(), vec![column.to_owned()])]),
        ..StampOptions::default()
    };
    pull(&rig, by("day")).pass().await.unwrap();
    // Committed after a row of the next day was seen.
    rig.db.sql("update base set v = 'late', day = '2024-05-01' where id = 1").await;
    pull(&rig, by("day")).pass().await.unwrap();
    rig.assert_equal("shown", &["id", "v"]).await;
    // The newest of another column says nothing of this one.
    rig.db.sql("update base set v = 'unseen', other = '2020-01-01' where id = 2; update base set day = '2000-01-01' where id = 2").await;
    pull(&rig, by("other")).pass().await.unwrap();
    rig.assert_equal("shown", &["id", "v"]).await;
    rig.db.sql("update base set other = '4714-11-24 00:00:00+00 BC'").await;
    for _ in 0..2 {
        let done = pull(&rig, by("other")).pass().await.unwrap();
        assert!(done.problems.is_empty(), "{done:?}");
    }
    rig.assert_equal("shown", &["id", "v"]).await;
}
