//! Postgres over TLS with a private certificate authority.

use pgflume::demo::postgres::{Cluster, Options, Stop};
use pgflume::postgres::PgUrl;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// An authority, and a certificate for `localhost` signed by it, in the cluster's data directory.
fn certify(authority: &Path, data: &Path) {
    let script = r#"set -e
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority -addext basicConstraints=critical,CA:TRUE
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE' > extensions
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt"#;
    let output = Command::new("sh").args(["-c", script]).current_dir(authority).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let owner = std::fs::metadata(data).unwrap();
    for name in ["server.key", "server.crt"] {
        let file = data.join(name);
        std::fs::copy(authority.join(name), &file).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_checks_what_it_promises() {
    let authority = tempfile::tempdir().unwrap();
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(Options::default())).await.unwrap().unwrap();
    let data = cluster.directory().join("data");
    certify(authority.path(), &data);
    let mut conf = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
    writeln!(conf, "ssl = on").unwrap();
    cluster.stop(Stop::Fast).unwrap();
    cluster.start_again().unwrap();
    let ca = authority.path().join("ca.pem");
    let (ca, port) = (ca.to_str().unwrap(), cluster.port());
    let url = |host: &str, options: &str| format!("postgres://postgres@{host}:{port}/postgres?{options}");
    let cases = [
        (url("localhost", "sslmode=disable"), Ok("false")),
        (url("localhost", "sslmode=prefer"), Ok("true")),
        (url("127.0.0.1", "sslmode=require"), Ok("true")),
        (url("localhost", &format!("sslmode=verify-full&sslrootcert={ca}")), Ok("true")),
        (url("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}")), Ok("true")),
        (url("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ca}")), Err("not valid for name")),
        (url("localhost", "sslmode=verify-full"), Err("UnknownIssuer")),
        (url("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem"), Err("sslrootcert")),
        (
            format!("host=localhost port={port} user=postgres dbname=postgres sslmode=verify-full sslrootcert='{ca}'"),
            Ok("true"),
        ),
    ];
    for (url, expected) in cases {
        let found = match PgUrl::parse(&url).unwrap().connect().await {
            Ok(client) => {
                let row = client.query_one("select ssl::text from pg_stat_ssl where pid = pg_backend_pid()", &[]).await;
                Ok(row.unwrap().get::<_, String>(0))
            }
            Err(e) => Err(e.to_string()),
        };
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{url}: {found}"),
            _ => panic!("{url}: {found:?}, expected {expected:?}"),
        }
    }
}
