//! TLS with a private certificate authority: to Postgres, and to libSQL behind a front.

use crate::parts::{Sqld, SqldOptions};
use crate::support::Db;
use pgflume::demo::postgres::{Cluster, ClusterOptions, Stop};
use pgflume::postgres::PgUrl;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority, and where its certificate is.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for `localhost` and its key.
    fn certify(&self, expired: bool) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Gives the server a certificate; the next start uses it.
fn install(data: &Path, (certificate, key): (String, String)) {
    let owner = std::fs::metadata(data).unwrap();
    for (name, text) in [("server.key", key), ("server.crt", certificate)] {
        let file = data.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

/// Whether the connection is encrypted, or why there is none.
async fn connect(url: &str) -> Result<String, String> {
    let client = PgUrl::parse(url).unwrap().connect().await.map_err(|e| e.to_string())?;
    let row = client.query_one("select ssl::text from pg_stat_ssl where pid = pg_backend_pid()", &[]).await;
    Ok(row.unwrap().get(0))
}

async fn expect(cases: Vec<(String, Result<&str, &str>)>) {
    for (url, expected) in cases {
        match (connect(&url).await, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{url}: {found}"),
            (found, _) => panic!("{url}: {found:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_checks_what_it_promises() {
    let (authority, other) = (Authority::new("authority"), Authority::new("authority"));
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(ClusterOptions::default())).await.unwrap().unwrap();
    let data = cluster.directory().join("data");
    install(&data, authority.certify(false));
    let mut conf = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
    writeln!(conf, "ssl = on").unwrap();
    let restart = || {
        cluster.stop(Stop::Fast).unwrap();
        cluster.start_again().unwrap();
    };
    restart();
    let port = cluster.port();
    let url = |host: &str, options: &str| format!("postgres://postgres@{host}:{port}/postgres?{options}");
    let with = |mode: &str, authority: &Authority| format!("sslmode={mode}&sslrootcert={}", authority.file().display());
    expect(vec![
        (url("localhost", "sslmode=disable"), Ok("false")),
        (url("localhost", "sslmode=prefer"), Ok("true")),
        (url("127.0.0.1", "sslmode=require"), Ok("true")),
        (url("127.0.0.1", &with("require", &authority)), Ok("true")),
        (url("127.0.0.1", &with("require", &other)), Err("certificate")),
        (url("localhost", &with("verify-full", &authority)), Ok("true")),
        (url("127.0.0.1", &with("verify-ca", &authority)), Ok("true")),
        (url("127.0.0.1", &with("verify-full", &authority)), Err("not valid for name")),
        (url("localhost", &with("verify-ca", &other)), Err("certificate")),
        (url("localhost", &with("verify-full", &other)), Err("certificate")),
        (url("localhost", "sslmode=verify-full"), Err("UnknownIssuer")),
        (url("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem"), Err("sslrootcert")),
        (
            format!(
                "host=localhost port={port} user=postgres dbname=postgres sslmode=verify-full sslrootcert='{}'",
                authority.file().display()
            ),
            Ok("true"),
        ),
    ])
    .await;
    install(&data, authority.certify(true));
    restart();
    expect(vec![
        (url("localhost", "sslmode=require"), Ok("true")),
        (url("localhost", &with("verify-ca", &authority)), Err("expired")),
        (url("localhost", &with("verify-full", &authority)), Err("expired")),
    ])
    .await;
}

/// Speaks TLS for the server at `port`; gives its own port.
async fn front(port: u16, (certificate, key): (String, String)) -> u16 {
    pgflume::core::crypto::install();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                if let Ok(mut client) = acceptor.accept(stream).await {
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
                }
            });
        }
    });
    address.port()
}

#[tokio::test(flavor = "multi_thread")]
async fn libsql_behind_a_private_authority_is_reached_with_ssl_cert_file_and_refused_without() {
    let (authority, db) = (Authority::new("authority"), Db::new().await);
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"a"}}"#).await;
    let sqld = Sqld::start(SqldOptions::default());
    let right = front(sqld.port(), authority.certify(false)).await;
    let expired = front(sqld.port(), authority.certify(true)).await;
    let (url, token) = (db.url(), sqld.token_rw());
    let sync = async |scheme: &str, host: &str, port: u16, file: Option<&Path>| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.arg("sync").env_clear().current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env("PGMQ_URL", &url).env("LIBSQL_URL", format!("{scheme}://{host}:{port}"));
        command.env("LIBSQL_AUTH_TOKEN", &token).envs(file.map(|file| ("SSL_CERT_FILE", file)));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let ca = authority.file();
    for (host, port, file, expected) in [
        ("localhost", right, None, "SSL_CERT_FILE"),
        ("localhost", expired, Some(ca.as_path()), "expired"),
        ("127.0.0.1", right, Some(ca.as_path()), "not valid for name"),
    ] {
        let output = sync("https", host, port, file).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected) && !said.contains(&token), "{expected}: {said}");
    }
    assert_eq!(db.queued().await, 1);
    let output = sync("libsql", "localhost", right, Some(&ca)).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(db.queued().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_certificate_of_the_client_gets_it() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(ClusterOptions::default())).await.unwrap().unwrap();
    let data = cluster.directory().join("data");
    install(&data, authority.certify(false));
    let owner = std::fs::metadata(&data).unwrap();
    std::fs::copy(authority.file(), data.join("ca.pem")).unwrap();
    chown(data.join("ca.pem"), Some(owner.uid()), Some(owner.gid())).unwrap();
    let mut conf = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
    writeln!(conf, "ssl = on\nssl_ca_file = 'ca.pem'").unwrap();
    std::fs::write(data.join("pg_hba.conf"), "local all all trust\nhostssl all all all cert\n").unwrap();
    cluster.stop(Stop::Fast).unwrap();
    cluster.start_again().unwrap();
    let files = tempfile::tempdir().unwrap();
    let client = |name: &str, authority: &Authority| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "postgres");
        let key = KeyPair::generate().unwrap();
        let (cert_file, key_file) =
            (files.path().join(format!("{name}.crt")), files.path().join(format!("{name}.key")));
        std::fs::write(&cert_file, params.signed_by(&key, &authority.issuer).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file.display().to_string(), key_file.display().to_string())
    };
    let (right, wrong) = (client("right", &authority), client("wrong", &other));
    let url = |more: String| {
        let ca = authority.file().display().to_string();
        format!("postgres://postgres@localhost:{}/postgres?sslmode=verify-full&sslrootcert={ca}{more}", cluster.port())
    };
    let with = |cert: &str, key: &str| url(format!("&sslcert={cert}&sslkey={key}"));
    expect(vec![
        (with(&right.0, &right.1), Ok("true")),
        (url(String::new()), Err("certificate")),
        (with(&wrong.0, &wrong.1), Err("")),
        (with(&right.0, &wrong.1), Err("do not go together")),
        (with(&right.1, &right.1), Err("holds no certificate")),
        (with(&right.0, &right.0), Err("sslkey")),
    ])
    .await;
}
