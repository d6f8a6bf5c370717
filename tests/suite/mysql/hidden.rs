//! Tables that are there and are not shown, or cannot be defined any more: they stay, and are said.

use super::{Rig, server};
use crate::support::Path;
use mysql_async::prelude::Queryable;
use pgflume::provider::mysql::{MySqlProvider, Wanted};
use pgflume::pull::{Passed, Pull};
use std::sync::Arc;

/// A pass that may drop tables.
async fn dropping(rig: &Rig, provider: MySqlProvider) -> Passed {
    Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).dropping().pass().await.unwrap()
}

async fn tables(rig: &Rig) -> Vec<String> {
    rig.rows(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_pgflume%' ESCAPE '\\' AND name <> 'sqlite_sequence' ORDER BY 1",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_rebuilds_is_not_taken_for_dropped() {
    let rig = Rig::undefined(
        Path::File,
        "create table large (id int primary key, v varchar(300), updated_at datetime not null default '2026-01-01'); insert into large (id, v) select seq, repeat('x', 250) from seq_1_to_300000;
         create table small (id int primary key)",
    )
    .await;
    let named = || MySqlProvider {
        wanted: Wanted::Named { tables: vec!["*".into()], exclude: vec!["none".into()] },
        ..rig.provider()
    };
    dropping(&rig, named()).await;
    let mut other = server().connect(Some(&rig.name)).await;
    let rebuilding = tokio::spawn(async move {
        other.query_drop("alter table large add w int, algorithm=copy, lock=exclusive").await.unwrap();
        other.disconnect().await.unwrap();
    });
    let mut passes = 0;
    while !rebuilding.is_finished() {
        let id = passes;
        rig.sql(&format!("insert into small values ({id})")).await;
        let pull = Pull::new("p".into(), Arc::new(named()), rig.home.target(), false).dropping();
        let passed = pull.pass().await.unwrap();
        assert!(!passed.kept.contains("large"), "{passed:?}");
        assert_eq!(tables(&rig).await, ["large", "small"]);
        assert_eq!(
            rig.rows(&format!("SELECT count(*) FROM small WHERE id = {id}")).await,
            ["1"],
            "no other is kept back"
        );
        passes += 1;
    }
    rebuilding.await.unwrap();
    let passed = dropping(&rig, named()).await;
    assert!(passed.problems.is_empty(), "{passed:?}");
    assert_eq!(rig.rows("SELECT count(*), count(w) FROM large").await, ["300000|0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_loses_its_key_or_the_right_to_be_read_stays_and_is_said() {
    let rig = Rig::undefined(
        Path::File,
        "create table t (id int primary key, v int); insert into t values (1, 1); create table u (id int primary key);
         create table w (id int primary key); create table stays (id int primary key)",
    )
    .await;
    let name = &rig.name;
    rig.sql(&format!("revoke select on {name}.* from {name}@'%'; grant select on {name}.t to {name}@'%'; grant select on {name}.u to {name}@'%'; grant select on {name}.w to {name}@'%'; grant select on {name}.stays to {name}@'%'")).await;
    dropping(&rig, rig.named()).await;
    assert_eq!(tables(&rig).await, ["stays", "t", "u", "w"]);
    rig.sql(&format!(
        "alter table t drop primary key; update t set v = 2; revoke select on {name}.u from {name}@'%'; drop table w"
    ))
    .await;
    let passed = dropping(&rig, rig.named()).await;
    assert_eq!(tables(&rig).await, ["stays", "t", "u"]);
    assert!(passed.problems["t"].contains("primary key"), "{passed:?}");
    assert!(passed.problems["u"].contains("grant select"), "{passed:?}");
    assert_eq!(passed.caught_up_at, None);
    rig.sql(&format!("alter table t add primary key (id); grant select on {name}.* to {name}@'%'")).await;
    let passed = dropping(&rig, rig.named()).await;
    assert!(passed.problems.is_empty(), "{passed:?}");
    assert_eq!(rig.rows("SELECT id, v FROM t").await, ["1|2"]);
    assert_eq!(tables(&rig).await, ["stays", "t", "u"]);
    rig.sql("create table x (v int)").await;
    let named = |tables: &[&str]| {
        let tables = tables.iter().map(|&name| name.to_owned()).collect();
        MySqlProvider { wanted: Wanted::Named { tables, exclude: Vec::new() }, ..rig.provider() }
    };
    let refused =
        Pull::new("q".into(), Arc::new(named(&["t", "x"])), rig.home.target(), false).pass().await.unwrap_err();
    assert!(refused.to_string().contains("neither a primary key nor a unique index"), "{refused}");
    let refused =
        Pull::new("q".into(), Arc::new(named(&["t", "tt"])), rig.home.target(), false).pass().await.unwrap_err();
    assert!(refused.to_string().contains("names tt"), "{refused}");
    // A warning of the server, of another table, makes none that is locked.
    rig.sql("create table gone (v int); create view broken as select v from gone; drop table gone").await;
    let refused =
        Pull::new("q".into(), Arc::new(named(&["t", "x"])), rig.home.target(), false).pass().await.unwrap_err();
    assert!(refused.to_string().contains("neither a primary key"), "{refused}");
    // What is left out on purpose goes, where that is allowed.
    assert!(dropping(&rig, named(&["u"])).await.problems.is_empty());
    assert_eq!(tables(&rig).await, ["u"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_too_long_keeps_no_other_table_back() {
    let long = "ü".repeat(40);
    let rig = Rig::undefined(
        Path::File,
        &format!("create table t (id int primary key, `{long}` int); create table u (id int primary key); insert into u values (1)"),
    )
    .await;
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems.is_empty(), "{passed:?}");
    assert_eq!((tables(&rig).await, rig.rows("SELECT id FROM u").await), (vec!["u".to_owned()], vec!["1".to_owned()]));
}
