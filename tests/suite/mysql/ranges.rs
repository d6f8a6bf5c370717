//! Tables without stamps: what has changed is found by digests of ranges of their keys.

use super::writers::Dice;
use super::{NONE, Rig, is_mysql};
use crate::parts::MySqlServer;
use crate::support::{Home, PATHS, Path, until};
use mysql_async::prelude::Queryable;
use pgflume::provider::Limits;
use pgflume::pull::Pace;
use std::sync::Arc;
use std::time::Duration;

const ROWS: u64 = 60_000;

impl Rig {
    /// In a server of its own; rows are to be compared at each look.
    async fn digested(path: Path, tables: &str) -> Self {
        let server = Arc::new(MySqlServer::start(&[]));
        let mut rig = Self::on(server, Path::File, tables, NONE).await;
        rig.home = Home::new(path);
        (rig.stamps.is_compared, rig.stamps.compare) = (true, Some(Duration::ZERO));
        rig
    }

    /// Bytes that its server has sent.
    async fn sent(&self) -> u64 {
        let sql = "show global status like 'Bytes_sent'";
        let sent: Option<(String, u64)> = self.server().connect(None).await.query_first(sql).await.unwrap();
        sent.unwrap().1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_it_was_is_not_sent() {
    let tables = format!(
        "create table t (id int primary key, v varchar(99) not null, b longtext); insert into t (id, v) select seq * 10, repeat('x', 90) from seq_1_to_{ROWS}"
    );
    for path in PATHS {
        let rig = Rig::digested(path, &tables).await;
        // The first look has no digests to compare with.
        for expected in [ROWS, 0] {
            assert_eq!(rig.pass_of(rig.named()).await.rows, expected);
        }
        for (sql, rows, removed, most) in [
            ("select 1", 0, 0, 0),
            ("update t set v = 'y' where id between 205 and 295", 9, 0, 2),
            ("insert into t (id, v) values (7, 'first'), (9999999, 'last')", 2, 0, 5),
            ("delete from t where id = 300000; insert into t (id, v) values (300001, 'came')", 1, 1, 2),
            ("update t set b = repeat('long', 500000) where id = 400", 1, 0, 3),
            ("delete from t where id > 100000 and id % 100 <> 0", 0, 45_002, 60),
            ("update t set v = 'z' where id = 200", 1, 0, 2),
            ("select 1", 0, 0, 0),
            ("insert into t (id, v) select 10000000 + seq, repeat('x', 90) from seq_1_to_30000", 30_000, 0, 45),
            ("truncate t", 0, 44_999, 0),
        ] {
            rig.sql(sql).await;
            let before = rig.sent().await;
            let passed = rig.pass_of(rig.named()).await;
            let sent = rig.sent().await - before;
            assert_eq!((passed.rows, passed.problems.len()), (rows, 0), "{sql}: {passed:?}");
            assert!(sql == "truncate t" || passed.removed == removed, "{sql}: {passed:?}");
            // Some hundred kilobytes for ten thousand rows, a few for what the tables are like.
            assert!(sent < 100_000 + most * 1_000_000, "{sql}: {sent} bytes were sent: {passed:?}");
            let report = rig.pull().verify(&[], false).await.unwrap();
            assert_eq!(report.tables["t"].differences(), 0, "{sql}: {report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_changes_under_keys_of_every_kind_is_found() {
    let tables = "create table texts (k varchar(40) collate utf8mb4_general_ci primary key, v int);
        insert into texts select concat(char(97 + seq % 26), char(65 + seq % 7), seq), seq from seq_1_to_25000;
        create table pairs (e enum('z', 'y', 'x') not null, s set('p', 'q') not null, k bigint not null, v int, primary key (e, s, k));
        insert into pairs select 1 + seq % 3, seq % 4, seq, seq from seq_1_to_25000;
        create table times (d decimal(20,4), k time(2), v int, primary key (d, k));
        insert into times select seq % 50 / 8, sec_to_time(cast(seq as signed) * 40 - 200000), seq from seq_1_to_25000";
    let all = [("texts", "k, v", "binary k"), ("pairs", "e, s, k, v", "binary e, s, k"), ("times", "d, k, v", "d, k")];
    for path in PATHS {
        let rig = Rig::digested(path, tables).await;
        let mut dice = Dice(17);
        for _ in 0..2 {
            rig.pass_of(rig.named()).await;
        }
        for round in 0..14 {
            let (at, many) = (dice.below(25_000), 1 + dice.below(400));
            let (table, ..) = all[dice.below(3) as usize];
            let sql = match dice.below(6) {
                0 => format!("update {table} set v = -v where v between {at} and {}", at + many),
                1 => format!("delete from {table} where v between {at} and {}", at + many),
                2 => format!("update texts set k = upper(k) where v between {at} and {}", at + many),
                3 => format!("update pairs set e = 'x', k = k + 100000 where v between {at} and {}", at + many),
                4 => format!("update times set d = d + 0.5, k = addtime(k, '00:00:00.5') where v = {at}"),
                _ => format!("delete from {table} where v = {at}; update {table} set v = v + 1 where v = {}", at + 2),
            };
            rig.sql(&sql).await;
            let passed = rig.pass_of(rig.named()).await;
            assert!(passed.problems.is_empty(), "{round}, {sql}: {passed:?}");
            for (table, columns, _) in all {
                let here: std::collections::BTreeSet<String> =
                    rig.rows(&format!("SELECT {columns} FROM {table}")).await.into_iter().collect();
                let there: std::collections::BTreeSet<String> =
                    rig.source(&format!("select concat_ws('|', {columns}) from {table}")).await.into_iter().collect();
                assert_eq!(
                    here.difference(&there).count() + there.difference(&here).count(),
                    0,
                    "{round}, {sql}, {table}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_short_and_is_as_it_was_by_then_is_read_again() {
    for path in PATHS {
        let rig = Rig::digested(path, "create table t (id int primary key, v int, pad varchar(200)); insert into t select seq, 0, repeat('x', 100) from seq_1_to_60000").await;
        for _ in 0..2 {
            rig.pass_of(rig.named()).await;
        }
        rig.sql("update t set v = 1").await;
        let few = Limits { rows: 500, bytes: 1 << 20 };
        let pull = rig.pull().at_pace(Pace { closing: few, part: few, view_time: Duration::from_secs(60) });
        let passing = tokio::spawn(async move { pull.pass().await });
        until("a part is written", async || rig.rows("SELECT count(*) > 2000 FROM t WHERE v = 1").await == ["1"]).await;
        passing.abort();
        drop(passing.await);
        let written = rig.rows("SELECT count(*) < 60000 FROM t WHERE v = 1").await;
        assert_eq!(written, ["1"], "it was cut short");
        rig.sql("update t set v = 0").await;
        let passed = rig.pass_of(rig.named()).await;
        assert_eq!(rig.rows("SELECT count(*) FROM t WHERE v = 1").await, ["0"], "{passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_comparisons_ranges_are_known_by_the_number_of_their_rows() {
    let tables = "create table t (id int primary key, v varchar(99)); insert into t select seq * 10, repeat('x', 90) from seq_1_to_60000";
    let mut rig = Rig::digested(Path::File, tables).await;
    rig.stamps.compare = Some(Duration::from_secs(86_400));
    for _ in 0..2 {
        rig.pass_of(rig.named()).await;
    }
    for (at, sql) in [
        "insert into t values (5, 'a')",
        "insert into t values (300005, 'b')",
        "delete from t where id = 100",
        "insert into t values (9999999, 'c')",
    ]
    .iter()
    .enumerate()
    {
        rig.sql(sql).await;
        rig.sql(&format!("update t set v = 'unseen {at}' where id = {}", 400_010 + 10 * at)).await;
        let before = rig.sent().await;
        let passed = rig.pass_of(rig.named()).await;
        let sent = rig.sent().await - before;
        assert_eq!(passed.rows + passed.removed, 1, "{sql}: {passed:?}");
        assert!(sent < 2_100_000, "{sql}: {sent} bytes were sent");
    }
    // What a comparison finds that a look would have found is no difference.
    rig.sql("update t set v = 'pending' where id = 200000").await;
    let passed = rig.pull().comparing(Some(Duration::ZERO)).pass().await.unwrap();
    assert_eq!((passed.rows, passed.compared["t"].differences()), (5, 0), "{passed:?}");
    assert_eq!(rig.pull().verify(&[], false).await.unwrap().tables["t"].differences(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_finds_nothing_sends_and_writes_nothing() {
    let rig = Rig::digested(
        Path::File,
        "create table t (id int primary key, b longtext); insert into t values (1, 'short'), (2, repeat('long', 5000));
         create table base (id int primary key, v int, b text); insert into base select seq, seq, repeat('x', 90) from seq_1_to_5000;
         create view w as select id, v, b from base",
    )
    .await;
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","b":"TEXT"}},"w":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER","b":"TEXT"}}}"#;
    let rig = Rig { schema: crate::support::schema(json), ..rig };
    let provider = || pgflume::provider::mysql::MySqlProvider { row_bytes: 4096, ..rig.provider() };
    for _ in 0..3 {
        rig.pass_of(provider()).await;
    }
    assert_eq!(rig.rows("SELECT count(*) FROM w").await, ["5000"]);
    let before = rig.sent().await;
    let passed = rig.pass_of(provider()).await;
    let sent = rig.sent().await - before;
    assert_eq!((passed.batches, passed.rows), (0, 0), "{passed:?}");
    assert!(sent < 60_000, "{sent} bytes were sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_longer_than_a_text_may_be_are_read_each_time() {
    if !is_mysql() {
        return; // a MariaDB digests them
    }
    let columns: Vec<String> = (0..30).map(|i| format!("c{i} varchar(60)")).collect();
    let values = vec!["repeat('€', 60)"; 30].join(", ");
    let rig = Rig::digested(
        Path::File,
        &format!(
            "create table t (id int primary key, v int, {}); insert into t values (1, 1, {values})",
            columns.join(", ")
        ),
    )
    .await;
    rig.sql("set global max_allowed_packet = 8192").await;
    for _ in 0..2 {
        rig.pass_of(rig.named()).await;
    }
    rig.sql("update t set v = 2 where id = 1").await;
    rig.pass_of(rig.named()).await;
    assert_eq!(rig.rows("SELECT v FROM t").await, ["2"]);
}
