//! Where a replica is, as the queue remembers it: one text for one place, however it is written, and nothing in it
//! that has to be kept secret. Takes a target; asks nobody.

use crate::replica::target::Target;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A digest of the place. It survives another token, `libsql://` for `https://`, a port that goes without saying,
/// slashes at the end, the case of a host, and another way to the same file.
pub fn of(target: &Target) -> String {
    let place = match target {
        Target::File(path) => format!("file {}", file(path).display()),
        Target::Remote { url, .. } => format!("server {}", server(url)),
        Target::Given(given) => format!("given {}", given.name()),
    };
    hex::encode(&Sha256::digest(place)[..16])
}

/// The way to a file without links and detours, also where it does not exist yet.
fn file(path: &Path) -> PathBuf {
    if let Ok(there) = path.canonicalize() {
        return there;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (parent.canonicalize(), path.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        // It cannot be opened either.
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

fn server(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return url.to_owned() };
    let host = url.host_str().unwrap_or_default().to_lowercase();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}{}", host.trim_end_matches('.'), url.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::secret::Secret;

    fn address(url: &str) -> String {
        of(&crate::replica::target::target(url, Some(Secret::new("a token")), true)
            .unwrap_or_else(|e| panic!("{url}: {e}")))
    }

    #[test]
    fn one_server_has_one_address_however_it_is_written() {
        let one = address("https://db.example.org");
        for url in [
            "libsql://db.example.org",
            "https://db.example.org/",
            "https://DB.Example.org",
            "https://db.example.org:443",
            "https://db.example.org.",
        ] {
            assert_eq!(address(url), one, "{url}");
        }
        assert_eq!(
            of(&crate::replica::target::target("libsql://db.example.org", Some(Secret::new("another")), true).unwrap()),
            one
        );
        for url in ["https://db2.example.org", "https://db.example.org:8443", "https://db.example.org/other"] {
            assert_ne!(address(url), one, "{url}");
        }
    }

    #[test]
    fn a_given_database_has_the_address_of_its_name() {
        use crate::replica::{memory::Memory, target::Given};
        use std::sync::Arc;
        let given = |name: &str| Target::Given(Given::new(name, Arc::new(Memory::new().unwrap())));
        let one = given("one");
        assert_eq!(
            (of(&one), &one, format!("{one:?}")),
            (of(&given("one")), &one.clone(), r#"Given(Given("one"))"#.into())
        );
        assert_ne!(one, given("one"), "another database of that name");
        assert_ne!(of(&one), of(&given("two")));
        assert_ne!(of(&one), address("file:one"));
    }

    #[test]
    fn one_file_has_one_address_whichever_way_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &Path| address(&format!("file:{}", path.display()));
        let plain = dir.path().join("r.db");
        let one = at(&plain);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("way")).unwrap();
        assert_eq!(at(&dir.path().join("sub/../r.db")), one);
        assert_eq!(at(&dir.path().join("way/r.db")), one);
        std::fs::write(&plain, "").unwrap();
        assert_eq!(at(&plain), one, "the same when it exists");
        std::os::unix::fs::symlink(&plain, dir.path().join("link.db")).unwrap();
        assert_eq!(at(&dir.path().join("link.db")), one);
        assert_ne!(at(&dir.path().join("s.db")), one);
        assert!(!one.contains("r.db"));
    }
}
