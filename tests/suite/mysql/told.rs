//! Changes that the server's binlog tells of, to a login that may read it.

use super::{NONE, Rig};
use crate::parts::mysql_server::{MySqlServer, is_mysql, said};
use crate::support::{Home, PATHS, Path, until};
use mysql_async::prelude::Queryable;
use pgflume::pull::{Pull, Scheduled, Service};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Rig {
    /// Its login may read the binlog from now on, or no longer.
    pub async fn may_read_binlog(&self, may: bool) {
        let rights = "replication slave, binlog monitor on *.*";
        let name = &self.name;
        self.sql(&match may {
            true => format!("grant {rights} to {name}@'%'"),
            false => format!("revoke {rights} from {name}@'%'"),
        })
        .await;
    }

    /// With these tables, which are pulled by their names.
    async fn told(path: Path, tables: &str) -> Self {
        let rig = Self::undefined(path, tables).await;
        rig.may_read_binlog(true).await;
        rig
    }

    /// The same in a server of its own: what is done to that concerns no other test.
    pub async fn told_by(arguments: &[&str], tables: &str) -> Self {
        let server = Arc::new(MySqlServer::start(arguments));
        let rig = Self::on(server, Path::File, tables, NONE).await;
        rig.may_read_binlog(true).await;
        rig
    }

    pub fn pull(&self) -> Pull {
        Pull::new("p".into(), Arc::new(self.named()), self.home.target(), false)
    }

    /// Rows that its server's tables were read for since it was started.
    pub async fn rows_read(&self) -> u64 {
        let sql = "select cast(sum(variable_value) as unsigned) from information_schema.global_status
            where variable_name in ('HANDLER_READ_NEXT', 'HANDLER_READ_KEY', 'HANDLER_READ_FIRST')";
        self.server().connect(None).await.query_first::<u64, _>(said(sql)).await.unwrap().unwrap()
    }

    /// A pass that compares no table of thousands of rows.
    async fn pass_by_keys(&self) {
        let before = self.rows_read().await;
        let passed = self.pass_of(self.named()).await;
        let read = self.rows_read().await - before;
        assert!(read < 4_000, "{read} rows were read: {passed:?}");
    }

    /// Each column of a table as text, in the order of its key.
    async fn assert_equal(&self, table: &str, columns: &[&str], key: &str) {
        let nullable = |ifnull: &str| columns.iter().map(|c| format!("{ifnull}({c}, '-')")).collect::<Vec<_>>();
        let here = self.rows(&format!("SELECT {} FROM {table} ORDER BY {key}", nullable("ifnull").join(", "))).await;
        let there = format!("select concat_ws('|', {}) from {table} order by {key}", nullable("ifnull").join(", "));
        assert_eq!(here, self.source(&there).await, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_came_changed_and_went_are_brought_and_nothing_else_is_read() {
    for path in PATHS {
        // What others write into the log moves the mark.
        let mut rig = Rig::told_by(&[], "create table t (id int primary key, v varchar(20), w int); insert into t select seq, seq, 0 from seq_1_to_30000").await;
        rig.home = Home::new(path);
        let first = rig.pass_of(rig.named()).await;
        assert_eq!((first.rows, first.promise), (30_000, Some("exact")), "{first:?}");
        let idle = rig.pass_of(rig.named()).await;
        assert_eq!((idle.rows, idle.removed, idle.batches), (0, 0, 0), "{idle:?}");
        rig.sql(
            "insert into t values (40000, 'new', 1); update t set v = 'x' where id = 5; delete from t where id between 10 and 12;
             update t set id = 50000 where id = 20; replace into t values (30, 'replaced', 3);
             insert into t values (31, 'y', 1) on duplicate key update v = 'duplicate'; begin; delete from t; rollback",
        )
        .await;
        let changed = rig.pass_of(rig.named()).await;
        assert_eq!((changed.rows, changed.removed), (5, 4), "{changed:?}");
        assert!(changed.caught_up_at.is_some() && changed.problems.is_empty(), "{changed:?}");
        rig.assert_equal("t", &["id", "v", "w"], "id").await;
        rig.sql("update t set w = w + 1 where id <= 25000").await;
        let many = rig.pass_of(rig.named()).await;
        assert_eq!((many.rows, many.removed), (24_996, 0), "{many:?}");
        rig.assert_equal("t", &["id", "v", "w"], "id").await;
        rig.sql("delete from t where id <= 25000").await;
        assert_eq!(rig.pass_of(rig.named()).await.removed, 24_996);
        rig.sql("truncate table t; insert into t values (1, 'one', 1)").await;
        rig.pass_of(rig.named()).await;
        rig.assert_equal("t", &["id", "v", "w"], "id").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_each_type_are_read_from_the_log() {
    for (declared, values) in [
        ("tinyint", ["-128", "127", "0"]),
        ("tinyint unsigned", ["255", "128", "0"]),
        ("smallint unsigned", ["65535", "1", "0"]),
        ("mediumint", ["-8388608", "8388607", "0"]),
        ("mediumint unsigned", ["16777215", "1", "0"]),
        ("int unsigned", ["4294967295", "1", "0"]),
        ("bigint", ["-9223372036854775808", "9223372036854775807", "0"]),
        ("bigint unsigned", ["18446744073709551615", "9223372036854775808", "0"]),
        ("year", ["1901", "2155", "0"]),
        ("decimal(65,30)", ["-12345678901234567890123456789012345.123456789012345678901234567890", "0.5", "0"]),
        ("decimal(3,0)", ["-999", "10", "0"]),
        ("bit(9)", ["b'100000001'", "b'1'", "b'0'"]),
        ("enum('a','it''s','z')", ["'a'", "'it''s'", "'z'"]),
        ("set('a','b','c')", ["'a,c'", "'b'", "''"]),
        ("char(9)", ["'a'", "'ß€'", "''"]),
        ("char(9) collate utf8mb4_general_ci", ["'a  '", "'ß€'", "''"]),
        ("varchar(9) collate utf8mb4_bin", ["'😀'", "'a'", "'A'"]),
        ("varchar(300)", ["'long'", "repeat('é', 300)", "''"]),
        ("char(9) character set latin1", ["'é€'", "'a'", "''"]),
        ("varchar(9) character set ascii", ["'a'", "'b'", "''"]),
        ("varchar(9) character set utf8mb3", ["'é'", "'b'", "''"]),
        ("binary(4)", ["x'01000000'", "x'00010000'", "x'00000000'"]),
        ("varbinary(9)", ["x'0100'", "x'01'", "x''"]),
        ("date", ["'0000-00-00'", "'2026-02-00'", "'9999-12-31'"]),
        ("datetime", ["'0000-00-00'", "'2026-02-28 23:59:59'", "'1000-01-01'"]),
        ("datetime(6)", ["'2026-02-28 23:59:59.000001'", "'2026-02-28 23:59:59.1'", "'1000-01-01'"]),
        ("timestamp", ["'0000-00-00'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"]),
        ("timestamp(3)", ["'2024-02-29 12:00:00.5'", "'1970-01-01 00:00:01.001'", "'2000-01-01'"]),
        ("time", ["'-838:59:59'", "'00:00:00'", "'100:00:00'"]),
        ("time(2)", ["'-00:00:00.25'", "'-12:00:00.5'", "'838:59:58.99'"]),
        (
            "uuid",
            [
                "'6ccd780c-baba-1026-9564-5b8c656024db'",
                "'123e4567-e89b-42d3-a456-426614174000'",
                "'00000000-0000-0000-0000-000000000001'",
            ],
        ),
        ("inet6", ["'::1'", "'2001:db8::ff00:42:8329'", "'::ffff:1.2.3.4'"]),
    ] {
        if is_mysql() && ["uuid", "inet6"].contains(&declared) {
            continue; // MariaDB's types
        }
        let [a, b, c] = values;
        let tables = format!(
            "set time_zone = '+00:00', sql_mode = ''; create table t (x float, y json, z time(3), v int as (w + 1) virtual, k {declared}, w int, s int as (w + 2) stored, primary key (k));
             insert into t (x, z, k, w) values (1.5, '-1:00:00.5', {a}, 0), (2, null, {b}, 0), (3, null, {c}, 0)"
        );
        let rig = Rig::told(Path::File, &tables).await;
        let first = rig.pass_of(rig.named()).await;
        assert_eq!((first.rows, first.problems.len()), (3, 0), "{declared}: {first:?}");
        let is_told = first.promise == Some("exact");
        assert_eq!(is_told, declared != "inet6", "{declared}: {first:?}");
        rig.sql(&format!(
            "set time_zone = '+00:00', sql_mode = ''; update t set w = 7 where k = {a}; delete from t where k = {b}"
        ))
        .await;
        let changed = rig.pass_of(rig.named()).await;
        assert_eq!((changed.rows, changed.removed), (1, 1), "{declared}: {changed:?}");
        let left = rig.rows("SELECT w, v, s FROM t ORDER BY w DESC").await;
        assert_eq!(left, ["7|8|9", "0|1|2"], "{declared}");
        let pull = pgflume::pull::Pull::new("p".into(), std::sync::Arc::new(rig.named()), rig.home.target(), false);
        let report = pull.verify(&[], false).await.unwrap();
        assert_eq!(report.tables["t"].differences(), 0, "{declared}: {report:?}");
        // The other way round: what was deleted comes back, and the rest goes.
        rig.sql(&format!(
            "set time_zone = '+00:00', sql_mode = ''; delete from t; insert into t (k, w) values ({b}, 5)"
        ))
        .await;
        let changed = rig.pass_of(rig.named()).await;
        assert_eq!((changed.rows, changed.removed), (1, 2), "{declared}: {changed:?}");
        assert_eq!(pull.verify(&[], false).await.unwrap().tables["t"].differences(), 0, "{declared}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_by_a_foreign_key_is_found_although_the_log_does_not_tell() {
    let tables = "create table p (id int primary key, v int);
        create table c (id int primary key, p int, foreign key (p) references p (id) on delete cascade);
        create table g (id int primary key, c int, foreign key (c) references c (id) on delete cascade);
        create table s (id int primary key, p int, foreign key (p) references p (id) on delete set null on update cascade);
        create table r (id int primary key, r int, foreign key (r) references r (id) on delete cascade);
        insert into p select seq, seq from seq_1_to_100; insert into c select seq, seq from seq_1_to_100;
        insert into g select seq, seq from seq_1_to_100; insert into s select seq, seq from seq_1_to_100;
        insert into r values (1, null), (2, 1), (3, 2), (4, null)";
    for path in PATHS {
        let rig = Rig::told(path, tables).await;
        rig.pass_of(rig.named()).await;
        for (change, expected) in [
            ("update p set v = v + 1 where id = 3", (1, 0)),
            ("delete from p where id in (5, 6)", (2, 6)),
            ("update p set id = 1007 where v = 7", (0, 0)),
            ("delete from r where id = 1", (0, 3)),
            ("replace into p values (9, 99)", (2, 2)),
        ] {
            if change.contains("1007") {
                // What is referred to with RESTRICT cannot be changed.
                rig.sql("delete from c where p = 7").await;
                rig.pass_of(rig.named()).await;
            }
            rig.sql(change).await;
            let passed = rig.pass_of(rig.named()).await;
            // A MySQL brings some of what follows in the log, and some not.
            if expected != (0, 0) && !is_mysql() {
                assert_eq!((passed.rows, passed.removed), expected, "{change}: {passed:?}");
            }
            for (table, columns) in
                [("p", ["id", "v"]), ("c", ["id", "p"]), ("g", ["id", "c"]), ("s", ["id", "p"]), ("r", ["id", "r"])]
            {
                rig.assert_equal(table, &columns, "id").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_prepared_arrive_when_they_are_committed() {
    let rig = Rig::told_by(
        &[],
        "create table t (id int primary key, v int); insert into t select seq, 0 from seq_1_to_20000",
    )
    .await;
    rig.pass_of(rig.named()).await;
    rig.sql("update t set v = 9 where id = 9").await;
    rig.pass_by_keys().await;
    let mut writer = rig.server().connect(Some(&rig.name)).await;
    // The processes between two passes are others: a service knows what was prepared.
    for (id, end) in [("a", "xa prepare 'a'"), ("b", "xa prepare 'b'"), ("o", "xa commit 'o' one phase")] {
        let v = id.as_bytes()[0];
        for sql in [
            &format!("xa start '{id}'"),
            &format!("update t set v = {v} where id = {v}"),
            &format!("xa end '{id}'"),
            end,
        ] {
            writer.query_drop(sql).await.unwrap();
        }
        // A prepared transaction outlives its connection.
        writer.disconnect().await.unwrap();
        writer = rig.server().connect(Some(&rig.name)).await;
        rig.pass_by_keys().await;
    }
    rig.sql("update t set v = 3 where id = 3").await;
    rig.pass_by_keys().await;
    rig.assert_equal("t", &["id", "v"], "id").await;
    // It was prepared before this process began to read: all is compared.
    writer.query_drop("xa commit 'a'").await.unwrap();
    rig.pass_of(rig.named()).await;
    rig.assert_equal("t", &["id", "v"], "id").await;
    assert_eq!(rig.rows("SELECT v FROM t WHERE id = 97").await, ["97"]);
    writer.query_drop("xa rollback 'b'").await.unwrap();
    rig.sql("update t set v = 5 where id = 5").await;
    rig.pass_of(rig.named()).await;
    rig.assert_equal("t", &["id", "v"], "id").await;
    // One that is prepared and committed within what one process reads.
    for sql in ["xa start 'c'", "update t set v = 10 where id = 10", "xa end 'c'", "xa prepare 'c'", "xa commit 'c'"] {
        writer.query_drop(sql).await.unwrap();
    }
    rig.pass_by_keys().await;
    rig.assert_equal("t", &["id", "v"], "id").await;
    writer.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_through_other_databases_and_versions_is_found() {
    let rig = Rig::told_by(
        &[],
        "create table p (id int primary key) with system versioning;
         create table c (id int primary key, p int, foreign key (p) references p (id) on delete cascade);
         create table s (id int primary key, p int, foreign key (p) references p (id) on delete set null);
         create table a (id int primary key);
         create database other;
         insert into p values (1), (2); insert into c values (1, 1), (2, 2); insert into s values (1, 1), (2, 2); insert into a values (1), (2)",
    )
    .await;
    rig.sql(&format!(
        "create table other.b (id int primary key, a int, foreign key (a) references {0}.a (id) on delete cascade);
         create table e (id int primary key, b int, foreign key (b) references other.b (id) on delete cascade);
         insert into other.b values (1, 1), (2, 2); insert into e values (1, 1), (2, 2);
         grant select on other.* to {0}@'%'",
        rig.name
    ))
    .await;
    rig.pass_of(rig.named()).await;
    rig.sql("delete from p where id = 1; delete from a where id = 1").await;
    rig.pass_of(rig.named()).await;
    for (table, columns) in [("c", ["id", "p"]), ("s", ["id", "p"]), ("e", ["id", "b"])] {
        rig.assert_equal(table, &columns, "id").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_goes_has_no_table_read_that_follows_changed_keys_only() {
    let rig = Rig::told_by(
        &[],
        "create table p (id int primary key); insert into p select seq from seq_1_to_100;
         create table c (id int primary key, p int not null, foreign key (p) references p (id) on delete restrict on update cascade);
         insert into c select seq, 1 from seq_1_to_20000",
    )
    .await;
    rig.pass_of(rig.named()).await;
    rig.sql("delete from p where id = 50").await;
    rig.pass_by_keys().await;
    rig.sql("update p set id = 1000 where id = 1").await;
    rig.pass_of(rig.named()).await;
    rig.assert_equal("c", &["id", "p"], "id").await;
    // What was counted once is not counted again.
    rig.sql("create table d (id int primary key, p int, foreign key (p) references p (id) on delete cascade); insert into d select seq, 2 from seq_1_to_20000").await;
    rig.pass_of(rig.named()).await;
    rig.sql("delete from p where id = 51").await;
    rig.pass_of(rig.named()).await;
    rig.sql("insert into p values (2000)").await;
    rig.pass_by_keys().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_cannot_tell_of_is_not_called_exact() {
    let rig = Rig::told_by(
        &[],
        "create table x (id int primary key, v int) engine = MyISAM; create table m (id int, v int, index (id)) engine = MERGE union = (x);
         create table t (id int primary key, c int); create table cust (id int primary key, region varchar(9))",
    )
    .await;
    let json = r#"{"m":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}},
        "t":{"primaryKey":"id","columns":{"id":"INTEGER","c":"INTEGER"},"where":"c in (select id from cust where region = 'EU')"},
        "x":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}},
        "cust":{"primaryKey":"id","columns":{"id":"INTEGER","region":"TEXT"}}}"#;
    let rig = Rig { schema: crate::support::schema(json), ..rig };
    let mut source = pgflume::provider::Provider::open(&rig.provider()).await.unwrap();
    let described = source.describe().await.unwrap();
    let promise = |table: &str| described.tables[table].promise.name();
    assert_eq!(["m", "t", "x", "cust"].map(promise), ["compared", "exact_but", "exact_but", "exact"]);
    assert!(described.tables["m"].untold.as_ref().unwrap().contains("written elsewhere"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_log_says_in_statements_is_compared() {
    let rig = Rig::told_by(
        &[],
        "create table t (id int primary key, v int); insert into t select seq, 0 from seq_1_to_100;
         create table p (id int primary key, v int) partition by range (id) (partition a values less than (50), partition b values less than (1000));
         insert into p select seq, 0 from seq_1_to_100; create table x (id int primary key, v int); insert into x values (20, 5)",
    )
    .await;
    rig.pass_of(rig.named()).await;
    for change in [
        "set session binlog_format = 'STATEMENT'; update t set v = 1 where id < 10",
        "set session binlog_format = 'STATEMENT'; begin; delete from t where id = 11; update p set v = 7 where id = 3; commit",
        "set statement lock_wait_timeout = 5 for truncate table t",
        "insert into t select seq, 0 from seq_1_to_100; set statement lock_wait_timeout = 5 for alter table p truncate partition b",
        "set session binlog_format = 'STATEMENT'; set statement max_statement_time = 5 for delete from t where id < 5",
        "set session binlog_format = 'STATEMENT'; analyze delete from t where id = 50",
        "truncate table t; insert into t values (1, 1)",
        "truncate table t; insert into t values (2, 2)",
        "create table n like t; rename table t to o, n to t; insert into t values (5, 5)",
        "alter table p truncate partition a",
        "delete from p where id = 20; alter table p exchange partition a with table x",
        "alter table p drop partition b",
        "create or replace table t (v int, id int primary key); insert into t values (6, 60)",
        "alter table t modify v bigint after id; update t set v = 61",
        "create temporary table t (id int); insert into t values (1); drop temporary table t; insert into t values (70, 7)",
        "set sql_log_bin = 0; set sql_log_bin = 1; create table s as select * from t; alter table s add primary key (id)",
    ] {
        let of_mariadb = ["set statement", "analyze delete", "create or replace table"];
        if is_mysql() && of_mariadb.iter().any(|words| change.contains(words)) {
            continue;
        }
        rig.sql(change).await;
        rig.pass_of(rig.named()).await;
        for table in ["t", "p", "x"] {
            rig.assert_equal(table, &["id", "v"], "id").await;
        }
    }
    rig.assert_equal("s", &["id", "v"], "id").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_hold_only_what_changed_hold_the_key() {
    for image in ["MINIMAL", "NOBLOB"] {
        let rig = Rig::told_by(
            &[&format!("--binlog-row-image={image}")],
            "create table t (b blob, id int auto_increment primary key, v int, w int default 3);
             insert into t (b, v) select 'x', seq from seq_1_to_100;
             create table u (id int primary key, k varchar(9) not null unique default 'd', v int); insert into u values (1, 'a', 1), (2, 'b', 2)",
        )
        .await;
        // Of one the key is not the server's.
        let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","b":"BLOB","v":"INTEGER","w":"INTEGER"}},
            "u":{"primaryKey":"k","columns":{"k":"TEXT","v":"INTEGER"}}}"#;
        let rig = Rig { schema: crate::support::schema(json), ..rig };
        rig.pass().await;
        rig.sql(
            "update t set v = 7 where id = 5; update t set id = 200 where id = 6; delete from t where id = 7;
             insert into t (v) values (8); update u set v = 10 where id = 1; delete from u where id = 2;
             insert into u (id, v) values (3, 3)",
        )
        .await;
        let passed = rig.pass().await;
        assert_eq!((passed.promise, passed.problems.len()), (Some("exact"), 0), "{image}: {passed:?}");
        rig.assert_equal("t", &["id", "v", "w"], "id").await;
        rig.assert_equal("u", &["k", "v"], "k").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gains_or_loses_the_right_goes_on_without_a_new_copy() {
    let rig = Rig::undefined(
        Path::File,
        "create table t (id int primary key, v int, updated_at datetime(6) not null default now(6) on update now(6));
        insert into t (id, v) select seq, 0 from seq_1_to_20000",
    )
    .await;
    let mut promises = Vec::new();
    for (may, id) in [(false, 1), (true, 2), (false, 3), (true, 4)] {
        rig.may_read_binlog(may).await;
        rig.sql(&format!("update t set v = v + 1 where id = {id}; delete from t where id = {}", 100 + id)).await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.rows <= 1 || promises.is_empty(), "{passed:?}");
        promises.extend(passed.promise);
        rig.assert_equal("t", &["id", "v"], "id").await;
    }
    assert_eq!(promises, ["stamped", "exact", "stamped", "exact"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_gone_or_begun_anew_has_all_compared_and_empties_nothing() {
    let rig = Rig::told_by(
        &[],
        "create table t (id int primary key, v int); insert into t select seq, 0 from seq_1_to_20000",
    )
    .await;
    rig.pass_of(rig.named()).await;
    for lost in [
        "flush binary logs; flush binary logs; purge binary logs before now() + interval 1 day",
        "reset master",
        "flush binary logs",
    ] {
        rig.sql("update t set v = v + 1 where id = 3; delete from t where id > 100 order by id limit 1").await;
        rig.sql(lost).await;
        rig.sql("update t set v = v + 1 where id = 4").await;
        let passed = rig.pass_of(rig.named()).await;
        assert_eq!((passed.rows, passed.removed), (2, 1), "{lost}: {passed:?}");
        rig.assert_equal("t", &["id", "v"], "id").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_begun_anew_and_grew_beyond_the_old_one_is_noticed() {
    let rig = Rig::told_by(&[], "create table t (id int primary key, v int)").await;
    let insert =
        |from: usize, to: usize| (from..to).map(|id| format!("insert into t values ({id}, 0);")).collect::<String>();
    // Files that are begun within one second look alike.
    rig.sql(&format!("reset master; do sleep(1.1); {}", insert(100, 106))).await;
    rig.pass_of(rig.named()).await;
    rig.sql("update t set v = 1 where id = 100").await;
    rig.pass_of(rig.named()).await;
    rig.sql(&format!("reset master; {}", insert(200, 220))).await;
    rig.pass_of(rig.named()).await;
    rig.assert_equal("t", &["id", "v"], "id").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_over_many_rows_takes_no_more_than_a_compare() {
    let rig = Rig::told(Path::File, "create table t (id int primary key, k char(36) not null, v int); insert into t select seq, uuid(), 0 from seq_1_to_200000").await;
    rig.pass_of(rig.named()).await;
    rig.sql("update t set v = v + 1; delete from t where id % 1000 = 0").await;
    let passed = rig.pass_of(rig.named()).await;
    assert_eq!((passed.rows, passed.removed), (199_800, 200), "{passed:?}");
    let report = rig.pull().verify(&[], false).await.unwrap();
    assert_eq!(report.tables["t"].differences(), 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_served_follows_commits() {
    for path in PATHS {
        let mut rig =
            Rig::told_by(&[], "create table t (id int primary key, v int); insert into t values (1, 0)").await;
        rig.home = Home::new(path);
        let every = Duration::from_secs(3600);
        let retry_delay = Duration::from_millis(50);
        let service = Arc::new(Service::new(vec![Scheduled { pull: rig.pull(), every, retry_delay, limiter: None }]));
        let running = tokio::spawn({
            let service = service.clone();
            async move { service.run().await }
        });
        service.hint("p");
        let is_there = async |v: usize| rig.rows("SELECT v FROM t WHERE id = 1").await == [v.to_string()];
        until("it is copied", async || service.report("p").unwrap().passes > 1).await;
        let mut writer = rig.server().connect(Some(&rig.name)).await;
        let mut lags = Vec::new();
        for v in 1..=50 {
            writer.query_drop(format!("update t set v = {v}")).await.unwrap();
            let began = Instant::now();
            until("the commit is readable", async || is_there(v).await).await;
            lags.push(began.elapsed().as_secs_f64());
        }
        lags.sort_by(f64::total_cmp);
        println!("{path:?}: half within {:.1} ms", lags[lags.len() / 2] * 1e3);
        // Its stream is cut off, and it goes on.
        let mut root = rig.server().connect(None).await;
        let dumps = "select id from information_schema.processlist where command = 'Binlog Dump' and user = ?";
        let ids: Vec<u64> = root.exec(dumps, (&rig.name,)).await.unwrap();
        for id in ids {
            drop(root.query_drop(format!("kill {id}")).await);
        }
        writer.query_drop("update t set v = 100").await.unwrap();
        until("it follows again", async || is_there(100).await).await;
        service.stop();
        running.await.unwrap();
    }
}
