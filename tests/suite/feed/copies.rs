//! Copies of tables that are fed already.

use super::Fed;
use super::contract::{next, told};
use crate::support::{PATHS, until};
use pgflume::core::value::Cell;
use pgflume::replica::Replica;

const TABLE: &str = "create table todos (id bigint primary key, title text, at timestamptz, f double precision, doc jsonb);
    insert into todos select i, 'no ' || i, '2026-01-02 03:04:05.678+00', i / 3.0, jsonb_build_object('i', i) from generate_series(1, 1000) i";
const FED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","title":"TEXT","at":"TEXT","f":"REAL","doc":"JSON"},
    "feed":{"public":true}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn of_a_resync_clients_are_told_just_what_it_changes() {
    for path in PATHS {
        let fed = Fed::start(path, TABLE, FED).await;
        let mut at = next(&fed.get_whole("table=todos&offset=-1").await);
        until("all rows are walked through, and it is at a cut", async || {
            let answer = fed.get(&format!("table=todos&{at}")).await;
            if answer.status == 200 {
                at = next(&answer);
            }
            answer.header("electric-up-to-date").is_some()
        })
        .await;
        let replica = Replica::open(&fed.home.target()).await.unwrap();
        let write = async |sql: &str| drop(replica.query(sql, vec![]).await.unwrap());
        write("UPDATE todos SET title = 'wrong' WHERE id = 7").await;
        write("DELETE FROM todos WHERE id = 500").await;
        write("INSERT INTO todos (id, title) VALUES (2000, 'of nobody')").await;
        assert_eq!(replica.query("SELECT count(*) FROM _pgflume_feed", vec![]).await.unwrap(), [[Cell::Integer(0)]]);
        fed.program.said(&["resync", "todos"]).await;
        let mut messages = Vec::new();
        until("what was wrong is told", async || {
            let answer = fed.get(&format!("table=todos&{at}")).await;
            if answer.status == 200 {
                at = next(&answer);
                messages.extend(told(&answer).into_iter().filter(|message| message != "up-to-date"));
            }
            messages.len() >= 3
        })
        .await;
        messages.sort();
        assert_eq!(messages, ["delete 2000 null", "insert 500 no 500", "update 7 no 7"]);
        let logged = replica
            .query("SELECT k.value -> 0 FROM _pgflume_feed, json_each(touched) AS k ORDER BY 1", vec![])
            .await
            .unwrap();
        let keys: Vec<Vec<String>> = logged.iter().map(|row| row.iter().map(crate::store::show).collect()).collect();
        assert_eq!(keys, [["[2000]"], ["[500]"], ["[7]"]]);
    }
}
