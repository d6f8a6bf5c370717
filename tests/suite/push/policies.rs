//! Who wins where a row is not as the client knew it.

use super::{Written, new, statuses, update};
use crate::support::until;
use serde_json::{Value, json};

const ALL: &str = "select concat_ws('|', id, title, note, done) from todos order by id";

async fn one(conflict: &str) -> Written {
    let written = Written::todos(conflict).await;
    written.db.sql("insert into todos (id, org, title, note) values ('1', 'a', 'old', 'n')").await;
    written
}

fn row(title: &str, note: &str) -> Value {
    json!({"id": "1", "title": title, "note": note, "done": null, "at": null, "doc": null})
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_change_and_go_and_the_answer_names_the_transaction() {
    let written = Written::todos("").await;
    let made = written.ann("1", json!([new("1", "milk"), new("2", "bread")])).await;
    assert_eq!(statuses(&made), ["applied", "applied"]);
    assert_eq!((&made["duplicate"], &made["pos"]), (&json!(false), &Value::Null));
    let txid = made["txid"].as_u64().unwrap().to_string();
    let of_rows = "select distinct pg_catalog.pg_current_xact_id()::text::bigint / 4294967296 * 4294967296 + xmin::text::bigint from todos";
    // Changes are made within a savepoint, whose own number the rows have: the next one that no other test took.
    let made_by: u64 = written.db.one(of_rows).await.parse().unwrap();
    assert!(made_by > txid.parse::<u64>().unwrap());
    assert_eq!(written.db.one(&format!("select pg_xact_status('{txid}'::xid8)")).await, "committed");
    let changed = written.ann("2", json!([update("1", json!({"title": "cream"}), json!({"title": "milk"}))])).await;
    assert_eq!(statuses(&changed), ["applied"]);
    let gone = json!([{"table": "todos", "op": "delete", "key": {"id": "2"}}]);
    assert_eq!(statuses(&written.ann("3", gone.clone()).await), ["applied"]);
    assert_eq!(written.rows(ALL).await, ["1|cream"]);
    assert!(written.db.queued().await > 0, "the changes are marked for the replica");
    let again = written.ann("4", gone).await;
    assert_eq!(again["results"], json!([{"status": "conflict", "now": null}]), "gone, or somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_lets_both_win_who_set_different_columns() {
    let written = one("").await;
    let base = || json!({"title": "old", "note": "n"});
    let ann = written.ann("1", json!([update("1", json!({"title": "ann's"}), base())])).await;
    let bob = written.ann("2", json!([update("1", json!({"note": "bob's"}), base())])).await;
    assert_eq!((statuses(&ann), statuses(&bob)), (vec!["applied"], vec!["applied"]));
    let late = written.ann("3", json!([update("1", json!({"title": "late"}), base())])).await;
    assert_eq!(late["results"], json!([{"status": "conflict", "now": row("ann's", "bob's")}]));
    assert_eq!(late["txid"], Value::Null);
    let same = written.ann("4", json!([update("1", json!({"title": "ann's"}), base())])).await;
    assert_eq!(statuses(&same), ["applied"], "who write the same are of one mind");
    let delete = |base: Value| json!([{"table": "todos", "op": "delete", "key": {"id": "1"}, "base": base}]);
    assert_eq!(statuses(&written.ann("5", delete(base())).await), ["conflict"]);
    assert_eq!(statuses(&written.ann("6", delete(json!({"title": "ann's"}))).await), ["applied"]);
    let after = written.ann("7", json!([update("1", json!({"title": "x"}), base())])).await;
    assert_eq!(after["results"], json!([{"status": "conflict", "now": null}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_are_one_after_the_other() {
    let written = one("").await;
    let other = written.existing().await;
    other.sql("begin; select from todos for update").await;
    let push = async |key: &str, title: &str| {
        written.ann(key, json!([update("1", json!({"title": title}), json!({"title": "old"}))])).await
    };
    let both = async { futures_util::join!(push("1", "one"), push("2", "two")) };
    let release = async {
        let waiting = "select count(*) >= 2 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        until("both wait", async || written.db.one(waiting).await == "true").await;
        other.sql("rollback").await;
    };
    let ((one, two), ()) = futures_util::join!(both, release);
    let mut all = [statuses(&one), statuses(&two)].concat();
    all.sort_unstable();
    assert_eq!(all, ["applied", "conflict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_wins_compares_all_that_the_client_knew() {
    let written = one(r#","conflict":"server-wins""#).await;
    let base = json!({"title": "old", "note": "other"});
    let answer = written.ann("1", json!([update("1", json!({"title": "x"}), base)])).await;
    assert_eq!(answer["results"], json!([{"status": "conflict", "now": row("old", "n")}]));
    let base = json!({"title": "old", "note": "n", "done": null});
    assert_eq!(statuses(&written.ann("2", json!([update("1", json!({"title": "x"}), base)])).await), ["applied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_wins_compares_nothing() {
    let written = one(r#","conflict":"client-wins""#).await;
    let change = json!({"table": "todos", "op": "update", "key": {"id": "1"}, "set": {"title": "x"}});
    assert_eq!(statuses(&written.ann("1", json!([change])).await), ["applied"]);
    assert_eq!(written.rows(ALL).await, ["1|x|n"]);
    let again = written.ann("2", json!([new("1", "mine")])).await;
    assert_eq!(statuses(&again), ["conflict"], "a new row is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_write_wins_unless_it_comes_from_the_future() {
    let written = one(r#","conflict":"last-write-wins","stamp":"at""#).await;
    let change = |title: &str, at: &str| json!([{"table": "todos", "op": "update", "key": {"id": "1"}, "set": {"title": title, "at": at}}]);
    assert_eq!(statuses(&written.ann("1", change("b", "2026-01-02T00:00:00Z")).await), ["applied"]);
    let earlier = written.ann("2", change("a", "2026-01-01T00:00:00+00:00")).await;
    assert_eq!(earlier["results"][0]["now"]["at"], "2026-01-02T00:00:00+00:00");
    assert_eq!(statuses(&earlier), ["conflict"]);
    assert_eq!(statuses(&written.ann("3", change("c", "2026-01-02T00:00:00Z")).await), ["applied"]);
    let future = written.ann("4", change("d", "2999-01-01T00:00:00Z")).await;
    assert_eq!(future["results"], json!([{"status": "rejected", "code": "22008"}]));
    let new = json!([{"table": "todos", "op": "insert", "key": {"id": "2"}, "set": {"at": "2999-01-01T00:00:00Z"}}]);
    assert_eq!(written.ann("5", new).await["results"], json!([{"status": "rejected", "code": "22008"}]));
    let delete = |at: &str| json!([{"table": "todos", "op": "delete", "key": {"id": "1"}, "set": {"at": at}}]);
    assert_eq!(statuses(&written.ann("6", delete("2026-01-01T00:00:00Z")).await), ["conflict"]);
    assert_eq!(statuses(&written.ann("7", delete("2026-01-03T00:00:00Z")).await), ["applied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_the_operators_may_decide() {
    let function = "
        create schema app; grant usage on schema app to public;
        create function app.decide(base jsonb, now jsonb, wanted jsonb) returns jsonb language sql set search_path = '' as $$
            select case
                when now->>'note' = 'closed' then null
                when wanted is null then '{}'
                else jsonb_build_object('title', concat(base->>'title', '>', now->>'title', '>', wanted->>'title')) end
        $$";
    let json = super::todos(r#","conflict":"custom","function":"app.decide""#);
    let written = Written::with(&format!("{}; {function}", super::TODOS), &json).await;
    written.db.sql("insert into todos (id, org, title) values ('1', 'a', 'now')").await;
    let change = || update("1", json!({"title": "wanted", "done": true}), json!({"title": "base"}));
    assert_eq!(statuses(&written.ann("1", json!([change()])).await), ["applied"]);
    assert_eq!(written.rows(ALL).await, ["1|base>now>wanted"]);
    written.db.sql("update todos set note = 'closed'").await;
    let closed = written.ann("2", json!([change()])).await;
    assert_eq!((statuses(&closed), &closed["results"][0]["now"]["note"]), (vec!["conflict"], &json!("closed")));
    let delete = json!([{"table": "todos", "op": "delete", "key": {"id": "1"}}]);
    assert_eq!(statuses(&written.ann("3", delete.clone()).await), ["conflict"]);
    written.db.sql("update todos set note = null").await;
    assert_eq!(statuses(&written.ann("4", delete).await), ["applied"]);
    let gone = written.ann("5", json!([change()])).await;
    assert_eq!(gone["results"], json!([{"status": "conflict", "now": null}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_change_in_the_way_takes_back_all_of_its_request_and_nothing_of_the_next() {
    let written = one("").await;
    let conflicting = update("1", json!({"title": "x"}), json!({"title": "other"}));
    let answer = written.ann("1", json!([new("2", "two"), conflicting, new("3", "three")])).await;
    assert_eq!(statuses(&answer), ["skipped", "conflict", "skipped"]);
    assert_eq!(written.rows(ALL).await, ["1|old|n"]);
    let answer = written.ann("2", json!([new("2", "two"), new("3", "bad"), new("4", "four")])).await;
    assert_eq!(statuses(&answer), ["skipped", "rejected", "skipped"]);
    assert_eq!((&answer["results"][1]["code"], &answer["txid"]), (&json!("23514"), &Value::Null));
    assert_eq!(statuses(&written.ann("3", json!([new("2", "two")])).await), ["applied"]);
    assert_eq!(written.rows(ALL).await, ["1|old|n", "2|two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_checked_at_the_end_is_told_too_and_a_trigger_may_refuse() {
    let tables = format!(
        "{}; create table parents (id text primary key);
         alter table todos add constraint child foreign key (note) references parents deferrable initially deferred;
         create function refuse() returns trigger language plpgsql as $$
            begin if new.title = 'no' then raise exception 'the title % is taken', new.title; end if; return new; end $$;
         create trigger refuse before insert on todos for each row execute function refuse()",
        super::TODOS
    );
    let written = Written::with(&tables, &super::todos("")).await;
    let child = json!({"table": "todos", "op": "insert", "key": {"id": "1"}, "set": {"note": "nowhere"}});
    assert_eq!(written.ann("1", json!([child])).await["results"], json!([{"status": "rejected", "code": "23503"}]));
    assert_eq!(
        written.ann("2", json!([new("1", "no")])).await["results"],
        json!([{"status": "rejected", "code": "P0001"}])
    );
    assert_eq!(statuses(&written.ann("3", json!([new("1", "yes")])).await), ["applied"]);
}
