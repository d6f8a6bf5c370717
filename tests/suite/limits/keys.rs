//! Keys that are empty, long, or full of what other formats use as delimiters; and those that are none.

use super::{assert_equal, directory_with, drained, run};
use crate::support::{PATHS, Rig, schema};
use crate::volume::set_up;

pub const TABLES: &str = r#"{"one":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "two":{"primaryKey":["a","b"],"columns":{"a":"TEXT","b":"TEXT","v":"TEXT"}}}"#;

/// 2,700 bytes that do not compress: about what a b-tree takes.
const LONG: &str = "(select left(string_agg(md5(i::text || 'x'), ''), 2650) from generate_series(1, 90) i)";

fn odd_keys() -> Vec<String> {
    let odd = [
        "",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{1}",
        "\u{7f}",
        "'",
        "\"",
        "\\",
        "\\\\x00",
        "\\x61",
        "{}",
        "{a,b}",
        "[\"a\"]",
        "null",
        "NULL",
        "1",
        "01",
        "1.0",
        "1e3",
        "-0",
        "é",
        "e\u{301}",
        "😀",
        "\u{ffff}",
        "\u{fffe}",
        "\u{feff}",
        "\u{10ffff}",
        "\u{202e}abc",
        "a\u{200b}",
        "%s",
        "$1",
        "?1",
        ":a",
        "--",
        "/*",
        ";",
    ];
    odd.map(str::to_owned).into_iter().chain(["x".repeat(2_700), "é".repeat(1_300)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_and_long_keys_are_marked_read_changed_deleted_and_compared() {
    for path in PATHS {
        let rig = Rig::new(path, schema(TABLES)).await;
        rig.db.sql("create table one (id text collate \"C\" primary key, v text); create table two (a text, b text, v text, primary key (a, b))").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        drained(&rig).await;
        let keys = odd_keys();
        rig.db.client.execute("insert into one select k, 'v' from unnest($1::text[]) k", &[&keys]).await.unwrap();
        rig.db.client.execute("insert into two select k, coalesce(lag(k) over (), ''), 'v' from unnest($1::text[]) k where length(k) < 1000", &[&keys]).await.unwrap();
        rig.db
            .sql(&format!("insert into one values ({LONG}, 'long'); insert into two values ('', {LONG}, 'long')"))
            .await;
        assert_eq!(drained(&rig).await, 0);
        assert_equal(&rig).await;
        rig.db.sql("update one set v = v || '!'; update two set v = v || '!'; update two set b = b || 'x' where a < 'a' and length(b) < 100").await;
        assert_eq!(drained(&rig).await, 0);
        assert_equal(&rig).await;
        let directory = directory_with(TABLES);
        rig.db.sql("delete from one where v <> 'long!' and id < 'b'; delete from two where a <> ''").await;
        run(&rig, directory.path(), &["verify"]).await.succeeded();
        run(&rig, directory.path(), &["resync"]).await.succeeded();
        assert_eq!(drained(&rig).await, 0);
        run(&rig, directory.path(), &["verify"]).await.succeeded();
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_a_dead_letter_with_its_reason_and_nothing_waits_for_it() {
    for path in PATHS {
        let rig = Rig::new(path, schema(TABLES)).await;
        rig.db.sql("create table one (id text primary key, v text); create table two (a text, b text, v text, primary key (a, b))").await;
        let bad = [
            (
                r#"{"type":"INSERT","table":"two","record":{"a":"x","b":null,"v":"v"}}"#,
                "lacks the key column \"b\", or it is null",
            ),
            (
                r#"{"type":"INSERT","table":"two","record":{"a":"x","v":"v"}}"#,
                "lacks the key column \"b\", or it is null",
            ),
            (
                r#"{"type":"UPDATE","table":"two","record":{"a":null,"b":"y"},"old_record":{"a":"x","b":"y"}}"#,
                "lacks the key column \"a\", or it is null",
            ),
            (
                r#"{"type":"DELETE","table":"two","record":null,"old_record":{"a":"x","b":null}}"#,
                "lacks the key column \"b\", or it is null",
            ),
            (r#"{"v":1,"table":"two","keys":[["a",null]]}"#, "lists of 2 strings"),
            (r#"{"v":1,"table":"two","keys":[["a"]]}"#, "lists of 2 strings"),
            (r#"{"v":1,"table":"two","keys":[["a","b","c"]]}"#, "lists of 2 strings"),
            (r#"{"v":1,"table":"one","keys":[]}"#, ""),
        ];
        for (message, _) in bad {
            rig.db.send(message).await;
        }
        rig.db.send(r#"{"type":"INSERT","table":"two","record":{"a":"","b":"","v":"good"}}"#).await;
        let done = rig.drain().await;
        let dead = rig.db.dead().await;
        assert_eq!((done.queued, done.dead), (0, 7), "{dead:?}");
        for (reason, (message, expected)) in dead.iter().zip(bad) {
            assert!(reason.contains(expected), "{message}: {reason}");
        }
        assert_eq!(rig.rows("SELECT a, b, v FROM two").await, ["||good"]);
        let tables = rig.db.all("select message->>'table' from pgmq.q_replicate_data_libsql_dead").await;
        assert!(tables.iter().all(|table| table == "two"), "{tables:?}");
    }
}
