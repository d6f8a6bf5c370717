//! Copies PGMQ's own SQL out of the `pgmq` crate, so that `setup` can install PGMQ where the server
//! does not offer the extension. The crate runs that SQL only through a second Postgres client; the
//! file is all that is needed.

#![expect(clippy::expect_used, reason = "a build script fails by panicking")]

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Offline knows only what this platform builds; a fresh machine has to ask for the rest.
    let output = metadata(&["--offline"]).or_else(|| metadata(&[])).expect("cargo metadata runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output).expect("cargo metadata prints JSON");
    let package = metadata["packages"]
        .as_array()
        .and_then(|all| all.iter().find(|p| p["name"] == "pgmq"))
        .expect("the pgmq crate is a build dependency");
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a package has a manifest"));
    let sql = manifest.with_file_name("src").join("install/embedded/sql/pgmq.sql");
    std::fs::copy(&sql, out.join("pgmq.sql")).expect("the pgmq crate embeds pgmq.sql");
    println!("cargo:rerun-if-changed=Cargo.lock");
}

fn metadata(options: &[&str]) -> Option<Vec<u8>> {
    let cargo = std::env::var("CARGO").expect("cargo sets CARGO");
    let mut command = Command::new(cargo);
    let output = command.args(["metadata", "--format-version", "1", "--locked"]).args(options).output().ok()?;
    output.status.success().then_some(output.stdout)
}
