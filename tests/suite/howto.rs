//! The how-to pages: what each has a reader run is read from the page, in its order, and run here.

use crate::parts::{Sqld, SqldOptions};
use crate::pulls;
use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, schema};
use pgflume::demo::postgres::{Cluster, ClusterOptions, free_port};
use pgflume::postgres::PgUrl;
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use tokio_postgres::Client;

/// What stands under a heading of a page, up to the next of its rank or above.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let rank = heading.split(' ').next().unwrap();
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let ends = (1..=rank.len()).filter_map(|n| rest.find(&format!("\n{} ", "#".repeat(n))));
    &rest[..ends.min().unwrap_or(rest.len())]
}

/// The fenced blocks: language and text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("\n```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).collect()
}

/// Those of one language.
fn all<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    blocks(page).into_iter().filter(|(named, _)| *named == language).map(|(_, text)| text).collect()
}

/// A folder in which a page's commands are run, with the variables of a worker.
struct Folder {
    directory: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Folder {
    fn new(variables: &[(&'static str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { directory: tempfile::tempdir().unwrap(), variables }
    }

    fn of(rig: &Rig) -> Self {
        let Target::File(replica) = rig.home.target() else { panic!("a file") };
        Self::new(&[("PGMQ_URL", &rig.db.url()), ("LIBSQL_URL", replica.to_str().unwrap())])
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn output(&self, script: &str) -> Output {
        let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_pgflume")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("/bin/sh");
        command.args(["-e", "-x", "-c", script]).current_dir(self.directory.path()).env_clear();
        command.env("PATH", path).env("PORT", "0").env("WEBHOOK_SIGNATURE", SECRET);
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).output().unwrap()
    }

    /// What a script says that ends well.
    fn said(&self, script: &str) -> String {
        let done = self.output(script);
        assert!(done.status.success(), "{script}: {done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// A replica in the folder.
    async fn rows(&self, replica: &str, sql: &str) -> Vec<String> {
        let replica = Replica::open(&Target::File(self.directory.path().join(replica))).await.unwrap();
        let rows = replica.query(sql, vec![]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows.iter().map(|row| row.iter().map(crate::store::show).collect::<Vec<_>>().join("|")).collect()
    }
}

const ORDERS: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const SHOP: &str =
    "create table orders (id int primary key, v text); insert into orders select i, 'v' from generate_series(1, 20) i";

#[tokio::test(flavor = "multi_thread")]
async fn several_replicas_have_a_queue_each_as_the_page_says() {
    let page = section(include_str!("../../docs/several-replicas.md"), "## A queue for each");
    let db = Db::new().await;
    db.sql(SHOP).await;
    let folder = Folder::new(&[("PGMQ_URL", &db.url())]);
    folder.write("schema.json", ORDERS);
    folder.write("pgflume.json", all(page, "json")[0]);
    let scripts = all(page, "sh");
    let said = folder.said(scripts[0]);
    assert_eq!(said.matches("20 rows compared").count(), 2, "{said}");
    db.sql("update orders set v = 'new' where id = 1").await;
    let said = folder.said(scripts[1]);
    assert!(said.contains("eu") && said.contains("us"), "{said}");
    // One call drains both, as the page says of the cron job.
    let port = free_port().unwrap();
    let call = format!(
        "curl -s --retry 20 --retry-connrefused --retry-delay 1 -X POST -H \"x-webhook-signature: $WEBHOOK_SIGNATURE\" http://127.0.0.1:{port}/sync"
    );
    let said = folder.said(&format!("PORT={port} pgflume service start --daemon; {call}; pgflume service stop"));
    assert!(said.contains("\"eu\"") && said.contains("\"us\"") && !said.contains("error"), "{said}");
    for replica in ["eu.db", "us.db"] {
        assert_eq!(folder.rows(replica, "SELECT v FROM orders WHERE id = 1").await, ["new"]);
    }
    // What is said of one that is taken away, and of two queues for one replica.
    let teardown = page.split('`').find(|code| code.starts_with("QUEUE_NAME=")).unwrap();
    folder.said(&format!("{teardown} --yes"));
    db.sql("update orders set v = 'newer' where id = 1").await;
    assert_eq!(
        db.all("select queue_name from pgmq.list_queues() order by 1")
            .await
            .iter()
            .filter(|q| q.starts_with("shop"))
            .collect::<Vec<_>>(),
        ["shop_eu", "shop_eu_dead"]
    );
    folder.said("pgflume sync eu; pgflume verify --sync eu");
    folder.write("pgflume.json", &all(page, "json")[0].replace("us.db", "eu.db"));
    let refused = folder.output("pgflume sync");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("one queue a replica"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_replica_is_compared_as_the_page_says() {
    let page = section(include_str!("../../docs/several-replicas.md"), "## Read replicas of a libSQL server");
    let primary = Sqld::start(SqldOptions::default());
    let copy = primary.start_replica();
    let (url, token) = (primary.url(), primary.token_rw());
    let rig = Rig::with(Db::new().await, Home::Sqld(Box::new(primary)), schema(ORDERS));
    rig.db.sql(SHOP).await;
    let folder = Folder::new(&[("PGMQ_URL", &rig.db.url()), ("LIBSQL_URL", &url), ("LIBSQL_AUTH_TOKEN", &token)]);
    folder.write("schema.json", ORDERS);
    folder.said("pgflume setup; pgflume sync");
    let script = all(page, "sh")[0].replace("https://read-replica.example", &copy.url());
    crate::support::until("the copy has the tables", async || {
        let done = folder.output(&script);
        done.status.success() && String::from_utf8_lossy(&done.stdout).contains("20 rows compared")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_replicas_are_pulled_as_the_page_says() {
    let page = section(include_str!("../../docs/several-replicas.md"), "## A sync that pulls for each");
    let rig = pulls::Rig::new(Path::File, SHOP, ORDERS).await;
    let folder = Folder::new(&[]);
    let said = folder.said(&all(page, "sh")[0].replace("postgres://reader@db.example/shop", &rig.reader_url()));
    assert_eq!(said.matches("20 rows compared").count(), 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_as_the_page_says() {
    let page = include_str!("../../docs/partitions.md");
    let rig = Rig::new(Path::File, schema(all(page, "json")[0])).await;
    let folder = Folder::of(&rig);
    let mut verified = Vec::new();
    for (language, text) in blocks(page) {
        match language {
            "sql" => {
                for statement in text.split(";\n") {
                    rig.db.sql(statement).await;
                }
            }
            "sh" => {
                let said = folder.said(text);
                verified.extend(said.lines().filter(|line| line.contains("compared")).map(str::to_owned));
            }
            _ => {
                let written = std::fs::read_to_string(folder.directory.path().join("schema.json")).unwrap();
                assert_eq!(*schema(&written), *schema(text), "what init writes");
            }
        }
    }
    assert!(verified.len() == 2 && verified[0].contains("2 rows") && verified[1].contains("3 rows"), "{verified:?}");
    assert_eq!(rig.rows("SELECT id FROM events ORDER BY id").await, ["2", "3", "4"]);
    // What is said of a part beside the whole.
    rig.db.sql("insert into events values (5, '2026-06-01', 'e')").await;
    let both = all(page, "json")[0].replacen("{ \"events\":", "{ \"events_2025\": { \"primaryKey\": [\"id\", \"day\"], \"columns\": { \"id\": \"INTEGER\", \"day\": \"TEXT\" } }, \"events\":", 1);
    folder.write("schema.json", &both);
    let refused = folder.output("pgflume setup");
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("keep one of them"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_replica_is_found_out_about_as_the_page_says() {
    let page = include_str!("../../docs/staleness.md");
    let rig = Rig::new(Path::File, schema(ORDERS)).await;
    rig.db.sql(SHOP).await;
    let folder = Folder::of(&rig);
    folder.write("schema.json", ORDERS);
    folder.said("pgflume setup; pgflume sync");
    let fresh = all(page, "sql")[0].trim().trim_end_matches(';');
    let asked = async || rig.replica(fresh).await.swap_remove(0).iter().map(crate::store::show).collect::<Vec<_>>();
    assert_eq!(asked().await[2..], ["0", "NULL"]);
    rig.db.sql("alter table orders rename v to w; update orders set w = 'x'").await;
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    server.sync().await;
    let row = asked().await;
    assert!(row[2] != "0" && row[3].starts_with("orders: "), "{row:?}");
    let scripts = all(page, "sh");
    let ready = folder.said(&scripts[0].replace("http://127.0.0.1:3000", &server.address));
    let codes = |text: &str| {
        text.split(['"', ' ']).filter(|word| word.starts_with("PF-")).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let found = codes(&ready);
    assert!(found.contains("PF-003") && found.contains("PF-007"), "{ready}");
    let said = folder.said(scripts[1]);
    assert!(said.contains("orders") && said.contains("PF-103"), "{said}");
    folder.said(scripts[2]);
    // Each code that the page names is one that there is, and each of `/ready` is on it.
    let named: BTreeSet<&str> = page.split("[PF-").skip(1).filter_map(|rest| rest.get(..3)).collect();
    let known: BTreeSet<&str> = pgflume::core::codes::ALL.iter().map(|code| &code.code[3..]).collect();
    assert!(named.is_subset(&known), "{named:?}");
    assert!(known.iter().filter(|code| code.starts_with("00")).all(|code| named.contains(code)), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_rehearsed_as_the_page_says() {
    let page = section(include_str!("../../docs/dead-letters.md"), "## Try it");
    let rig = Rig::new(Path::File, schema(ORDERS)).await;
    rig.db.sql(SHOP).await;
    let folder = Folder::of(&rig);
    folder.write("schema.json", ORDERS);
    folder.said("pgflume setup; pgflume sync");
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    rig.db.sql(all(page, "sql")[0]).await;
    // The log is beside it.
    for (script, shown) in all(page, "sh").into_iter().zip(all(page, "text")) {
        let said = folder.said(script);
        let said: Vec<_> = said.lines().filter(|line| !line.contains(" INFO ") && !line.contains(" WARN ")).collect();
        let shown: Vec<_> = shown.trim().lines().collect();
        let is_shown = |said: &str, shown: &str| match shown.split_once('…') {
            Some((begin, end)) => said.starts_with(begin) && said.ends_with(end),
            None => said == shown,
        };
        assert_eq!(said.len(), shown.len(), "{said:?}");
        assert!(said.iter().zip(&shown).all(|(said, shown)| is_shown(said, shown)), "{said:?} {shown:?}");
        let doctor = folder.output("pgflume doctor");
        let waits = String::from_utf8_lossy(&doctor.stdout).contains("PF-134");
        assert_eq!(waits, script.contains("pgflume sync"), "{doctor:?}");
        assert!(!waits || doctor.status.code() == Some(4), "{doctor:?}");
        assert_eq!(server.call("GET", "/ready", None).await.status, 200);
    }
    assert_eq!(rig.rows("SELECT count(*) FROM orders WHERE v = 'v'").await, ["20"], "no row was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_cron_is_set_up_as_the_page_says() {
    let page = section(include_str!("../../docs/deploying.md"), "## pg_cron on a server of your own");
    let indented = |language: &str| {
        let rest = page.split_once(&format!("```{language}\n")).unwrap().1;
        rest.split_once("```").unwrap().0.trim()
    };
    let setting = |line: &str| {
        let (name, value) = line.trim().split_once(" = ").unwrap();
        (name.to_owned(), value.trim_matches('\'').to_owned())
    };
    let settings = indented("ini").lines().map(setting).chain([("fsync".to_owned(), "off".to_owned())]).collect();
    let cluster = Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap();
    let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
    admin.batch_execute("create database shop").await.unwrap();
    let client = PgUrl::parse(&cluster.url("shop")).unwrap().connect().await.unwrap();
    client.batch_execute(SHOP).await.unwrap();
    client.batch_execute(indented("sql")).await.unwrap();
    let folder = Folder::new(&[("PGMQ_URL", &cluster.url("shop")), ("LIBSQL_URL", "file:replica.db")]);
    folder.write("schema.json", ORDERS);
    folder.said("SYNC_URL=http://127.0.0.1:1/sync pgflume setup; pgflume sync");
    let jobs =
        "select count(*) from cron.job where active and jobname = 'process_libsql_replication' and database = 'shop'";
    assert_eq!(client.query_one(jobs, &[]).await.unwrap().get::<_, i64>(0), 1);
    let doctor = folder.output("pgflume doctor");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.contains("PF-124") && !said.contains("PF-120"), "{said}");
    // README's installing role, as doctor's page says: a superuser, which is no fault of the setup.
    assert!(doctor.status.code() == Some(4) && said.contains("PF-107"), "{said}");
}

/// A database that has whatever `setup` reacts to: partitions, a table that follows, Vault, pg_cron.
const EVERYTHING: &str = "
    create schema vault; create table vault.secrets (id serial, name text unique, secret text);
    create view vault.decrypted_secrets as select id, name, secret as decrypted_secret from vault.secrets;
    create function vault.create_secret(new_secret text, new_name text default null) returns int language sql as 'insert into vault.secrets (name, secret) values ($2, $1) returning id';
    create function vault.update_secret(secret_id int, new_secret text) returns void language sql as 'update vault.secrets set secret = $2 where id = $1';
    create table orders (id int primary key, v text); insert into orders values (1, 'x');
    create schema crm; create function crm.is_shown(v text) returns bool immutable language sql as 'select v is not null'; revoke all on function crm.is_shown(text) from public;
    create table crm.people (id int primary key, v text); insert into crm.people values (1, 'x');
    create table events (id int, r int, primary key (id, r)) partition by list (r);
    create table events_1 partition of events for values in (1)";

const EVERYTHING_JSON: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"evolve":true},
    "people":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"source":"crm.people","where":"crm.is_shown(v)"},
    "events":{"primaryKey":["id","r"],"columns":{"id":"INTEGER","r":"INTEGER"}}}"#;

/// Every object, right and setting of the database and of the cluster, one a line.
async fn catalog(client: &Client) -> Vec<String> {
    let sql = "
        with n as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'),
        acl as (select what, (select string_agg(a::text, ' ' order by a::text) from aclexplode(acl) a) as rights from (
            select 'schema ' || nspname as what, coalesce(nspacl, acldefault('n', nspowner)) as acl from pg_namespace where nspname !~ '^pg_(toast_)?temp'
            union all select 'relation ' || c.oid::regclass || ' ' || relkind::text || ' ' || relpersistence::text || ' ' || relrowsecurity || ' ' || coalesce(reloptions::text, ''),
                coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::\"char\", relowner)) from pg_class c where relnamespace in (select oid from n)
            union all select 'column ' || attrelid::regclass || '.' || attname || ' ' || atttypid::regtype, attacl from pg_attribute a join pg_class c on c.oid = attrelid where relnamespace in (select oid from n) and attnum > 0
            union all select 'function ' || p.oid::regprocedure, coalesce(proacl, acldefault('f', proowner)) from pg_proc p where pronamespace in (select oid from n)
            union all select 'database ' || datname, coalesce(datacl, acldefault('d', datdba)) from pg_database
            union all select 'language ' || lanname, coalesce(lanacl, acldefault('l', lanowner)) from pg_language
            union all select 'default ' || defaclrole::regrole || defaclobjtype::text || defaclnamespace::text, defaclacl from pg_default_acl) o)
        select what || ' ' || coalesce(rights, '') from acl
        union all select 'type ' || t.oid::regtype from pg_type t where typnamespace in (select oid from n)
        union all select 'trigger ' || tgname || ' on ' || tgrelid::regclass || ' ' || tgenabled::text from pg_trigger
        union all select 'event trigger ' || evtname from pg_event_trigger
        union all select 'policy ' || polname from pg_policy
        union all select 'rule ' || rulename from pg_rewrite r join pg_class c on c.oid = r.ev_class where relnamespace in (select oid from n)
        union all select 'constraint ' || conname || ' on ' || conrelid::regclass from pg_constraint where connamespace in (select oid from n)
        union all select 'extension ' || extname from pg_extension
        union all select 'role ' || rolname || ' ' || rolcanlogin::text || rolsuper::text || rolinherit::text || rolbypassrls::text from pg_roles
        union all select 'member ' || roleid::regrole || ' ' || member::regrole from pg_auth_members
        union all select 'setting ' || setdatabase::text || setrole::text || setconfig::text from pg_db_role_setting
        union all select 'comment ' || classoid::regclass || ' ' || description from pg_description d join n on n.oid = d.objoid
        union all select 'secret ' || name from vault.secrets
        order by 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Jobs of pg_cron and queues of PGMQ, where there are these.
async fn jobs_and_queues(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for (table, sql) in [
        ("cron.job", "select 'job ' || jobname from cron.job"),
        ("pgmq.meta", "select 'queue ' || queue_name from pgmq.meta"),
    ] {
        let is_there: bool =
            client.query_one("select to_regclass($1::text) is not null", &[&table]).await.unwrap().get(0);
        if is_there {
            all.extend(client.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
        }
    }
    all
}

/// Roles, jobs and extensions belong to a whole cluster, so each has its own: one in which PGMQ and pg_cron come with
/// `setup`, and one that had both, with a queue and a job of others.
#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_leaves_postgres_as_it_was_as_the_page_says() {
    for had_both in [false, true] {
        uninstalled(had_both).await;
    }
}

async fn uninstalled(had_both: bool) {
    let page = include_str!("../../docs/uninstall.md");
    let settings = [("fsync", "off"), ("shared_preload_libraries", "pg_cron"), ("cron.database_name", "shop")];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let cluster = Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap();
    let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
    admin.batch_execute("create database shop").await.unwrap();
    let client = PgUrl::parse(&cluster.url("shop")).unwrap().connect().await.unwrap();
    client.batch_execute(EVERYTHING).await.unwrap();
    if had_both {
        client.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
        client.batch_execute("select pgmq.create('others'); create extension pg_cron; select cron.schedule('others', '0 0 1 1 *', 'select 1')").await.unwrap();
    }
    let state =
        async || [catalog(&client).await, jobs_and_queues(&client).await].concat().into_iter().collect::<BTreeSet<_>>();
    let before = state().await;

    let variables =
        [("PGMQ_URL", &*cluster.url("shop")), ("LIBSQL_URL", "replica.db"), ("SYNC_URL", "http://127.0.0.1:1/sync")];
    let folder = Folder::new(&variables);
    folder.write("schema.json", EVERYTHING_JSON);
    folder.said("pgflume setup");
    client
        .batch_execute("create role flume login; grant pgflume_worker to flume; update orders set v = 'y'")
        .await
        .unwrap();
    folder.said("pgflume sync; pgflume verify");
    let installed = state().await;
    let made = [
        "extension pg_cron",
        "schema pgmq",
        "event trigger pgflume_altered_tables",
        "secret libsql_webhook_signature",
        "secret libsql_sync_url",
        "role pgflume_worker",
        "member pgflume_worker flume",
        "job process_libsql_replication",
        "queue replicate_data_libsql",
        "trigger pgflume_replicate_data_libsql_row on events_1",
    ];
    for made in made {
        assert!(installed.iter().any(|line| line.starts_with(made)), "{made}: {installed:#?}");
    }

    folder.said(all(section(page, "## Teardown"), "sh")[0]);
    // What belongs to others is left alone, as the page says.
    let is_others = |sql: &str| had_both && (sql.contains("pgmq") || sql.contains("pg_cron"));
    for sql in all(section(page, "## What teardown leaves"), "sql").into_iter().filter(|sql| !is_others(sql)) {
        client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    let after = state().await;
    let differing: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    client
        .batch_execute("insert into orders values (2, 'z'); insert into events values (1, 1); truncate events")
        .await
        .unwrap();

    // The replica: its tables stay, and nothing else does.
    let sql = all(section(page, "## The replica"), "sql")[0];
    for statement in sql.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        folder.rows("replica.db", statement).await;
    }
    let left = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND type <> 'index' ORDER BY name";
    assert_eq!(folder.rows("replica.db", left).await, ["events", "orders", "people"]);
    assert_eq!(folder.rows("replica.db", "SELECT v FROM orders").await, ["y"]);
}

/// What the page drops is all that there is of bookkeeping, of queues and of syncs that pull.
#[tokio::test(flavor = "multi_thread")]
async fn the_replicas_bookkeeping_goes_whole() {
    let sql = all(section(include_str!("../../docs/uninstall.md"), "## The replica"), "sql")[0];
    let dropped: BTreeSet<_> =
        sql.lines().filter_map(|line| line.trim_end_matches(';').rsplit(' ').next()).map(str::to_owned).collect();
    assert_eq!(dropped, crate::tables_page::bookkeeping().await.into_iter().collect());
}

/// Each path that an installation makes is named where it is taken away.
#[test]
fn whatever_the_installation_by_systemd_puts_somewhere_is_on_the_page() {
    let page = section(include_str!("../../docs/uninstall.md"), "## The machine");
    let install = include_str!("../../docs/deploy-systemd.md");
    let is_path =
        |word: &str| ["/etc/", "/usr/", "/var/"].iter().any(|root| word.starts_with(root)) && word.contains("pgflume");
    let words = all(install, "sh").concat();
    let paths: BTreeSet<&str> =
        words.split(|c: char| c.is_whitespace() || "'\"=:>".contains(c)).filter(|word| is_path(word)).collect();
    assert!(paths.len() > 4, "{paths:?}");
    let unnamed = paths.iter().filter(|path| !page.split('`').any(|named| path.starts_with(named) && is_path(named)));
    assert_eq!(unnamed.collect::<Vec<_>>(), [&""; 0]);
}
