//! As whom clients write: what their tokens, their values and their neighbours' functions cannot get.

use super::{Written, new, push_to, statuses, update};
use crate::support::Db;
use pgflume::core::claims::Claims;
use pgflume::push::Failure;
use serde_json::{Value, json};

const ALL: &str = "select concat_ws('|', id, org, title) from todos order by id";

fn claims(json: Value) -> Claims {
    Claims::new(json.as_object().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_cannot_touch_each_others_rows_nor_learn_of_them() {
    let written = Written::todos("").await;
    written.db.sql("insert into todos (id, org, title) values ('1', 'a', 'ours'), ('2', 'b', 'theirs')").await;
    let eve = written.claims("eve", "b");
    let none = json!([{"status": "conflict", "now": null}]);
    for (i, id) in ["1", "3"].into_iter().enumerate() {
        for (j, change) in [
            update(id, json!({"title": "x"}), json!({"title": "ours"})),
            json!({"table": "todos", "op": "delete", "key": {"id": id}}),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = written.push(&eve, &format!("{i}{j}"), json!([change])).await.unwrap();
            assert_eq!(answer["results"], none, "another's row and none are told alike");
        }
    }
    let taken = written.push(&eve, "insert", json!([new("1", "x")])).await.unwrap();
    assert_eq!(taken["results"], json!([{"status": "rejected", "code": "23505"}]), "without the row");
    assert_eq!(statuses(&written.push(&eve, "own", json!([new("3", "x")])).await.unwrap()), ["applied"]);
    assert_eq!(written.rows(ALL).await, ["1|a|ours", "2|b|theirs", "3|b|x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_refuses_a_row_that_would_be_somebody_elses() {
    let json = super::todos("").replace(r#""columns":["title""#, r#""columns":["org","title""#);
    let written = Written::with(super::TODOS, &json).await;
    written.db.sql("insert into todos (id, org, title) values ('1', 'a', 'ours')").await;
    let give = update("1", json!({"org": "b"}), json!({"org": "a"}));
    assert_eq!(written.ann("1", json!([give])).await["results"], json!([{"status": "rejected", "code": "42501"}]));
    let foreign = json!({"table": "todos", "op": "insert", "key": {"id": "2"}, "set": {"org": "b"}});
    assert_eq!(written.ann("2", json!([foreign])).await["results"], json!([{"status": "rejected", "code": "42501"}]));
    assert_eq!(written.rows(ALL).await, ["1|a|ours"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_may_be_seen_and_not_written_is_refused_and_no_conflict() {
    let policies = "create policy seen on todos for select using (true)";
    let written = Written::with(&format!("{}; {policies}", super::TODOS), &super::todos("")).await;
    written.db.sql("insert into todos (id, org, title) values ('1', 'b', 'theirs')").await;
    let refused = json!([{"status": "rejected", "code": "42501"}]);
    let right = update("1", json!({"title": "x"}), json!({"title": "theirs"}));
    assert_eq!(written.ann("1", json!([right])).await["results"], refused);
    let wrong = written.ann("2", json!([update("1", json!({"title": "x"}), json!({"title": "other"}))])).await;
    assert_eq!((statuses(&wrong), &wrong["results"][0]["now"]["title"]), (vec!["conflict"], &json!("theirs")));
    let delete = json!([{"table": "todos", "op": "delete", "key": {"id": "1"}}]);
    assert_eq!(written.ann("3", delete).await["results"], refused);
    assert_eq!(statuses(&written.ann("4", json!([new("1", "x")])).await), ["conflict"], "it is there to be seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_nobody_whom_the_login_may_not_be() {
    let written = Written::todos("").await;
    let name = &written.db.name;
    let above = format!(
        "create role above_{name} bypassrls; create role under_{name}; grant above_{name} to under_{name};
         create role stranger_{name}; create role reader_{name}; grant pg_read_all_data to reader_{name};
         grant above_{name}, under_{name}, reader_{name} to {0};
         grant all on todos to above_{name}, under_{name}, stranger_{name}, reader_{name}",
        written.login
    );
    written.db.sql(&above).await;
    let mut roles: Vec<String> =
        ["postgres", "pgflume_push", "pgflume_worker", "none", "", "\"; reset role; --", "pg_read_all_data"]
            .map(str::to_owned)
            .into();
    roles.extend(["above", "under", "stranger", "reader"].map(|role| format!("{role}_{name}")));
    roles.push(written.login.clone());
    roles.push(format!("{}{}", written.member(), "x".repeat(80)));
    let mut tokens: Vec<Claims> =
        roles.iter().map(|role| claims(json!({"sub": "eve", "org": "a", "role": role}))).collect();
    tokens.extend(
        [json!({"sub": "eve"}), json!({"role": 1}), json!({"role": [written.member()]}), json!({})].map(claims),
    );
    for (i, token) in tokens.iter().enumerate() {
        let refused = written.push(token, &i.to_string(), json!([new("1", "x")])).await;
        assert!(matches!(refused, Err(Failure::Forbidden(_))), "{:?}: {refused:?}", roles.get(i));
    }
    assert_eq!(written.db.one("select count(*) from pgflume.pushes").await, "0");
    assert_eq!(
        statuses(&written.ann("ok", json!([new("1", "x")])).await),
        ["applied"],
        "its connections are as before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_the_role_count_as_well() {
    let written = Written::todos("").await;
    written
        .db
        .sql(&format!("revoke update on todos from {0}; grant update (note) on todos to {0}", written.member()))
        .await;
    written.db.sql("insert into todos (id, org, title) values ('1', 'a', 'ours')").await;
    let title = update("1", json!({"title": "x"}), json!({"title": "ours"}));
    assert_eq!(written.ann("1", json!([title])).await["results"], json!([{"status": "rejected", "code": "42501"}]));
    let note = update("1", json!({"note": "x"}), json!({"note": null}));
    assert_eq!(statuses(&written.ann("2", json!([note])).await), ["applied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_values() {
    let written = Written::todos("").await;
    for (i, value) in [
        "'; drop table todos; --",
        "\"; drop table todos; --",
        "$1",
        "\\'; select pg_sleep(100); --",
        "{\"a\": 1}",
        "null",
        "\u{2028}\u{7f}",
        "$pgflume$",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("{value}{i}");
        let made = written.ann(&format!("a{i}"), json!([new(&id, value)])).await;
        assert_eq!(statuses(&made), ["applied"], "{value}");
        let changed =
            written.ann(&format!("b{i}"), json!([update(&id, json!({"note": value}), json!({"note": null}))])).await;
        assert_eq!(statuses(&changed), ["applied"], "{value}");
        let found = written.db.client.query_one("select title, note from todos where id = $1", &[&id]).await.unwrap();
        assert_eq!((found.get::<_, &str>(0), found.get::<_, &str>(1)), (value, value));
    }
    let nul = written.ann("nul", json!([new("nul", "a\0b")])).await;
    assert_eq!(nul["results"], json!([{"status": "rejected", "code": "22P05"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_neighbour_has_planted_is_called() {
    let written = Written::todos("").await;
    // Whoever may create in public makes functions and operators that fit better than Postgres' own.
    let planted = "
        create function public.planted(anyelement) returns boolean language plpgsql as $$ begin raise exception 'planted'; end $$;
        create function public.same(jsonb, jsonb) returns boolean language plpgsql as $$ begin raise exception 'planted'; end $$;
        create operator public.= (leftarg = jsonb, rightarg = jsonb, function = public.same);
        create function public.same(text, text) returns boolean language plpgsql as $$ begin raise exception 'planted'; end $$;
        create operator public.= (leftarg = text, rightarg = text, function = public.same);
        create function public.to_jsonb(text) returns jsonb language plpgsql as $$ begin raise exception 'planted'; end $$;
        create function public.set_config(text, text, boolean) returns text language plpgsql as $$ begin raise exception 'planted'; end $$;
        create function public.json_populate_record(public.todos, json) returns public.todos language plpgsql as $$ begin raise exception 'planted'; end $$;
        create function public.hostile() returns trigger language plpgsql set search_path = public as $$
            begin perform pg_catalog.set_config('search_path', 'public, pg_catalog', false); return new; end $$;
        create trigger hostile before insert or update on todos for each row execute function public.hostile()";
    written.db.sql(planted).await;
    written.db.sql(&format!("alter role {} set search_path = public, pg_catalog", written.login)).await;
    let pushes = Written::pushes_at(&written.db.url(), &written.login, &written.schema);
    let ann = written.claims("ann", "a");
    for (key, change) in [
        ("1", new("1", "x")),
        ("2", update("1", json!({"title": "y"}), json!({"title": "x"}))),
        ("3", json!({"table": "todos", "op": "delete", "key": {"id": "1"}, "base": {"title": "y"}})),
    ] {
        let done = push_to(&pushes, &ann, key, json!([change])).await.unwrap();
        assert_eq!(statuses(&done), ["applied"], "{key}");
    }
    let both = json!([new("1", "x"), update("1", json!({"title": "y"}), json!({"title": "z"}))]);
    assert_eq!(statuses(&push_to(&pushes, &ann, "4", both).await.unwrap()), ["skipped", "conflict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_leaves_behind_is_gone_with_its_request() {
    let written = Written::todos("").await;
    let leaver = r#"create function leave() returns trigger language plpgsql as $$
         begin
            new.note := pg_catalog.concat(pg_catalog.current_setting('app.who', true), pg_catalog.to_regclass('pg_temp.left'));
            if new.title = 'leave' then
                perform pg_catalog.set_config('app.who', 'ann', false);
                perform pg_catalog.set_config('request.jwt.claims', '{"org": "b"}', false);
                perform pg_catalog.set_config('role', 'other_' || pg_catalog.current_database(), false);
                create temporary table "left" ();
            end if;
            return new;
         end $$;
         create trigger leave before insert on todos for each row execute function leave()"#;
    written.db.sql(leaver).await;
    let left = written.ann("1", json!([new("1", "leave")])).await;
    assert_eq!(left["results"], json!([{"status": "rejected", "code": "42501"}]), "it has become another's row");
    written.db.sql("alter table todos alter column org set default 'b'").await;
    assert_eq!(statuses(&written.ann("2", json!([new("1", "leave")])).await), ["applied"]);
    written.db.sql("alter table todos alter column org set default 'a'").await;
    assert_eq!(statuses(&written.ann("3", json!([new("2", "x")])).await), ["applied"]);
    assert_eq!(written.db.all("select note from todos where id = '2'").await, [""], "nobody's setting, nobody's table");
    assert_eq!(written.db.one("select count(*) from pgflume.pushes where result is not null").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_do_not_reach_the_journal() {
    let written = Written::todos("").await;
    written.ann("1", json!([new("1", "x")])).await;
    for sql in ["select * from pgflume.pushes", "delete from pgflume.pushes", "select * from pgflume.settings"] {
        let member = written.member();
        let tried = written.db.client.batch_execute(&format!("set role {member}; {sql}")).await;
        let code = tried.unwrap_err().code().unwrap().code().to_owned();
        written.db.sql("reset role").await;
        assert_eq!(code, "42501", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_do_not_count_any_more_stop_all_writes() {
    let written = Written::todos("").await;
    let is_kept = async |key: &str| match written.push(&written.claims("ann", "a"), key, json!([new(key, "x")])).await {
        Err(Failure::Again(e)) => e.to_string().contains("no row-level security of public.todos"),
        other => panic!("{other:?}"),
    };
    written.db.sql("alter table todos disable row level security").await;
    assert!(is_kept("1").await);
    written
        .db
        .sql(&format!("alter table todos enable row level security; alter table todos owner to {}", written.member()))
        .await;
    assert!(is_kept("2").await, "its owner is above them");
    written.db.sql("alter table todos owner to postgres").await;
    written.db.sql(&format!("grant all on todos to {}", written.member())).await;
    assert_eq!(statuses(&written.ann("1", json!([new("1", "x")])).await), ["applied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_could_do_more_than_its_users_is_refused() {
    let written = Written::todos("").await;
    let refusal = async |login: &str| {
        let pushes = Written::pushes_at(&written.db.url(), login, &written.schema);
        pushes.check().await.map_or_else(|e| e.to_string(), |()| "taken".to_owned())
    };
    let role = async |db: &Db, name: &str, sql: &str| {
        let login = format!("{name}_{}", db.name);
        db.sql(&sql.replace("{}", &login)).await;
        login
    };
    let db = &written.db;
    let member = written.member();
    let inherits = format!("create role {{}} login; grant pgflume_push, {member} to {{}}");
    for (name, sql, expected) in [
        ("bypass", "create role {} login noinherit bypassrls; grant pgflume_push to {}", "BYPASSRLS"),
        ("creator", "create role {} login noinherit createrole; grant pgflume_push to {}", "CREATEROLE"),
        ("heir", inherits.as_str(), "inherits rights"),
        ("plain", "create role {} login noinherit", "grant pgflume_push"),
    ] {
        let login = role(db, name, sql).await;
        let said = refusal(&login).await;
        assert!(said.contains(expected) && said.contains("PUSH_URL"), "{said}");
    }
    assert!(refusal("postgres").await.contains("superuser"));
    assert_eq!(refusal(&written.login).await, "taken");
}
