//! What a statement in a binlog says, as far as it matters. No IO.

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A transaction begins.
    Begin,
    /// It ends here.
    End,
    /// One that was prepared is committed.
    EndOf(String),
    /// One that was prepared is rolled back.
    RollbackOf(String),
    /// Tables or databases were made, altered, emptied, renamed or dropped.
    Alters(Names),
    /// It changes no row, but what a table is like, or who may read it.
    Redefines,
    /// It changes no row, and is a transaction of its own.
    Harmless,
    /// It changes nothing, in a transaction or between two.
    Nothing,
    /// Rows of any table may have changed.
    Unknown,
}

/// All that may be a name in a statement, in small letters, each with the one before its point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The database of those without.
    database: String,
    names: Vec<(Option<String>, String)>,
    /// Whole databases are meant.
    is_of_databases: bool,
}

impl Names {
    fn read(text: &str, database: &str, is_of_databases: bool) -> Self {
        Self { database: database.to_lowercase(), names: names(text), is_of_databases }
    }

    /// Of a CREATE TABLE the one that is made.
    fn made(&self) -> Vec<(Option<String>, String)> {
        let before = ["create", "or", "replace", "temporary", "table", "if", "not", "exists"];
        let mut names = self.names.iter().skip_while(|(of, name)| of.is_none() && before.contains(&name.as_str()));
        // A database and its table are two.
        names.by_ref().take(2).cloned().collect()
    }

    /// Whether anything of a database may be meant.
    pub fn concern(&self, database: &str) -> bool {
        let database = database.to_lowercase();
        self.database == database || self.names.iter().any(|(of, name)| of.as_ref().unwrap_or(name) == &database)
    }

    /// Whether a table may be meant.
    pub fn mean(&self, database: &str, table: &str) -> bool {
        let (database, table) = (database.to_lowercase(), table.to_lowercase());
        self.names.iter().any(|(of, name)| match self.is_of_databases {
            true => *name == database,
            false => *name == table && *of.as_ref().unwrap_or(&self.database) == database,
        })
    }
}

/// Objects whose coming and going touches no row.
const ROWLESS: [&str; 17] = [
    "VIEW",
    "TRIGGER",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "USER",
    "ROLE",
    "INDEX",
    "UNIQUE",
    "FULLTEXT",
    "SPATIAL",
    "SERVER",
    "PACKAGE",
    "LOGFILE",
    "TABLESPACE",
    "AGGREGATE",
    "RESOURCE",
];

/// Statements that touch no row whatever follows.
const HARMLESS: [&str; 8] = ["FLUSH", "OPTIMIZE", "CHECK", "INSTALL", "UNINSTALL", "COMMENT", "USE", "SET"];

impl Said {
    /// By its text, where this was the database.
    pub fn read(text: &[u8], database: &str) -> Self {
        let Ok(text) = std::str::from_utf8(text) else { return Self::Unknown };
        let text = without_comments(text);
        let text = text.trim_start();
        // `SET STATEMENT … FOR` stands before another statement.
        let text = match words(text)[..] {
            [(_, ref set), (_, ref statement), ..] if set == "SET" && statement == "STATEMENT" => {
                let stands_before = words(text).into_iter().find(|(_, word)| word == "FOR");
                stands_before.map_or("unknown", |(end, _)| &text[end..])
            }
            _ => text,
        };
        let words: Vec<String> = words(text).into_iter().take(16).map(|(_, word)| word).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &words[..] {
            [] => Self::Nothing,
            ["BEGIN"] | ["START", "TRANSACTION", ..] | ["XA", "START" | "BEGIN", ..] => Self::Begin,
            ["SAVEPOINT", ..] | ["RELEASE", ..] | ["ROLLBACK", "TO", ..] | ["XA", "END", ..] => Self::Nothing,
            ["XA", "PREPARE", ..] => Self::Nothing, // an event of its own says so
            ["COMMIT", ..] | ["ROLLBACK", ..] => Self::End,
            ["XA", "COMMIT", ..] => Self::EndOf(transaction(text)),
            ["XA", "ROLLBACK", ..] => Self::RollbackOf(transaction(text)),
            ["CREATE" | "ALTER" | "DROP", rest @ ..] if is_rowless(rest) => Self::Redefines,
            ["GRANT" | "REVOKE", ..] | ["CREATE" | "ALTER", "DATABASE" | "SCHEMA", ..] => Self::Redefines,
            ["ANALYZE", "TABLE", ..] | ["ANALYZE", "LOCAL" | "NO_WRITE_TO_BINLOG", "TABLE", ..] => Self::Harmless,
            // Rows that it is made with come by themselves.
            ["CREATE", rest @ ..] if rest.iter().take(3).any(|word| *word == "TABLE") => {
                let made = Names::read(text, database, false);
                Self::Alters(Names { names: made.made(), ..made })
            }
            ["CREATE" | "ALTER" | "DROP" | "RENAME" | "TRUNCATE" | "REPAIR", rest @ ..] => {
                let is_of_databases = rest.iter().take(3).any(|word| matches!(*word, "DATABASE" | "SCHEMA"));
                Self::Alters(Names::read(text, database, is_of_databases))
            }
            [first, ..] if HARMLESS.contains(first) => Self::Harmless,
            _ => Self::Unknown,
        }
    }
}

fn is_rowless(words: &[&str]) -> bool {
    const BETWEEN: [&str; 8] = ["OR", "REPLACE", "ALGORITHM", "UNDEFINED", "MERGE", "TEMPTABLE", "DEFINER", "ONLINE"];
    let kind = words.iter().find(|word| !BETWEEN.contains(word));
    // `CREATE DEFINER=root@localhost VIEW`: whoever defines it stands in between.
    let has_definer = words.contains(&"DEFINER");
    kind.is_some_and(|kind| ROWLESS.contains(kind)) || has_definer && words.iter().any(|word| ROWLESS.contains(word))
}

/// The words outside of quotes, in capitals, each with where it ends.
fn words(text: &str) -> Vec<(usize, String)> {
    let (mut words, mut at) = (Vec::new(), 0);
    while let Some(first) = text[at..].chars().next() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let taken = match first {
            '`' | '"' | '\'' => quoted(&text[at..], first),
            c if is_part(c) => text[at..].find(|c| !is_part(c)).unwrap_or(text.len() - at),
            c => c.len_utf8(),
        };
        if is_part(first) {
            words.push((at + taken, text[at..at + taken].to_uppercase()));
        }
        at += taken;
    }
    words
}

/// The id of a prepared transaction as its statement writes it, without blanks.
fn transaction(text: &str) -> String {
    let id = text.split_whitespace().skip(2).collect::<String>();
    id.to_lowercase()
}

/// The text without what stands in comments; what stands in `/*!40000 here */` is none.
fn without_comments(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    loop {
        let Some(at) = rest.find(['\'', '"', '`', '#', '/', '-']) else { break kept + rest };
        let (before, from) = rest.split_at(at);
        kept += before;
        let first = from.chars().next().unwrap_or_default();
        let (taken, is_kept) = match first {
            '\'' | '"' | '`' => (quoted(from, first), true),
            '#' => (from.find('\n').unwrap_or(from.len()), false),
            '-' if from[1..].starts_with('-') && from[2..].starts_with(char::is_whitespace) => {
                (from.find('\n').unwrap_or(from.len()), false)
            }
            '/' if from.starts_with("/*!") || from.starts_with("/*M!") => {
                let digits = from[2..].trim_start_matches(['M', '!']).trim_start_matches(|c: char| c.is_ascii_digit());
                (from.len() - digits.len(), false)
            }
            '/' if from.starts_with("/*") => (from[2..].find("*/").map_or(from.len(), |end| end + 4), false),
            _ => (1, true),
        };
        kept += if is_kept { &from[..taken] } else { " " };
        rest = &from[taken..];
    }
}

/// How long the quoted text is that this begins with.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote != '`' => drop(chars.next()),
            c if c == quote && chars.peek().is_some_and(|(_, next)| *next == quote) => drop(chars.next()),
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn names(text: &str) -> Vec<(Option<String>, String)> {
    let (mut names, mut rest): (Vec<(Option<String>, String)>, &str) = (Vec::new(), text);
    let mut is_behind_point = false;
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
        let (name, taken) = match first {
            '`' | '"' | '\'' => {
                let taken = quoted(rest, first);
                let inner = rest[..taken].strip_prefix(first).unwrap_or_default();
                let inner = inner.strip_suffix(first).unwrap_or(inner);
                (Some(inner.replace(&format!("{first}{first}"), &first.to_string())), taken)
            }
            c if is_part(c) => {
                let taken = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                (Some(rest[..taken].to_owned()), taken)
            }
            c => (None, c.len_utf8()),
        };
        match name {
            Some(name) => {
                let of = names.last().filter(|_| is_behind_point).map(|(_, before)| before.clone());
                names.push((of, name.to_lowercase()));
                is_behind_point = false;
            }
            None if first == '.' => is_behind_point = true,
            None => is_behind_point &= first.is_whitespace(),
        }
        rest = &rest[taken..];
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_does_is_told_by_its_first_words() {
        for (text, expected) in [
            ("BEGIN", Said::Begin),
            ("xa start X'61',X'',1", Said::Begin),
            ("XA END X'61',X'',1", Said::Nothing),
            ("XA COMMIT X'61',X'',1", Said::EndOf("x'61',x'',1".into())),
            ("XA ROLLBACK X'6162', X'', 1", Said::RollbackOf("x'6162',x'',1".into())),
            ("COMMIT", Said::End),
            ("ROLLBACK TO `a`", Said::Nothing),
            ("ROLLBACK", Said::End),
            ("# Dummy event replacing event type 162", Said::Nothing),
            ("/* begin */ BEGIN", Said::Begin),
            ("insert into t values ('BEGIN')", Said::Unknown),
            ("/* a */ update t set v = 1", Said::Unknown),
            (
                "CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=`root`@`localhost` SQL SECURITY DEFINER VIEW `v` AS select 1",
                Said::Redefines,
            ),
            ("create unique index i on t (a)", Said::Redefines),
            ("grant select on t to u", Said::Redefines),
            ("DROP INDEX i ON t", Said::Redefines),
            ("analyze table t", Said::Harmless),
            ("analyze delete from t", Said::Unknown),
            ("set statement max_statement_time=5, sort_buffer_size = 1 for delete from t", Said::Unknown),
            ("set statement x = ' for ' for flush tables", Said::Harmless),
            ("create database if not exists d", Said::Redefines),
        ] {
            assert_eq!(Said::read(text.as_bytes(), "d"), expected, "{text}");
        }
        assert_eq!(Said::read(&[b'B', 0xff], "d"), Said::Unknown);
        let alters = |text: &str, name: &str| match Said::read(text.as_bytes(), "D") {
            Said::Alters(names) => names.mean("d", name),
            other => panic!("{text}: {other:?}"),
        };
        assert!(alters("TRUNCATE `d`.`T``x`", "t`x"));
        assert!(!alters("TRUNCATE `e`.`t`", "t"));
        assert!(alters("rename table e.t to d . t", "t"));
        assert!(alters("drop database if exists `D`", "t"));
        let concern = |text: &str, database: &str| match Said::read(text.as_bytes(), database) {
            Said::Alters(names) => names.concern("d"),
            other => panic!("{text}: {other:?}"),
        };
        assert!(concern("create table t (id int)", "d") && concern("create table d.t (id int)", "e"));
        assert!(concern("drop database d", "") && !concern("create table e.t (id int)", "e"));
        assert!(alters("truncate table t", "t"));
        assert!(alters("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", "u"));
        assert!(alters("DROP TABLE IF EXISTS `über` /* generated by server */", "über"));
        assert!(alters("create /*!40101 temporary */ table t (id int)", "t"));
        assert!(!alters("ALTER TABLE a COMMENT 'x'", "t"));
        assert!(alters("--\tset x\nTRUNCATE t", "t") && alters("repair table t", "t"));
        assert!(alters("set statement lock_wait_timeout=5 for truncate table t", "t"));
        assert!(
            alters("create or replace table d.t (id int)", "t")
                && alters("create table if not exists `t` (id int)", "t")
        );
        assert!(!alters("create table x like t", "t") && !alters("create table x select * from t", "t"));
    }
}
