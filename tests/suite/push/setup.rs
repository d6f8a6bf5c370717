//! What `setup` makes of tables that are writable, and what it refuses.

use super::{TODOS, Written, todos};
use crate::support::{Db, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions, SetupReport, TeardownOptions};

async fn set_up(db: &Db, json: &str) -> Result<SetupReport, String> {
    let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
    capture::setup(&url, &schema(json), &queue, &SetupOptions::default()).await.map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writable_table_without_row_level_security_is_refused_unless_that_is_meant() {
    let db = Db::new().await;
    db.sql(&TODOS.replace("alter table todos enable row level security;", "")).await;
    let refused = set_up(&db, &todos("")).await.unwrap_err();
    assert!(refused.contains("$.todos.writable") && refused.contains("enable row level security"), "{refused}");
    set_up(&db, &todos(r#","unchecked":true"#)).await.unwrap();
    db.sql("alter table todos enable row level security; drop policy own on todos").await;
    let report = set_up(&db, &todos("")).await.unwrap();
    assert!(report.warnings().iter().any(|w| w.contains("has no policy")), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_column_and_the_function_of_a_policy_are_looked_at() {
    let db = Db::new().await;
    db.sql(&TODOS.replace("at timestamptz", "at timestamp")).await;
    let refused = set_up(&db, &todos(r#","conflict":"last-write-wins","stamp":"at""#)).await.unwrap_err();
    assert!(refused.contains("$.todos.writable.stamp") && refused.contains("timestamptz"), "{refused}");
    let custom = todos(r#","conflict":"custom","function":"public.decide""#);
    for function in [
        "",
        "create function decide(jsonb, jsonb) returns jsonb return $1",
        "create function decide(jsonb, jsonb, jsonb) returns text return ''",
    ] {
        db.sql(function).await;
        let refused = set_up(&db, &custom).await.unwrap_err();
        assert!(refused.contains("$.todos.writable.function"), "{refused}");
    }
    db.sql("drop function decide(jsonb, jsonb, jsonb); create function decide(jsonb, jsonb, jsonb) returns jsonb return $3").await;
    set_up(&db, &custom).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_takes_no_null_by_itself_is_refused() {
    let db = Db::new().await;
    db.sql("create domain filled as text not null; create domain over as filled").await;
    db.sql(&TODOS.replace("note text", "note over")).await;
    let refused = set_up(&db, &todos("")).await.unwrap_err();
    assert!(refused.contains("$.todos.writable: the type of note is a domain that is NOT NULL"), "{refused}");
    db.sql("alter domain filled drop not null; alter table todos alter column note set not null").await;
    set_up(&db, &todos("")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_made_where_no_table_is_writable() {
    let db = Db::new().await;
    db.sql(TODOS).await;
    let read_only = r#"{"todos":{"primaryKey":"id","columns":{"id":"TEXT","title":"TEXT"}}}"#;
    set_up(&db, read_only).await.unwrap();
    assert_eq!(db.one("select to_regclass('pgflume.pushes') is null").await, "true");
    set_up(&db, &todos("")).await.unwrap();
    let rights = "select concat_ws(' ', c.relname, a.privilege_type) from pg_class c, aclexplode(c.relacl) a where c.relnamespace = 'pgflume'::regnamespace and a.grantee = 'pgflume_push'::regrole order by 1";
    let expected = ["pushes DELETE", "pushes INSERT", "pushes SELECT", "pushes UPDATE"];
    assert_eq!(db.all(rights).await, expected);
    set_up(&db, read_only).await.unwrap();
    assert_eq!(db.all(rights).await, expected, "what is no longer named stays until teardown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_that_name_that_may_more_is_not_taken_for_ours() {
    let cluster = crate::intruders::cluster_of_its_own();
    let db = Db::named("pushes".to_owned(), cluster, "with_pgmq").await;
    db.sql(TODOS).await;
    db.sql("create role pgflume_push login").await;
    let refused = set_up(&db, &todos("")).await.unwrap_err();
    assert!(refused.contains("role pgflume_push, which may do more than it is for"), "{refused}");
    db.sql("alter role pgflume_push nologin").await;
    set_up(&db, &todos("")).await.unwrap();
    let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
    let report = capture::teardown(&url, &queue, TeardownOptions::default()).await.unwrap();
    assert!(report.done.contains(&"the role pgflume_push".to_owned()), "{report}");
    assert_eq!(db.one("select count(*) from pg_roles where rolname like 'pgflume%'").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_again_leaves_what_was_written_down() {
    let written = Written::todos("").await;
    written.ann("1", serde_json::json!([super::new("1", "x")])).await;
    set_up(&written.db, &todos("")).await.unwrap();
    assert_eq!(written.ann("1", serde_json::json!([super::new("1", "x")])).await["duplicate"], true);
}
