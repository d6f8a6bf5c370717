//! Views, foreign tables and what else has no versions to tell by: pulled by stamps, whole, or compared.

use super::{Rig, cluster};
use crate::support::{Db, PATHS, Path};
use pgflume::provider::Promise;
use pgflume::provider::postgres::{PostgresProvider, StampOptions};
use pgflume::pull::{Passed, Pull};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    // What comes and goes is seen by the count; what changes, by comparing.
    rig.db.sql("delete from base where id = 1500; update base set v = 'unseen' where id = 1501").await;
    let done = pull(&rig, compared.clone()).pass().await.unwrap();
    assert_eq!((done.rows, done.removed), (0, 1), "{done:?}");
    let found = pull(&rig, compared.clone()).verify(&[], true).await.unwrap();
    assert_eq!((found.tables["shown"].different, found.tables["shown"].repaired), (1, 1), "{found:?}");
    rig.assert_equal("shown", &["id", "v"]).await;
    // More than is held at once.
    rig.db.sql("update base set v = 'all'").await;
    let found = pull(&rig, compared).verify(&[], true).await.unwrap();
    assert_eq!((found.tables["shown"].different, found.tables["shown"].repaired), (11_100, 11_100), "{found:?}");
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
         create materialized view kept as select id, v from base;
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
             create view own as select id, v from base; create view closed as select id, v from base"
        ),
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "twice":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "keyless":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "broken":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "empty":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "own":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "closed":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    let somebody = format!("somebody_{}", rig.db.name);
    rig.db
        .sql(&format!(
            "create role {somebody}; grant create on schema public to {somebody}; set role {somebody};
             create function public.mine(t text) returns text language sql as 'select t'; reset role;
             create or replace view own as select id, public.mine(v) as v from base; revoke all on closed from {}",
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
