//! A connection to a SQLite file whose statements borrow what is bound to them. The library's own connection copies each
//! value two or three times, which costs a tenth of a drain's time, and for a row of 60 MB as many times its memory.
//! The calls are those of <https://sqlite.org/c3ref/intro.html>, from the library's bindings.
#![expect(unsafe_code, reason = "the one place that calls SQLite itself; each block says why it is sound")]

use crate::core::value::Cell;
use futures_executor::block_on;
use libsql::ffi;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Once;
use std::time::Duration;

/// Read and write; what is not there is made.
pub const CREATE: c_int = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;

/// Read and write what is there.
pub(crate) const EXISTING: c_int = ffi::SQLITE_OPEN_READWRITE;

/// Most statements that are kept: those of a batch, and a table's few.
const MOST_KEPT: usize = 64;

/// What SQLite says of a failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLite result code {code})")]
pub struct Failure {
    /// The extended result code (<https://sqlite.org/rescode.html>).
    pub code: i32,
    /// Its words, which may hold names and, from a trigger, anything.
    pub message: String,
}

/// An open file.
pub struct Connection {
    raw: NonNull<ffi::sqlite3>,
    /// Compiled statements that are kept, by their text; none of them runs, and each is this connection's.
    kept: RefCell<HashMap<String, NonNull<ffi::sqlite3_stmt>>>,
}

// SAFETY: a connection may be used by any thread, one at a time (all methods that change it take `&self` only within
// one thread, as it is not `Sync`); the library is compiled and configured for that.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens the file.
    pub fn open(path: &Path, flags: c_int) -> Result<Self, Failure> {
        configure()?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| misuse("the path holds a NUL"))?;
        let mut raw = ptr::null_mut();
        // Its own mutex, taken at every call, guards nothing here: see `Send`.
        let flags = flags | ffi::SQLITE_OPEN_NOMUTEX;
        // SAFETY: `name` ends with NUL and outlives the call; `raw` may be written to.
        let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &mut raw, flags, ptr::null()) };
        let Some(raw) = NonNull::new(raw) else { return Err(Failure { code, message: "out of memory".into() }) };
        let connection = Self { raw, kept: RefCell::default() }; // closed when dropped, also where it could not be opened
        if code == ffi::SQLITE_OK { Ok(connection) } else { Err(connection.failure()) }
    }

    /// How long to wait for another process that holds a lock.
    pub(crate) fn wait_for_locks(&self, patience: Duration) {
        let ms = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_busy_timeout(self.raw.as_ptr(), ms) };
    }

    /// Whether no transaction is open.
    pub(crate) fn is_autocommit(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.raw.as_ptr()) != 0 }
    }

    /// Runs one statement once; its rows are passed over.
    pub fn run(&self, sql: &str, cells: &[Cell]) -> Result<(), Failure> {
        self.prepare(sql)?.run(cells)
    }

    /// One statement of those that are kept, or compiled.
    pub(super) fn kept(&self, sql: &str) -> Result<Statement<'_>, Failure> {
        match self.kept.borrow_mut().remove(sql) {
            Some(raw) => Ok(Statement { raw, connection: self }),
            None => self.prepare(sql),
        }
    }

    /// Keeps a statement of this connection for the next time: compiling it takes longer than running it once.
    pub(super) fn keep(&self, sql: &str, statement: Statement<'_>) {
        if !ptr::eq(statement.connection, self) {
            return;
        }
        if self.kept.borrow().len() >= MOST_KEPT {
            self.forget_kept();
        }
        let before = self.kept.borrow_mut().insert(sql.to_owned(), ManuallyDrop::new(statement).raw);
        if let Some(raw) = before {
            drop(Statement { raw, connection: self });
        }
    }

    fn forget_kept(&self) {
        for (_, raw) in self.kept.take() {
            drop(Statement { raw, connection: self });
        }
    }

    /// Compiles one statement.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>, Failure> {
        let length = c_int::try_from(sql.len()).map_err(|_| misuse("the statement is too long"))?;
        let mut raw = ptr::null_mut();
        let text = sql.as_ptr().cast::<c_char>();
        // SAFETY: `text` is valid for `length` bytes; `raw` may be written to.
        let code = unsafe { ffi::sqlite3_prepare_v2(self.raw.as_ptr(), text, length, &mut raw, ptr::null_mut()) };
        match NonNull::new(raw) {
            Some(raw) if code == ffi::SQLITE_OK => Ok(Statement { raw, connection: self }),
            _ if code == ffi::SQLITE_OK => Err(misuse("the statement is empty")),
            _ => Err(self.failure()),
        }
    }

    /// A copy of the whole database, as a file would hold it. Fails where memory is short.
    pub fn image(&self) -> Result<Vec<u8>, Failure> {
        let mut length = 0;
        // SAFETY: the connection is open; the name ends with NUL; `length` may be written to. What comes back is a copy
        // of so many bytes that is ours, and is freed once after it was copied.
        unsafe {
            let start = ffi::sqlite3_serialize(self.raw.as_ptr(), c"main".as_ptr(), &mut length, 0);
            let length = usize::try_from(length).unwrap_or_default();
            let image = match NonNull::new(start) {
                Some(image) => image,
                None if length == 0 => return Ok(Vec::new()), // a database without a page
                None => return Err(out_of_memory()),
            };
            let copy = std::slice::from_raw_parts(image.as_ptr(), length).to_vec();
            ffi::sqlite3_free(image.as_ptr().cast());
            Ok(copy)
        }
    }

    /// Puts the database of an image in the place of the one that was open: from here on it is in memory. No statement
    /// of the old one lives on, as it would borrow the connection. Where it fails, the connection is of no more use: the
    /// image is no database, memory is short, or what was open is damaged or in a transaction.
    pub fn restore(&mut self, image: &[u8]) -> Result<(), Failure> {
        self.forget_kept();
        self.deserialize(image)?;
        // The image was not looked at so far.
        self.run("PRAGMA schema_version", &[])
    }

    fn deserialize(&mut self, image: &[u8]) -> Result<(), Failure> {
        let flags = (ffi::SQLITE_DESERIALIZE_FREEONCLOSE | ffi::SQLITE_DESERIALIZE_RESIZEABLE) as c_uint;
        let (bytes, copy) = (image.len() as i64, copied(image)?);
        // SAFETY: the connection is open and has no statement; the name ends with NUL. The copy has so many bytes, is
        // SQLite's own memory, and is SQLite's to free from here on, also where this fails.
        let code = unsafe {
            ffi::sqlite3_deserialize(self.raw.as_ptr(), c"main".as_ptr(), copy.as_ptr(), bytes, bytes, flags)
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(Failure { code, ..self.failure() }) }
    }

    /// Why the last call failed.
    fn failure(&self) -> Failure {
        // SAFETY: the connection is open; the message is valid until the next call, and is copied before.
        unsafe {
            let message = ffi::sqlite3_errmsg(self.raw.as_ptr());
            let code = ffi::sqlite3_extended_errcode(self.raw.as_ptr());
            let message = if message.is_null() { "".into() } else { CStr::from_ptr(message).to_string_lossy() };
            Failure { code, message: message.into_owned() }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.forget_kept();
        // SAFETY: nothing uses it any more, as statements borrow it.
        unsafe { ffi::sqlite3_close_v2(self.raw.as_ptr()) };
    }
}

/// The bytes in memory that SQLite can free.
fn copied(bytes: &[u8]) -> Result<NonNull<u8>, Failure> {
    // SAFETY: it may be called at any time. No bytes at all would give null.
    let start = unsafe { ffi::sqlite3_malloc64(bytes.len().max(1) as u64) };
    let start = NonNull::new(start.cast::<u8>()).ok_or_else(out_of_memory)?;
    // SAFETY: there is room for all of them, and it is new.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
    Ok(start)
}

fn out_of_memory() -> Failure {
    Failure { code: ffi::SQLITE_NOMEM, message: "out of memory".into() }
}

fn misuse(message: &str) -> Failure {
    Failure { code: ffi::SQLITE_MISUSE, message: message.into() }
}

/// Lets the library configure SQLite, which it does once, before anything is opened.
fn configure() -> Result<(), Failure> {
    static CONFIGURED: Once = Once::new();
    let mut done = Ok(());
    CONFIGURED.call_once(|| done = block_on(libsql::Builder::new_local(":memory:").build()).map(drop));
    done.map_err(|e| misuse(&e.to_string()))
}

/// A compiled statement.
pub struct Statement<'c> {
    raw: NonNull<ffi::sqlite3_stmt>,
    connection: &'c Connection,
}

impl Statement<'_> {
    /// Runs it once with these parameters; rows are passed over.
    pub fn run(&mut self, cells: &[Cell]) -> Result<(), Failure> {
        self.rows(cells, |_| ())
    }

    /// Runs it once with these parameters, and gives each row. Text that is no UTF-8 has what is wrong replaced.
    pub fn rows(&mut self, cells: &[Cell], mut each: impl FnMut(Vec<Cell>)) -> Result<(), Failure> {
        // Drops the borrowed parameters at the end, whatever happens.
        let running = Running { statement: self, cells: PhantomData };
        let mut index = 0;
        for cell in cells {
            index += 1;
            running.bind(index, cell)?;
        }
        while running.step()? {
            each(Row { raw: running.statement.raw, row: PhantomData }.cells()?);
        }
        Ok(())
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: it was prepared, and is finalized once.
        unsafe { ffi::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

/// A statement with borrowed parameters.
struct Running<'s, 'c, 'v> {
    statement: &'s Statement<'c>,
    cells: PhantomData<&'v [Cell]>,
}

impl<'v> Running<'_, '_, 'v> {
    /// Lends it a value: SQLite reads it where it is.
    fn bind(&self, index: c_int, cell: &'v Cell) -> Result<(), Failure> {
        let raw = self.statement.raw.as_ptr();
        // SAFETY: the statement is prepared and not running. Texts and blobs are lent without a destructor: they stay
        // where they are for 'v, which outlives `self`, and whoever drops that takes them back. Pointers of empty ones
        // are not null, which would be NULL.
        let code = unsafe {
            match cell {
                Cell::Null => ffi::sqlite3_bind_null(raw, index),
                Cell::Integer(i) => ffi::sqlite3_bind_int64(raw, index, *i),
                Cell::Real(r) => ffi::sqlite3_bind_double(raw, index, *r),
                Cell::Text(text) => bind_text(raw, index, text.as_bytes()),
                Cell::Blob(bytes) => bind_blob(raw, index, bytes),
                Cell::Lent(lent) if lent.is_text() => bind_text(raw, index, lent.bytes()),
                Cell::Lent(lent) => bind_blob(raw, index, lent.bytes()),
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.statement.connection.failure()) }
    }

    /// Goes on to the next row; whether there is one.
    fn step(&self) -> Result<bool, Failure> {
        // SAFETY: the statement is prepared; what is lent to it is there.
        match unsafe { ffi::sqlite3_step(self.statement.raw.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            _ => Err(self.statement.connection.failure()),
        }
    }
}

/// Lends a text.
///
/// # Safety
/// The statement is prepared and not running, and the bytes, which are UTF-8, outlive their binding.
unsafe fn bind_text(raw: *mut ffi::sqlite3_stmt, index: c_int, bytes: &[u8]) -> c_int {
    let (start, length) = (bytes.as_ptr().cast(), bytes.len() as u64);
    // SAFETY: as promised by the caller.
    unsafe { ffi::sqlite3_bind_text64(raw, index, start, length, None, ffi::SQLITE_UTF8 as u8) }
}

/// Lends bytes.
///
/// # Safety
/// The statement is prepared and not running, and the bytes outlive their binding.
unsafe fn bind_blob(raw: *mut ffi::sqlite3_stmt, index: c_int, bytes: &[u8]) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { ffi::sqlite3_bind_blob64(raw, index, bytes.as_ptr().cast(), bytes.len() as u64, None) }
}

impl Drop for Running<'_, '_, '_> {
    fn drop(&mut self) {
        // SAFETY: the statement is prepared. Its failure was told by the step.
        unsafe {
            ffi::sqlite3_reset(self.statement.raw.as_ptr());
            ffi::sqlite3_clear_bindings(self.statement.raw.as_ptr());
        }
    }
}

/// The row that a statement stands on.
struct Row<'r> {
    raw: NonNull<ffi::sqlite3_stmt>,
    row: PhantomData<&'r ()>,
}

impl Row<'_> {
    fn cells(&self) -> Result<Vec<Cell>, Failure> {
        // SAFETY: the statement stands on a row.
        let width = unsafe { ffi::sqlite3_column_count(self.raw.as_ptr()) };
        (0..width).map(|column| self.cell(column)).collect()
    }

    fn cell(&self, column: c_int) -> Result<Cell, Failure> {
        let raw = self.raw.as_ptr();
        // SAFETY: the statement stands on a row that has this column. The bytes are valid until the next call for this
        // column, and are copied before; their length is asked for after the pointer, as it should be.
        unsafe {
            Ok(match ffi::sqlite3_column_type(raw, column) {
                ffi::SQLITE_INTEGER => Cell::Integer(ffi::sqlite3_column_int64(raw, column)),
                ffi::SQLITE_FLOAT => Cell::Real(ffi::sqlite3_column_double(raw, column)),
                ffi::SQLITE_TEXT => {
                    let start = ffi::sqlite3_column_text(raw, column);
                    Cell::Text(String::from_utf8_lossy(bytes(raw, column, start)?).into_owned())
                }
                ffi::SQLITE_BLOB => {
                    let start = ffi::sqlite3_column_blob(raw, column);
                    Cell::Blob(bytes(raw, column, start.cast())?.to_vec())
                }
                _ => Cell::Null,
            })
        }
    }
}

/// The bytes of a column from `start` on.
///
/// # Safety
/// `start` is what SQLite gave for this column of the row that the statement stands on, and no other call for it follows
/// while the bytes are used.
unsafe fn bytes<'b>(raw: *mut ffi::sqlite3_stmt, column: c_int, start: *const u8) -> Result<&'b [u8], Failure> {
    // SAFETY: as promised by the caller.
    unsafe {
        let length = usize::try_from(ffi::sqlite3_column_bytes(raw, column)).unwrap_or_default();
        match (start.is_null(), length) {
            (true, 0) => Ok(&[]), // an empty blob
            (true, _) => Err(out_of_memory()),
            _ => Ok(std::slice::from_raw_parts(start, length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Connection {
        Connection::open(Path::new(":memory:"), CREATE).unwrap()
    }

    fn query(connection: &Connection, sql: &str, cells: &[Cell]) -> Result<Vec<Vec<Cell>>, Failure> {
        let mut rows = Vec::new();
        connection.prepare(sql)?.rows(cells, |row| rows.push(row))?;
        Ok(rows)
    }

    #[test]
    fn every_cell_comes_back_as_it_went() {
        let cells = [
            Cell::Null,
            Cell::Integer(i64::MIN),
            Cell::Real(-0.5),
            Cell::Text(String::new()),
            Cell::Text("a\0b \u{1F980}".into()),
            Cell::Blob(Vec::new()),
            Cell::Blob(vec![0, 255, 0]),
        ];
        let rows = query(&memory(), "select ?1, ?2, ?3, ?4, ?5, ?6, ?7", &cells).unwrap();
        assert_eq!(rows, [cells.to_vec()]);
        let types = query(&memory(), "select typeof(?1), typeof(?2), length(?1)", &cells[3..5]).unwrap();
        let text = |t: &str| Cell::Text(t.into());
        assert_eq!(types, [vec![text("text"), text("text"), Cell::Integer(0)]]);
    }

    #[test]
    fn a_statement_forgets_what_was_lent_to_it() {
        let connection = memory();
        connection.run("create table t (v)", &[]).unwrap();
        let mut insert = connection.prepare("insert into t values (?1)").unwrap();
        for n in 0..3 {
            let lent = vec![Cell::Text(format!("text {n}"))];
            insert.run(&lent).unwrap();
        }
        insert.run(&[]).unwrap(); // not the last text, which is gone
        drop(insert);
        let rows = query(&connection, "select group_concat(v), sum(v is null) from t", &[]).unwrap();
        assert_eq!(rows, [vec![Cell::Text("text 0,text 1,text 2".into()), Cell::Integer(1)]]);
    }

    #[test]
    fn failures_have_their_extended_code_and_words_and_the_statement_goes_on() {
        let connection = memory();
        connection.run("create table t (v integer primary key not null, w text not null)", &[]).unwrap();
        let mut insert = connection.prepare("insert into t values (?1, ?2)").unwrap();
        let row = [Cell::Integer(1), Cell::Text("a".into())];
        insert.run(&row).unwrap();
        let twice = insert.run(&row).unwrap_err();
        assert_eq!((twice.code, twice.message.as_str()), (1555, "UNIQUE constraint failed: t.v"));
        let null = insert.run(&[Cell::Integer(2), Cell::Null]).unwrap_err();
        assert_eq!((null.code, null.message.as_str()), (1299, "NOT NULL constraint failed: t.w"));
        insert.run(&[Cell::Integer(3), Cell::Text("c".into())]).unwrap();
        assert!(connection.is_autocommit());
        let missing = connection.run("select 1 from nowhere", &[]).unwrap_err();
        assert_eq!((missing.code, missing.message.as_str()), (1, "no such table: nowhere"));
        assert_eq!(connection.run("", &[]).unwrap_err().code, ffi::SQLITE_MISUSE);
        assert!(Connection::open(Path::new("/nowhere/at/all"), EXISTING).is_err_and(|e| e.code & 0xff == 14));
    }
}
