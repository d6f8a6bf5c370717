//! What can be wrong with a running chain, each with a stable code: the one table from which `/ready`, `doctor` and
//! `docs/errors.md` are made. Codes are never given to anything else.

use std::fmt;

/// Something that can be wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// `PF-` and three digits.
    pub code: &'static str,
    /// What it is, in one line.
    pub title: &'static str,
    /// What it means, and what comes of it.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

/// Names for the codes, and all of them in order.
macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal, $meaning:literal, $remedy:literal;)*) => {
        $(
            #[doc = $title]
            pub static $name: Code = Code { code: $code, title: $title, meaning: $meaning, remedy: $remedy };
        )*
        /// All of them, in order.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    SOURCE_DOWN = "PF-001", "The source does not answer",
        "Postgres cannot be reached, or refuses the worker. Nothing is lost: changes stay on the queue, or in the tables, until it answers.",
        "What it said stands behind the code. Correct the address or the credentials (`PGMQ_URL`, or the connection in `pgflume.json`), or let Postgres come back; the worker goes on by itself.";
    TARGET_DOWN = "PF-002", "The replica does not answer, or is not what it should be",
        "The libSQL side cannot be reached, refuses the token, or has tables that cannot hold what they should.",
        "What it said stands behind the code. Correct `LIBSQL_URL` or `LIBSQL_AUTH_TOKEN`, or do what the text names; nothing is taken off the queue meanwhile.";
    DRIFT = "PF-003", "Something is no longer as it was set up",
        "A table, its triggers, the queue or the replica was changed since `pgflume setup`. Some changes may go unmarked, or a table may wait.",
        "`pgflume status` lists each with its remedy; most are mended by `pgflume setup`, which can be run at any time.";
    RESYNC = "PF-004", "A table is being rebuilt, or cannot be",
        "The two sides had diverged and a table is copied again, or its copy waits for somebody to act. Readers see the older rows of a table that is copied again.",
        "Wait for the copy (`pgflume status --watch`), or do what the text names.";
    LAG = "PF-005", "The replica is behind for longer than LAG_LIMIT",
        "The oldest change has waited for longer than it should, or a sync that pulls has not succeeded for so long.",
        "Is `/sync` called and does it succeed, or does `serve --follow` run? `pgflume status` says what is on the queue; a copy of a large table takes its time.";
    DRAIN = "PF-006", "The last drain failed",
        "Working off the queue failed; what is not acknowledged is still queued.",
        "What it failed by stands behind the code.";
    TABLE = "PF-007", "Changes of a table wait",
        "One table cannot be read or written. Its changes wait, those of others go on.",
        "What is wrong with it stands behind the code, with the remedy.";
    CIRCUIT = "PF-008", "Calls are refused because a side is down",
        "After several failures in a row the worker rests before it tries again.",
        "Mend the side that is named; the next try that succeeds ends it.";

    SCHEMA_STRANGE = "PF-101", "schema.json is not meant for this database",
        "None of its tables is there. Most often the file of another project is used, or the mount of the container was forgotten.",
        "Name the right file with `SCHEMA_FILE`, or write one with `pgflume init`.";
    TABLE_MISSING = "PF-102", "A table of schema.json does not exist",
        "Postgres has no table of that name, or it was renamed or dropped.",
        "Correct `source` in `schema.json`, or take the table out.";
    COLUMN_MISSING = "PF-103", "A column of schema.json does not exist",
        "The table has no such column: it was renamed or dropped, or is spelled otherwise.",
        "Correct the columns in `schema.json`; `pgflume init --stdout --table TABLE` prints what the table has.";
    NO_KEY = "PF-104", "A table has no key",
        "Rows can be told apart by nothing: neither a primary key nor a unique index over NOT NULL columns makes what `primaryKey` names unique.",
        "Give the table a primary key, or correct `primaryKey` in `schema.json`.";
    NO_RIGHT = "PF-105", "The worker may not read a table",
        "Its role lacks SELECT on the table or USAGE on its schema.",
        "Grant it, or run `pgflume setup`, which grants what `pgflume_worker` needs.";
    ROW_SECURITY = "PF-106", "Row-level security would hide rows from the worker",
        "The table has policies that bind the worker's role. It reads with `row_security = off`, so that a policy is an error and never looks like deleted rows.",
        "`alter role ... bypassrls`, or a policy that lets the role see all rows, or `pgflume setup`.";
    SUPERUSER = "PF-107", "The worker logs in as a superuser",
        "It needs no such rights, and whoever gets hold of its password has all of them.",
        "Create a role that is a member of `pgflume_worker` and use it in `PGMQ_URL`.";
    SECRET_EXPOSED = "PF-108", "Others may call the function that returns the webhook's secret",
        "A role beside the owner may execute it, as Capgo's migration leaves it: on Supabase anybody with the anonymous key could read the secret, and empty the replica.",
        "Run the command, then change the secret: it may be known.";
    SERVER_OLD = "PF-109", "Postgres is too old",
        "pgflume needs PostgreSQL 14 or newer.",
        "Upgrade the server.";
    PGMQ_MISSING = "PF-110", "PGMQ is not installed, or the queue does not exist",
        "There is nothing to put changes on.",
        "`pgflume setup` installs PGMQ where it is missing, and makes the queue.";
    PGMQ_OLD = "PF-111", "PGMQ is too old",
        "Versions before 1.4 have other tables.",
        "Upgrade it: `alter extension pgmq update`.";
    NOT_SET_UP = "PF-112", "A table is not captured",
        "No trigger marks its changes; they arrive only if somebody sends them to the queue.",
        "`pgflume setup` makes the triggers.";
    TRIGGERS = "PF-113", "Triggers are missing, switched off or changed",
        "Changes of the table may go unmarked.",
        "`pgflume setup` makes them anew, and has what was missed copied.";
    QUEUE_UNSAFE = "PF-114", "The queue could lose or disorder messages",
        "It is UNLOGGED, hands out its ids in blocks, or has rules or triggers of others.",
        "Do what the text names.";
    QUEUE_NOTIFIES = "PF-115", "PGMQ's notifications are switched on for the queue",
        "Each commit that notifies takes one lock of the whole server: writers wait for each other. pgflume does not listen.",
        "`select pgmq.disable_notify_insert('QUEUE')`.";
    QUEUE_VACUUM = "PF-116", "The queue's table is not vacuumed",
        "Autovacuum is off for it or for the server. Each take walks over what was taken before, and becomes slower and slower.",
        "Run the command.";
    QUEUE_BLOAT = "PF-117", "The queue's table is bloated",
        "It has many more dead rows than messages: takes are slow.",
        "See what keeps vacuum from removing them (PF-118, PF-116), then `vacuum` it.";
    OLD_TRANSACTION = "PF-118", "A transaction keeps vacuum from its work",
        "A transaction, replication slot or prepared transaction is so old that nothing that was deleted since can be removed, in the queue and everywhere else.",
        "End it: `select pg_catalog.pg_terminate_backend(PID)`, `select pg_catalog.pg_drop_replication_slot(...)`, `rollback prepared ...`.";
    ARCHIVE = "PF-119", "The queue's archive grows",
        "Something archives messages in place of deleting them (Capgo's worker does). Nobody reads or removes them.",
        "Run the command if nobody needs them.";
    CRON_MISSING = "PF-120", "Nothing calls /sync",
        "pg_cron or the job is missing, and no worker follows.",
        "`pgflume setup` makes the job; or run `pgflume serve --follow`.";
    CRON_DISABLED = "PF-121", "The cron job is switched off",
        "It exists, and does not run.",
        "Run the command.";
    CRON_FAILING = "PF-122", "The cron job fails",
        "Its last runs ended with an error.",
        "What Postgres said stands behind the code.";
    POSTS_FAIL = "PF-123", "The worker does not accept the posts of Postgres",
        "The last answers that pg_net got were no success, or none came.",
        "A 401 says that the secrets differ (PF-125); a time-out that SYNC_URL cannot be reached from Postgres.";
    NO_HTTP = "PF-124", "Postgres can post nothing",
        "Neither pg_net nor the http extension is installed, and the cron job needs one.",
        "`create extension pg_net` or `create extension http`; or run `pgflume serve --follow`, which needs neither.";
    SECRET_DIFFERS = "PF-125", "Postgres posts with another secret than the worker expects",
        "Each call is refused with 401.",
        "`pgflume setup` with the worker's `WEBHOOK_SIGNATURE` stores it.";
    SYNC_URL_MISSING = "PF-126", "Postgres does not know where to post",
        "The cron job runs, and posts nothing: no address is stored.",
        "`pgflume setup` with `SYNC_URL` stores it.";
    SYNC_URL_PLAIN = "PF-127", "Postgres sends the secret unencrypted",
        "SYNC_URL is http:// to another host.",
        "Use https.";
    PLAIN_CONNECTION = "PF-128", "The connection to Postgres is not encrypted",
        "It goes to another host without TLS, or without checking whom it talks to.",
        "Add `sslmode=verify-full` to `PGMQ_URL`.";
    POOLER = "PF-129", "The pooler gives each statement another connection",
        "Statement pooling forbids transactions, without which nothing can be applied exactly once.",
        "Use the pooler's transaction or session mode, or the server itself.";
    CLOCK = "PF-130", "The clocks differ",
        "This machine's clock and Postgres' are further apart than signed requests tolerate, or than ages can be told by.",
        "Let both be set by NTP.";
    CONNECTIONS = "PF-131", "Postgres has hardly a connection left",
        "The worker needs two, `setup` and `verify` one or two more.",
        "Raise `max_connections`, or go through a pooler.";
    OTHER_WORKER = "PF-132", "Somebody else takes messages off the queue",
        "Messages went that this worker has not taken, or another program reads the queue: what it took never arrives by itself. The next drain copies the tables concerned.",
        "Stop the other worker; a purge of the queue is not needed at all.";
    OLD_TRIGGERS = "PF-133", "Capgo's triggers are still there beside pgflume's",
        "Each change is put on the queue twice, and writers pay twice.",
        "`pgflume setup --take-over` removes them.";
    DEAD_LETTERS = "PF-134", "Dead letters wait",
        "Rows or messages could not be applied. The replica lacks them, or has older rows.",
        "`pgflume dead list` says why; `pgflume dead retry` after the remedy, or `drop`.";
    STUCK_COPY = "PF-135", "A copy waits for somebody to act",
        "The table cannot be rebuilt.",
        "What is wrong stands behind the code.";
    BEHIND = "PF-136", "The oldest change has waited for long",
        "No drain has taken it.",
        "Start the worker, or see why its drains fail: `pgflume sync`.";
    WRITABLE_OPEN = "PF-137", "A table that clients may write has no row-level security",
        "It was switched off since `pgflume setup`, or setup has not seen that the table is `writable`. All writes of it are answered 503 until that is mended, so that nobody writes the rows of others.",
        "Switch it on and say by policies who may write what, or write `\"unchecked\": true` (docs/push.md).";
    PUSH_LOGIN = "PF-138", "The login of PUSH_URL is not what it has to be",
        "It cannot log in, may do more than its users, inherits rights of a role, or may not write the journal. `serve` refuses it, or no write of a client is taken.",
        "Make a login of its own as in docs/push.md, and grant it `pgflume_push` and your users' roles.";
    PUSH_JOURNAL = "PF-139", "Writes of clients have no journal",
        "`pgflume.pushes` or the role `pgflume_push` is missing: no write of a client can be taken.",
        "`pgflume setup` with a `schema.json` that says what is `writable` makes both.";
    PUSH_JOURNAL_OLD = "PF-140", "The journal of clients' writes is not pruned",
        "It holds answers that are older than seven days by more than a day. Each write that is taken prunes them; where none comes any more they stay, with the rows of conflicts.",
        "Run the command, or see in the worker's log why pruning fails.";

    REPLICA_FOREIGN_KEYS = "PF-201", "A replicated table has foreign keys",
        "A batch is applied in the order of keys, not of the writes: rows would be refused, and become dead letters.",
        "Make the table anew without them: `pgflume nuke` drops and refills it.";
    REPLICA_UNIQUE = "PF-202", "A replicated table has a unique index of somebody else",
        "Two rows that swap a value collide on the way, though neither side ever has both.",
        "Run the command, or make the index not unique.";
    REPLICA_TRIGGERS = "PF-203", "A replicated table has triggers",
        "They run with each batch, may make it fail or slow, and may change what verify then finds different.",
        "Run the command, unless you need it.";
    REPLICA_DIFFERS = "PF-204", "A table of the replica is not as schema.json says",
        "Its key or the type of a column differs so that values would not stay what they are.",
        "Do what the text names.";
    REPLICA_OTHERS = "PF-205", "The replica belongs to another queue or sync",
        "Two that write to one replica would overwrite each other; pgflume refuses.",
        "Give each queue a replica of its own.";
    REPLICA_JOURNAL = "PF-206", "The replica's file does not use WAL",
        "Readers and the worker would wait for each other.",
        "Run the command, or let no other program change the journal mode.";
    DISK = "PF-207", "The disk of the replica's file is nearly full",
        "A batch that finds no room fails; nothing is lost, and nothing arrives.",
        "Make room.";
    FILE = "PF-208", "The replica's file cannot be written",
        "The folder does not exist, or the user of this process may not write to it.",
        "Create the folder, or change its owner.";
    SLOW_TARGET = "PF-209", "The replica answers slowly",
        "Each batch costs a round trip of that length: freshness and throughput suffer.",
        "Run the worker nearer to it.";
    TARGET_LIMITS = "PF-210", "MAX_ROW_BYTES is more than the replica takes",
        "A row that is allowed by it is refused there, and becomes a dead letter.",
        "Lower `MAX_ROW_BYTES`, or raise the server's limit.";
    FEED_ROWIDS = "PF-211", "A table that is fed has no rowids in the replica",
        "The replica has it `WITHOUT ROWID`, or with a column called `rowid`: clients are not fed from it and are answered 503.",
        "`pgflume nuke` makes it anew; a column called `rowid` has to be left out, or the table not fed.";
    FEED_UNWHOLE = "PF-212", "A table that is fed is not whole",
        "Clients are answered 503 until all of its rows are there and a drain has left nothing on the queue. It is not being copied.",
        "Drain the queue: `pgflume sync`, or see why the worker does not.";
    FEED_HELD = "PF-213", "Clients are not told of a table",
        "It was left out of the last cut, because its changes wait or it is copied: clients keep the rows that they have.",
        "`pgflume status` says why it waits; clients are told when it is through.";
    FEED_LOG = "PF-214", "The log that clients are fed from is not pruned",
        "It reaches back further than `FEED_RETENTION` says by more than an hour, though batches have come since. It is pruned by a million rows every ten seconds.",
        "Is `FEED_RETENTION` the worker's here? Where more rows are written for long than are pruned, `pgflume nuke` begins anew.";

    SECRET_SHORT = "PF-301", "A secret is short",
        "It can be guessed.",
        "`openssl rand -hex 32` makes one; set it as `WEBHOOK_SIGNATURE`, and run `pgflume setup`.";
    SECRET_MISSING = "PF-302", "No secret is set",
        "`serve` needs one.",
        "`openssl rand -hex 32` makes one; set it as `WEBHOOK_SIGNATURE`.";
    FEED_TOKENS = "PF-303", "Nothing says how the tokens of clients are checked",
        "A table is fed to those whose token's claims match, or clients' writes are taken, and neither `FEED_JWT_SECRET`, `FEED_JWKS_URL` nor `FEED_AUTH_URL` is set here. `serve` does not start so.",
        "Set one of them where the worker runs; run `pgflume doctor` with its variables.";
}

/// The code of a reason of `/ready`.
pub fn of_reason(reason: &str) -> &'static Code {
    match reason {
        "source" => &SOURCE_DOWN,
        "target" => &TARGET_DOWN,
        "schema" => &DRIFT,
        "resync" => &RESYNC,
        "lag" => &LAG,
        "table" => &TABLE,
        "circuit" => &CIRCUIT,
        _ => &DRAIN,
    }
}

/// The page of all codes, as `docs/errors.md` has it.
pub fn page() -> String {
    let mut page = String::from(
        "# Codes of what can be wrong\n\n`GET /ready` and `pgflume doctor` name each with a code that never changes its meaning. This page is made from the table in the program (`pgflume doctor --codes` prints it).\n",
    );
    let part = |code: &Code| match code.code.as_bytes().get(3) {
        Some(b'0') => "What `/ready` says",
        Some(b'1') => "Postgres, the queue and `schema.json`",
        Some(b'2') => "The replica",
        _ => "The worker",
    };
    let mut last = "";
    for code in ALL {
        if part(code) != last {
            last = part(code);
            page += &format!("\n## {last}\n");
        }
        page += &format!("\n### {}\n\n**{}.** {}\n\n{}\n", code.code, code.title, code.meaning, code.remedy);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_the_page_is_made_from_them() {
        let codes: Vec<&str> = ALL.iter().map(|code| code.code).collect();
        assert!(codes.is_sorted() && codes.windows(2).all(|two| two[0] != two[1]), "{codes:?}");
        assert!(codes.iter().all(|code| code.len() == 6 && code.starts_with("PF-")));
        let page = page();
        assert!(
            include_str!("../../docs/errors.md") == page,
            "docs/errors.md is not what the table says: write it anew with `pgflume doctor --codes > docs/errors.md`"
        );
    }
}
