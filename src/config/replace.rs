//! Reads and writes `schema.json`, whole or not at all. Takes a path; judges nothing about the text.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The rights of a new file, less the umask: it holds no secret.
const NEW_FILE: u32 = 0o666;

/// The file's text; `None` if there is no file.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Puts `text` in the place of the file that held `before`. Nobody ever sees half of it, and a file that
/// somebody else wrote meanwhile stays.
pub fn replace(path: &Path, before: Option<&str>, text: &str) -> io::Result<()> {
    // A link stays a link.
    let path = if before.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".schema-")
        .permissions(Permissions::from_mode(NEW_FILE))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    if before.is_none() {
        file.as_file().sync_all()?;
        file.persist_noclobber(&path).map_err(|e| e.error)?;
        return Ok(());
    }
    if read(&path)?.as_deref() != before {
        return Err(io::Error::other("it was changed by somebody else meanwhile"));
    }
    file.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|e| e.error)?;
    Ok(())
}
