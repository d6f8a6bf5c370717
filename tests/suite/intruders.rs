//! Roles that may create a function, a schema or a table try to have something of theirs run as us, or to be taken for
//! us. A planted function that is called raises an error, so a command that ends well has called none; the server's
//! log tells of those that somebody caught.

use crate::support::{Db, Home, Path, SECRET, Server, config, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::demo::postgres::Cluster;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::replica::target::Target;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","v":"INTEGER","at":"TEXT"},"where":"v operator(pg_catalog.>) 0"}}"#;

/// A cluster of its own for each test that has a hand in roles, which belong to all databases.
pub fn cluster_of_its_own() -> &'static Cluster {
    Box::leak(Box::new(crate::support::own_cluster()))
}

/// What is planted here is nobody else's matter.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(crate::support::own_cluster)
}

async fn db(name: &str) -> Db {
    Db::named(name.to_owned(), cluster(), "with_pgmq").await
}

async fn setup(db: &Db, json: &str) -> Result<(), String> {
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    let url = PgUrl::parse(&db.url()).unwrap();
    let done = capture::setup(&url, &schema(json), &queue, &SetupOptions::default()).await;
    done.map(drop).map_err(|e| e.to_string())
}

/// Every word of our SQL that stands before a parenthesis, wherever it is written.
fn words() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sql")];
    folders.push(std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for (at, _) in text.match_indices('(') {
                let word = text[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap();
                words.insert(word.to_owned());
            }
        }
    }
    words
}

/// Plants in `place` an overload of every function of Postgres that our texts name, and of every operator, for the
/// arguments that Postgres itself would have to convert: those match better, and win although pg_catalog comes first.
fn overloads(place: &str) -> String {
    let names: Vec<String> = words().into_iter().map(|word| format!("'{word}'")).collect();
    format!(
        r#"do $plant$
declare
    one record;
    types constant text[] := array['text', 'name', 'varchar', 'int2', 'int4', 'int8', 'oid', 'regclass', 'bool', 'jsonb',
        'timestamptz', 'interval', 'float8', 'numeric', '"char"', 'uuid', 'text[]', 'name[]', 'int8[]', 'oid[]', 'int2vector', 'xid8', 'pg_lsn'];
begin
    -- what is planted is not to be called by this
    perform pg_catalog.set_config('search_path', '', true);
    for one in
        with candidates as (
            select distinct p.proname, p.proretset, format_type(p.prorettype, null) as result, p.pronargs, p.proargtypes
            from pg_proc p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and p.pronargs between 1 and 3
                and p.proname in ({names}) and p.prorettype not in ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
        ), first as (
            select c.*, t as a1 from candidates c, unnest(types) t
        ), arguments as (
            select f.proname, f.result, f.proretset, f.pronargs,
                   case f.pronargs when 1 then f.a1
                       when 2 then f.a1 || ', ' || s.t
                       else f.a1 || ', ' || s.t || ', ' || format_type(f.proargtypes[2], null) end as list
            from first f
            cross join lateral (select t from unnest(types) t where f.pronargs > 1
                                union all select '' where f.pronargs = 1) s(t)
        )
        select distinct on (proname, list) * from arguments
    loop
        begin
            execute format('create function {place}.%I(%s) returns %s language plpgsql as %L', one.proname, one.list,
                case when one.result ~ '^any' then 'text' else one.result end,
                format('begin raise exception ''planted function %s was called''; end', one.proname));
        exception when others then null; -- not every type may be a result
        end;
    end loop;
    for one in
        select distinct o.oprname, l as l, r as r
        from (select distinct oprname from pg_operator where oprnamespace = 'pg_catalog'::regnamespace and oprkind = 'b'
              and oprname in ('=', '<>', '<', '>', '<=', '>=', '||', '+', '-', '*', '->', '->>', '#>>', '?', '~', '!~', '~~', '!~~', '@>', '&&')) o,
             unnest(types) l, unnest(types) r
    loop
        begin
            execute format('create function {place}.planted_%s(%s, %s) returns bool language plpgsql as $p$begin raise exception ''planted operator %s was called''; end$p$',
                md5(one.oprname || one.l || one.r), one.l, one.r, replace(one.oprname, '%', '%%'));
            execute format('create operator {place}.%s (leftarg = %s, rightarg = %s, function = {place}.planted_%s)',
                one.oprname, one.l, one.r, md5(one.oprname || one.l || one.r));
        exception when others then null; -- not every name is an operator
        end;
    end loop;
end
$plant$"#,
        names = names.join(", ")
    )
}

/// The binary as a user runs it.
fn pgflume(arguments: &[&str], url: &str, replica: &Target, file: &std::path::Path) -> (i32, String) {
    let Target::File(replica) = replica else { unreachable!() };
    let output = Command::new(env!("CARGO_BIN_EXE_pgflume"))
        .args(arguments)
        .env_clear()
        .envs([("PGMQ_URL", url), ("LIBSQL_URL", replica.to_str().unwrap()), ("WEBHOOK_SIGNATURE", SECRET)])
        .env("SCHEMA_FILE", file)
        .env("SYNC_URL", "http://127.0.0.1:1/sync")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_function_or_operator_is_ever_called() {
    let db = db("planted").await;
    db.sql("create table t (id text primary key, v int, at timestamptz default now())").await;
    db.sql("insert into t select 'k' || i, i from generate_series(1, 50) i").await;
    db.sql("create schema postgres; create schema least; create role least login").await;
    for place in ["public", "postgres", "least"] {
        db.sql(&overloads(place)).await;
    }
    let planted: i64 = db
        .one("select pg_catalog.count(*) from pg_catalog.pg_proc where prosrc like '%planted%'")
        .await
        .parse()
        .unwrap();
    assert!(planted > 10_000, "{planted} planted");
    // The test itself is not to call them either, by PGMQ's functions, which name no schema.
    db.sql("grant usage on schema public, postgres, least to public; set search_path = ''").await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), T).unwrap();
    let home = Home::new(Path::File);
    let run = |arguments: &[&str], url: &str| {
        let (code, text) = pgflume(arguments, url, &home.target(), file.path());
        assert_eq!(code, 0, "{arguments:?}: {text}");
        assert!(!text.contains("planted"), "{arguments:?}: {text}");
    };
    let superuser = db.url();
    let least = db.url().replace("postgres@", "least@");
    for arguments in [&["init", "--stdout"][..], &["setup", "--plan"], &["setup", "--print"], &["setup"], &["setup"]] {
        run(arguments, &superuser);
    }
    db.sql("grant pgflume_worker to least").await;
    let write =
        "update public.t set v = v operator(pg_catalog.+) 1 where id = 'k1'; delete from public.t where id = 'k2';
         insert into public.t values ('k2', 7); insert into public.t values ('x', -1)";
    for url in [&superuser, &least] {
        db.sql(write).await;
        db.sql("delete from public.t where id = 'x'").await;
        db.send(r#"{"v":1,"table":"t","keys":"wrong"}"#).await;
        for arguments in [
            &["sync"][..],
            &["resync"],
            &["verify"],
            &["verify", "--repair"],
            &["verify", "--sample", "50"],
            &["status"],
            &["status", "--json"],
            &["dead", "list"],
            &["dead", "retry", "--all"],
            &["sync"],
            &["dead", "drop", "--all", "--yes"],
        ] {
            run(arguments, url);
        }
        serve(&db, url, &home).await;
    }
    run(&["teardown", "--yes"], &superuser);
    let log = std::fs::read_to_string(cluster().log_file()).unwrap();
    let called: Vec<_> = log.lines().filter(|line| line.contains("ERROR") && line.contains("planted")).collect();
    assert!(called.is_empty(), "{called:?}");
}

/// Every endpoint of a worker that follows, as this login.
async fn serve(db: &Db, url: &str, home: &Home) {
    let server = Server::following(config(url, home.target(), schema(T))).await;
    db.sql("update public.t set v = v operator(pg_catalog.+) 1").await;
    for (method, path) in [
        ("POST", "/sync"),
        ("POST", "/resync"),
        ("GET", "/status"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("POST", "/nuke"),
        ("POST", "/sync"),
    ] {
        let answer = server.call(method, path, Some(SECRET)).await;
        assert!(matches!(answer.status, 200..=202 | 503), "{method} {path}: {} {}", answer.status, answer.body);
        assert!(!answer.body.contains("planted"), "{}", answer.body);
    }
    crate::support::until("all is drained", async || db.queued().await == 0).await;
}

/// A template with `{}` for what is put into it, and without what steers that: its calls are none of Postgres.
fn without_tags(template: &str) -> String {
    let mut text = template.to_owned();
    for (begin, end, instead) in [("{#", "#}", ""), ("{%", "%}", ""), ("{{", "}}", "{}")] {
        while let Some((before, (_, after))) = text.split_once(begin).and_then(|(b, a)| Some((b, a.split_once(end)?))) {
            text = format!("{before}{instead}{after}");
        }
    }
    text
}

/// Every name that is called in our SQL says where it lives: the empty path is one wall, this is the other.
#[test]
fn every_function_of_postgres_is_named_with_its_schema() {
    let root = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // What templates make, too: there stands what is put into them.
    let folders = ["sql", "tests/suite/capture_sql"].map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let special = [
        "coalesce",
        "greatest",
        "least",
        "nullif",
        "exists",
        "extract",
        "substring",
        "position",
        "array",
        "row",
        "in",
        "any",
        "all",
        "values",
        "as",
        "operator",
        "cast",
        "trim",
        "overlay",
        "from",
        "where",
        "and",
        "or",
        "not",
        "with",
        "lateral",
        "then",
        "when",
        "by",
        "over",
        "filter",
        "on",
        "into",
        "using",
        "select",
        "table",
        "key",
        "returns",
        "check",
        "materialized",
        "ordinality",
        "else",
        "part",
        "leaf",
        "below",
        "union",
        "join",
        "conflict",
        "is",
        "char",
        "numeric",
        "varchar",
    ];
    let known = words();
    let mut bare = Vec::new();
    for entry in folders.into_iter().flatten() {
        let path = entry.unwrap().path();
        let text = without_tags(&std::fs::read_to_string(&path).unwrap());
        for line in text.lines().map(|line| line.split("--").next().unwrap()) {
            for (at, _) in line.match_indices('(') {
                let before = &line[..at];
                let word = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap();
                let is_qualified = before[..before.len() - word.len()].ends_with(['.', '}', '%', '\'', '"']);
                // those of an insert, of an alias, or of what `with` names
                let names_columns = before.trim_start().starts_with("insert into")
                    || before.contains(" as ") && before.ends_with(word)
                    || line.trim_end().ends_with(") as (");
                if word.len() > 1 && !is_qualified && !special.contains(&word) && known.contains(word) && !names_columns
                {
                    bare.push(format!("{}: {word}(", path.display()));
                }
            }
        }
    }
    assert!(bare.is_empty(), "{bare:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_somebody_else_made_first_is_not_taken_for_ours() {
    let db = db("squatted").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create role squatter login; grant create on database squatted to squatter").await;
    db.sql("set role squatter; create schema pgflume; create table pgflume.settings (name text primary key, value text not null); grant all on schema pgflume to public; reset role").await;
    let refused = setup(&db, T).await.unwrap_err();
    for needed in ["schema pgflume of squatter", "pgflume.settings of squatter", "owner to"] {
        assert!(refused.contains(needed), "{needed}: {refused}");
    }
    assert_eq!(db.one("select count(*) from pgflume.settings").await, "0");
    // Nor does a worker rely on it.
    let home = Home::new(Path::File);
    let worker = pgflume::sync::Worker::new(config(&db.url(), home.target(), schema(T)));
    let error = worker.drain(std::time::Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(error.contains("schema pgflume of squatter"), "{error}");
    db.sql("drop schema pgflume cascade").await;
    setup(&db, T).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn single_objects_and_roles_of_strangers_are_not_taken_for_ours_either() {
    let db = Db::named("strangers".to_owned(), cluster_of_its_own(), "with_pgmq").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create role guest login").await;
    db.sql("create schema pgflume; grant create, usage on schema pgflume to guest; grant create, usage on schema pgmq to guest").await;
    for (make, drop, named) in [
        ("create table pgflume.kept (id int)", "drop table pgflume.kept", "pgflume.kept of guest"),
        ("create view pgflume.progress as select 1", "drop view pgflume.progress", "pgflume.progress of guest"),
        (
            "create function pgflume.note_loss() returns trigger language plpgsql as 'begin return null; end'",
            "drop function pgflume.note_loss()",
            "note_loss() of guest",
        ),
        (
            "create function pgmq.create(name) returns void language sql as 'select'",
            "drop function pgmq.create(name)",
            "pgmq.\"create\"(name) of guest",
        ),
    ] {
        db.sql(&format!("set role guest; {make}; reset role")).await;
        let refused = setup(&db, T).await.unwrap_err();
        assert!(refused.contains(named), "{make}: {refused}");
        db.sql(drop).await;
    }
    for (make, undo, named) in [
        (
            "create role pgflume_capture login",
            "alter role pgflume_capture nologin",
            "role pgflume_capture, which may do more",
        ),
        (
            "grant pgflume_capture to guest",
            "revoke pgflume_capture from guest",
            "membership of guest in pgflume_capture",
        ),
        (
            "create role pgflume_worker createrole",
            "alter role pgflume_worker nocreaterole",
            "role pgflume_worker, which may do more",
        ),
    ] {
        db.sql(make).await;
        let refused = setup(&db, T).await.unwrap_err();
        assert!(refused.contains(named), "{make}: {refused}");
        db.sql(undo).await;
    }
    db.sql("drop schema pgflume").await;
    setup(&db, T).await.unwrap();
}

/// Whoever may create a trusted extension may add things of its own to it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_has_added_to_an_extension_of_its_own_is_no_extensions() {
    let db = Db::named("extended".to_owned(), cluster_of_its_own(), "with_pgmq").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create role bob login; grant create on database extended to bob").await;
    db.sql("grant create on schema public to bob; set role bob; create extension citext schema public").await;
    db.sql("create schema pgflume; alter extension citext add schema pgflume; reset role").await;
    let refused = setup(&db, T).await.unwrap_err();
    assert!(refused.contains("schema pgflume of bob"), "{refused}");
    db.sql(
        "alter extension citext drop schema pgflume; drop schema pgflume; grant create, usage on schema pgmq to bob",
    )
    .await;
    db.sql("set role bob; create function pgmq.create(name) returns void language sql as 'select'; alter extension citext add function pgmq.create(name); reset role").await;
    let refused = setup(&db, T).await.unwrap_err();
    assert!(refused.contains("(name) of bob"), "{refused}");
    db.sql("alter extension citext drop function pgmq.create(name); drop function pgmq.create(name)").await;
    // A Vault of bob's would be given the secret.
    db.sql("set role bob; create schema vault; create table vault.told (secret text);
         create view vault.decrypted_secrets as select null::uuid as id, null::text as name, null::text as decrypted_secret;
         create function vault.create_secret(text, text) returns uuid language sql as 'insert into vault.told values ($1) returning gen_random_uuid()';
         alter extension citext add view vault.decrypted_secrets; alter extension citext add function vault.create_secret(text, text);
         grant all on schema vault to public; reset role").await;
    let (queue, url) = (QueueName::parse(DEFAULT_QUEUE).unwrap(), PgUrl::parse(&db.url()).unwrap());
    let secret = Some(pgflume::core::secret::Secret::new(SECRET));
    let options = SetupOptions { webhook_signature: secret, ..SetupOptions::default() };
    capture::setup(&url, &schema(T), &queue, &options).await.unwrap();
    assert_eq!(db.one("select count(*) from vault.told").await, "0");
    assert_eq!(db.one("select pgflume.get_libsql_webhook_signature()").await, SECRET);
}

/// A name of a type without its schema is looked up in the caller's temporary schema first.
#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_type_runs_nothing_in_the_event_trigger() {
    let db = Db::named("temporary".to_owned(), cluster_of_its_own(), "with_pgmq").await;
    let evolving = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT"},"evolve":true}}"#;
    db.sql("create table t (id text primary key); create role bob login").await;
    setup(&db, evolving).await.unwrap();
    let bob = PgUrl::parse(&db.url().replace("postgres@", "bob@")).unwrap().connect().await.unwrap();
    bob.batch_execute(
        "create type pg_temp.r as (queue text, name text);
         create function pg_temp.evil(v pg_temp.r) returns boolean language plpgsql as $$ begin
           if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then execute 'alter role bob superuser'; end if; return true; end $$;
         create domain pg_temp.record as pg_temp.r check (pg_temp.evil(value));
         create temp table mine (i int); alter table mine add column j int",
    )
    .await
    .unwrap();
    assert_eq!(db.one("select rolsuper from pg_roles where rolname = 'bob'").await, "false");
}

/// Each type in a function that we make says where it lives.
#[test]
fn every_declared_type_is_named_with_its_schema_or_by_the_grammar() {
    let grammar = [
        "boolean", "bool", "integer", "int", "bigint", "constant", "declare", "begin", "end", "return", "return;",
        "loop", "exit",
    ];
    for entry in std::fs::read_dir(std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sql")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut inside = false;
        for line in text.lines().map(|line| line.split("--").next().unwrap().trim()) {
            match line {
                "declare" => inside = true,
                "begin" => inside = false,
                _ if inside && !line.is_empty() && !line.starts_with("<<") => {
                    let words: Vec<&str> =
                        line.split([' ', ';', '[']).filter(|w| !w.is_empty() && *w != "constant").collect();
                    // A continued line has no name and type of its own.
                    let Some(kind) = words.get(1).filter(|_| line.starts_with(|c: char| c.is_ascii_lowercase())) else {
                        continue;
                    };
                    let is_declared = line.ends_with(';') || line.contains(":=");
                    assert!(
                        !is_declared
                            || line.starts_with("join ")
                            || kind.starts_with("pg_catalog.")
                            || grammar.contains(kind),
                        "{}: {line}",
                        path.display()
                    );
                }
                _ => {}
            }
        }
        for (at, _) in text.match_indices("::") {
            let cast: String =
                text[at + 2..].chars().take_while(|c| c.is_ascii_alphanumeric() || "_.%{".contains(*c)).collect();
            let known = ["bigint", "boolean", "integer", "int", "interval", "real", "smallint"];
            let is_known =
                cast.starts_with("pg_catalog.") || cast.starts_with(['%', '{']) || known.contains(&cast.as_str());
            assert!(is_known, "{}: ::{cast}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_a_stranger_made_first_is_not_taken_for_ours() {
    let db = Db::named("queued_by_others".to_owned(), cluster_of_its_own(), "with_pgmq").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create role bob login; select pgmq.drop_queue('replicate_data_libsql')").await;
    db.sql("grant create, usage on schema pgmq to bob; grant all on all tables in schema pgmq to bob; create schema bobs authorization bob; grant usage on schema bobs to public").await;
    db.sql("set role bob; select pgmq.create('replicate_data_libsql');
         create function bobs.evil(jsonb) returns bool language plpgsql as 'begin raise exception ''ran as %'', current_user; end';
         alter table pgmq.q_replicate_data_libsql add constraint c check (bobs.evil(message)); reset role").await;
    let refused = setup(&db, T).await.unwrap_err();
    assert!(refused.contains("belongs to bob"), "{refused}");
    // Nor does a worker without set-up write to it.
    let home = Home::new(Path::File);
    let worker = pgflume::sync::Worker::new(config(&db.url(), home.target(), schema(T)));
    let error = worker.drain(std::time::Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(error.contains("constraint c") && error.contains("of bob"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pgmq_that_setup_installs_is_given_to_nobody_by_default_privileges() {
    let db = Db::named("generous_with_pgmq".to_owned(), cluster_of_its_own(), "template1").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create role nob login").await;
    for what in ["tables", "sequences", "functions", "schemas"] {
        db.sql(&format!("alter default privileges grant all on {what} to nob, public")).await;
    }
    setup(&db, T).await.unwrap();
    let given = "select count(*) from (
            select c.relacl from pg_class c where c.relnamespace = 'pgmq'::regnamespace
            union all select p.proacl from pg_proc p where p.pronamespace = 'pgmq'::regnamespace
            union all select n.nspacl from pg_namespace n where n.nspname = 'pgmq') o(acl), aclexplode(o.acl) a
         where a.grantee = 'nob'::regrole";
    assert_eq!(db.one(given).await, "0");
    assert_eq!(db.one("select has_schema_privilege('nob', 'pgmq', 'usage')").await, "false");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teardown_drops_nothing_that_somebody_gave_to_its_roles() {
    let db = Db::named("given_away".to_owned(), cluster_of_its_own(), "with_pgmq").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create table precious (id int)").await;
    setup(&db, T).await.unwrap();
    db.sql("alter table precious owner to pgflume_worker").await;
    let url = PgUrl::parse(&db.url()).unwrap();
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    let report = capture::teardown(&url, &queue, capture::TeardownOptions::default()).await.unwrap();
    assert_eq!(db.one("select count(*) from precious").await, "0");
    assert!(report.to_string().contains("the role pgflume_worker"), "{report}");
}

/// A rule or a trigger on what the worker writes would run as the worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_trigger_on_the_queue_stops_the_worker_before_it_runs() {
    let db = db("on_the_queue").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create role sender login").await;
    setup(&db, T).await.unwrap();
    let home = Home::new(Path::File);
    let worker = pgflume::sync::Worker::new(config(&db.url(), home.target(), schema(T))).keeping_its_connection();
    worker.drain(std::time::Duration::from_secs(25)).await.unwrap();
    db.sql("create schema senders authorization sender; set role sender;
         create function senders.evil() returns trigger language plpgsql as 'begin raise exception ''ran as %'', current_user; end'; reset role;
         create trigger evil after delete on pgmq.q_replicate_data_libsql for each row execute function senders.evil()").await;
    db.sql("insert into t values ('a', 1)").await;
    let error = worker.drain(std::time::Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(error.contains("trigger evil") && error.contains("of sender"), "{error}");
    assert!(!error.contains("ran as"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn default_privileges_give_nobody_a_right_to_what_is_ours() {
    let db = db("generous").await;
    db.sql("create table t (id text primary key, v int, at timestamptz); create role nob login; do $$ begin create role pgflume_worker; exception when duplicate_object then null; end $$").await;
    for what in ["tables", "sequences", "functions", "schemas", "types"] {
        db.sql(&format!("alter default privileges grant all on {what} to nob, public, pgflume_worker")).await;
    }
    setup(&db, T).await.unwrap();
    let given = "select count(*) from (
            select c.relacl from pg_class c where c.relnamespace = 'pgflume'::regnamespace
            union all select p.proacl from pg_proc p where p.pronamespace = 'pgflume'::regnamespace
            union all select n.nspacl from pg_namespace n where n.nspname = 'pgflume') o(acl), aclexplode(o.acl) a
         where a.grantee in (0, 'nob'::regrole)";
    assert_eq!(db.one(given).await, "0");
    for denied in [
        "select pgflume.get_libsql_webhook_signature()",
        "select * from pgflume.settings",
        "select * from pgflume.progress",
    ] {
        let client = PgUrl::parse(&db.url().replace("postgres@", "nob@")).unwrap().connect().await.unwrap();
        let error = client.batch_execute(denied).await.unwrap_err();
        assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{denied}");
    }
    for secret in ["pgflume.settings", "pgflume.setups"] {
        assert_eq!(
            db.one(&format!("select has_table_privilege('pgflume_worker', '{secret}', 'select')")).await,
            "false"
        );
    }
    assert_eq!(db.one("select has_table_privilege('pgflume_worker', 'pgflume.progress', 'delete')").await, "false");
    db.sql("alter default privileges revoke all on tables from nob, public, pgflume_worker").await;
}

/// Numbers of advisory locks are anybody's; a lock on a table of ours is not.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_take_the_lock_of_an_installation() {
    let db = db("lock_of_setup").await;
    db.sql("create table t (id text primary key, v int, at timestamptz)").await;
    db.sql("select pg_advisory_lock(hashtext('pgflume setup')), pg_advisory_lock(7352891046612)").await;
    setup(&db, T).await.unwrap();
    db.sql("create role locker login").await;
    let client = PgUrl::parse(&db.url().replace("postgres@", "locker@")).unwrap().connect().await.unwrap();
    let error = client.batch_execute("begin; lock table pgflume.setups in access share mode").await.unwrap_err();
    assert_eq!(error.code().map(|c| c.code()), Some("42501"));
}
