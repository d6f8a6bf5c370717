//! docs/take-over-from-capgo.md, command by command, with the built binary: a database with the keys, types, triggers,
//! functions, rights and cron job of Capgo's, and a replica as its worker leaves it.

use crate::parts::http::{Answer, get_status, request};
use crate::parts::process::Process;
use crate::store::show;
use crate::support::{Home, Path, SECRET, schema};
use pgflume::demo::postgres::{Cluster, ClusterOptions, free_port};
use pgflume::postgres::PgUrl;
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::Client;

/// What Capgo's migrations leave, as far as the take-over meets it.
const DATABASE: &str = include_str!("takeover/database.sql");
/// What its worker leaves in libSQL.
const REPLICA: &str = include_str!("takeover/replica.sql");

/// Everything that takes part.
struct Scene {
    cluster: Cluster,
    client: Client,
    home: Home,
    directory: TempDir,
}

impl Scene {
    async fn new(path: Path) -> Self {
        let settings = [("fsync", "off"), ("shared_preload_libraries", "pg_cron"), ("cron.database_name", "postgres")];
        let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let cluster = Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap();
        let client = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
        client.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
        client.batch_execute(&DATABASE.replace("{{secret}}", SECRET)).await.unwrap_or_else(|e| panic!("{e:?}"));
        let scene = Self { cluster, client, home: Home::new(path), directory: tempfile::tempdir().unwrap() };
        for statement in REPLICA.split(';').filter(|s| !s.trim().is_empty()) {
            scene.rows(statement).await;
        }
        scene
    }

    /// The environment of the old worker, and a working folder with the repository's `schema.json`.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        std::fs::write(self.directory.path().join("schema.json"), include_str!("../../schema.json")).unwrap();
        command.args(arguments).env_clear().current_dir(self.directory.path());
        command.env("PGMQ_URL", self.cluster.url("postgres")).env("WEBHOOK_SIGNATURE", SECRET);
        match self.home.target() {
            Target::File(path) => command.env("LIBSQL_URL", path),
            Target::Remote { url, token } => {
                command.env("LIBSQL_URL", url).env("LIBSQL_AUTH_TOKEN", token.unwrap().expose())
            }
            Target::Given(_) => unreachable!(),
        };
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// What a command that has to succeed says on both channels.
    async fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let said = said(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// Stage 1: the worker in the place of the old one, called once.
    async fn first_call(&self) -> (Answer, String) {
        let port = free_port().unwrap();
        let mut command = self.command(&["serve"]);
        command.env("PORT", port.to_string());
        let log = self.directory.path().join(format!("serve-{port}.log"));
        let address = format!("http://127.0.0.1:{port}");
        let call = move || {
            let mut server = Process::spawn(&mut command, &log, None);
            server.wait_until("the worker answers", || get_status(&format!("{address}/health")) == Some(200));
            let header = vec![("x-webhook-signature".to_owned(), SECRET.to_owned())];
            let answer = request("POST", &format!("{address}/sync"), &header, &[], Duration::from_secs(60)).unwrap();
            drop(server);
            (answer, std::fs::read_to_string(log).unwrap())
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        let replica = Replica::open(&self.home.target()).await.unwrap();
        let rows = replica.query(sql, vec![]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join("|")).collect()
    }

    async fn one(&self, sql: &str) -> String {
        let row = self.client.query_one(&format!("select x::text from ({sql}) q(x)"), &[]).await;
        row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Whether these may call the two functions that give the address and the secret away.
    async fn exposed(&self) -> String {
        let functions = "values ('public.get_libsql_sync_url()'), ('public.get_libsql_webhook_signature()')";
        self.one(&format!(
            "select string_agg(r || ' ' || has_function_privilege(r, f, 'execute'), ', ' order by r, f)
             from ({functions}) functions(f), unnest(array['anon', 'authenticated', 'service_role']) r"
        ))
        .await
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const TABLES: [&str; 7] = ["app_versions", "apps", "channel_devices", "channels", "manifest", "orgs", "stripe_info"];

#[tokio::test(flavor = "multi_thread")]
async fn both_stages_go_through_on_the_database_and_the_replica_of_the_original() {
    for path in [Path::File, Path::Sqld] {
        let scene = Scene::new(path).await;
        let declared =
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name IN ('apps', 'stripe_info') ORDER BY 1";
        let before = scene.rows(declared).await;
        scene.client.batch_execute("update public.apps set name = 'Renamed' where app_id = 'com.a'; delete from public.apps where app_id = 'com.gone'").await.unwrap();

        let (answer, log) = scene.first_call().await;
        assert_eq!((answer.status, &answer.json()["queued"]), (200, &0.into()), "{path:?}: {} {log}", answer.body);
        assert_eq!(answer.json()["dead"], 0, "{path:?}: {}\n{log}", answer.body);
        for (table, key) in [("apps", "app_id"), ("stripe_info", "customer_id")] {
            let line = log.lines().find(|l| l.contains("made a unique index") && l.contains(table));
            assert!(
                line.is_some_and(|l| l.contains(key) && l.contains(&format!("_pgflume_key_{table}"))),
                "{path:?}: {log}"
            );
        }
        assert_eq!(scene.rows(declared).await, before, "{path:?}: no table was rebuilt");
        assert_eq!(scene.rows("SELECT name FROM apps WHERE app_id = 'com.a'").await, ["Renamed"], "{path:?}");
        assert_eq!(scene.rows("SELECT count(*) FROM apps WHERE app_id = 'com.gone'").await, ["0"], "{path:?}");
        let again = scene.first_call().await.1;
        assert!(!again.contains("made a unique index"), "{path:?}: made once\n{again}");

        // Stage 2, with writes on the way.
        let script = scene.done(&["setup", "--take-over", "--print"]).await;
        assert!(script.contains("get_libsql_webhook_signature"), "{script}");
        assert!(scene.exposed().await.contains("anon true"), "--print changes nothing");
        scene
            .client
            .batch_execute("insert into public.channels (name, app_id, version) values ('between', 'com.a', 1)")
            .await
            .unwrap();
        let report = scene.done(&["setup", "--take-over"]).await;
        for said in ["anon", "public.get_libsql_sync_url()", "public.get_libsql_webhook_signature()"] {
            assert!(report.contains(said), "{said}: {report}");
        }
        assert_eq!(scene.one("select count(*) from pg_trigger where tgname like 'replicate%'").await, "0");
        let job = "select command from cron.job where jobname = 'process_libsql_replication'";
        assert_eq!(scene.one(job).await, "select pgflume.process_libsql_replication_batch()");
        let none =
            "anon false, anon false, authenticated false, authenticated false, service_role true, service_role true";
        assert_eq!(scene.exposed().await, none, "{path:?}");
        scene
            .client
            .batch_execute(
                "update public.apps set id = null where app_id = 'com.b';
            update public.stripe_info set customer_id = 'cus_moved' where customer_id = 'cus_2'",
            )
            .await
            .unwrap();

        scene.done(&["sync"]).await;
        let verified = scene.done(&["verify"]).await;
        for table in TABLES {
            assert!(verified.contains(table), "{path:?}: {verified}");
        }
        assert_eq!(scene.one("select count(*) from pgmq.q_replicate_data_libsql_dead").await, "0", "{path:?}");
        assert_eq!(scene.rows(declared).await, before, "{path:?}: no table was rebuilt");
        let apps = "SELECT app_id, coalesce(id, 'no id'), retention FROM apps ORDER BY app_id";
        let expected = [
            "com.a|00000000-0000-0000-0000-00000000000a|9007199254740993",
            "com.b|no id|2592000",
            "com.c|no id|2592000",
        ];
        assert_eq!(scene.rows(apps).await, expected, "{path:?}");
        assert_eq!(
            scene.rows("SELECT id, customer_id, status FROM stripe_info ORDER BY id").await,
            ["1|cus_1|succeeded", "22|cus_moved|canceled"],
            "{path:?}"
        );
        let again = scene.done(&["setup", "--take-over"]).await;
        assert!(!again.contains("no right of"), "{path:?}: {again}");
        assert_eq!(scene.rows(declared).await, before, "{path:?}: nor by setup");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_functions_rights_stay_where_that_is_asked_for_and_are_said() {
    let scene = Scene::new(Path::File).await;
    let before = scene.exposed().await;
    let report = scene.done(&["setup", "--take-over", "--keep-grants"]).await;
    assert_eq!(scene.exposed().await, before);
    let line = "anon, authenticated may execute public.get_libsql_webhook_signature()";
    assert!(report.contains(line) && report.contains("secret"), "{report}");
    let output = scene.run(&["setup", "--keep-grants"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));

    // Rights that came from somebody else, or by way of another role, cannot be taken from here.
    scene
        .client
        .batch_execute(
            "create role api; grant api to anon; grant execute on function public.get_libsql_sync_url() to api",
        )
        .await
        .unwrap();
    let report = scene.done(&["setup", "--take-over"]).await;
    assert!(
        report.contains("  - none by another way to public.get_libsql_sync_url(): anon may still execute"),
        "{report}"
    );
    assert!(report.contains("until now anon, authenticated could read the worker's secret"), "{report}");
    let left = "anon true, anon false, authenticated false, authenticated false, service_role true, service_role true";
    assert_eq!(scene.exposed().await, left, "what could be taken is");
    let report = scene.done(&["setup", "--take-over"]).await;
    assert!(report.contains("anon may still execute public.get_libsql_sync_url()"), "as long as it is so: {report}");
    scene.client.batch_execute("revoke all on function public.get_libsql_sync_url() from api; grant execute on function public.get_libsql_sync_url() to public").await.unwrap();
    let report = scene.done(&["setup", "--take-over"]).await;
    assert!(
        report.contains("no right of public, anon, authenticated to execute public.get_libsql_sync_url()"),
        "{report}"
    );
    assert!(!scene.exposed().await.contains("anon true"), "{report}");
}

/// What `--print` writes is what `setup` does.
#[tokio::test(flavor = "multi_thread")]
async fn the_script_takes_over_as_well() {
    let scene = Scene::new(Path::File).await;
    let output = scene.run(&["setup", "--take-over", "--print"]).await;
    let script = String::from_utf8(output.stdout).unwrap();
    scene.client.batch_execute(&script).await.unwrap_or_else(|e| panic!("{e:?}"));
    assert!(!scene.exposed().await.contains("anon true"), "{script}");
    assert_eq!(scene.one("select count(*) from pg_trigger where tgname like 'replicate%'").await, "0");
    scene.done(&["sync"]).await;
    scene.done(&["verify"]).await;
}

/// The key of a table was `id` in an older `schema.json` of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_an_older_schema_json_is_taken_over_in_one_command() {
    let old = include_str!("../../schema.json").replace("\"primaryKey\": \"app_id\"", "\"primaryKey\": \"id\"");
    let old = old.replace("\"primaryKey\": \"customer_id\"", "\"primaryKey\": \"id\"");
    let scene = Scene::new(Path::File).await;
    let worker = crate::support::config(&scene.cluster.url("postgres"), scene.home.target(), schema(&old));
    pgflume::sync::Worker::new(worker).drain(Duration::from_secs(25)).await.unwrap();
    let report = scene.done(&["setup", "--take-over"]).await;
    assert!(report.contains("apps: add the unique index over the key (app_id)"), "{report}");
    scene.done(&["sync"]).await;
    scene.done(&["verify"]).await;
}

/// Nobody is a superuser: the installing role owns the database and its tables, as `postgres` on Supabase, the worker
/// has what `setup` gives it. Stage 1 is left out.
#[tokio::test(flavor = "multi_thread")]
async fn stage_two_alone_goes_through_without_a_superuser() {
    let scene = Scene::new(Path::Sqld).await;
    let own = "create role installer login createrole bypassrls; create role flume login; grant installer to current_user;
        alter database postgres owner to installer; grant usage, create on schema public, pgmq to installer;
        grant all on all tables in schema pgmq to installer; grant all on all sequences in schema pgmq to installer;
        alter schema pgmq owner to installer;
        update cron.job set username = 'installer'; grant execute on all functions in schema pgmq to installer;
        grant usage on schema cron, vault to installer; grant select on all tables in schema vault to installer;
        do $$ declare t text; begin
            foreach t in array array['app_versions', 'apps', 'channel_devices', 'channels', 'manifest', 'orgs', 'stripe_info'] loop
                execute format('alter table public.%I owner to installer', t);
            end loop;
            for t in select c.oid::regclass::text from pg_class c where c.relnamespace = 'pgmq'::regnamespace and c.relkind = 'r' loop
                execute format('alter table %s owner to installer', t);
            end loop;
            for t in select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname like '%libsql%' loop
                execute format('alter function %s owner to installer', t);
            end loop;
        end $$";
    scene.client.batch_execute(own).await.unwrap_or_else(|e| panic!("{e:?}"));
    let as_role = |role: &str| {
        let mut url = url::Url::parse(&scene.cluster.url("postgres")).unwrap();
        url.set_username(role).unwrap();
        url.to_string()
    };
    let run = async |role: &str, arguments: &[&str]| {
        let mut command = scene.command(arguments);
        command.env("PGMQ_URL", as_role(role));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    };
    let report = run("installer", &["setup", "--take-over"]).await;
    assert!(
        report.contains("no right of anon, authenticated to execute public.get_libsql_webhook_signature()"),
        "{report}"
    );
    assert!(!scene.exposed().await.contains("anon true"), "{report}");
    scene.client.batch_execute("grant pgflume_worker to flume").await.unwrap();
    run("flume", &["sync"]).await;
    run("flume", &["verify"]).await;
    assert_eq!(scene.one("select count(*) from pgmq.q_replicate_data_libsql_dead").await, "0");
}
