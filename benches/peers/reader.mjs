// Looks at a replica and says when: by the SQLite of zero-cache, which reads its files (wal2) as well as anybody's.
//
//   node reader.mjs MODULES FILE MS watch SQL           a line at each change: nanoseconds, the first column's values
//   node reader.mjs MODULES FILE MS until HINT WHOLE    a line once both are true in one snapshot: nanoseconds
//
// It looks every MS milliseconds. HINT is quick and asked each time; WHOLE is asked once HINT is true, and the time is
// that of HINT's answer, when what WHOLE confirms could be read. A file or table that is not there yet is waited for.
// Nanoseconds are the system's monotonic clock. The first line of `until` is `ready`; `watch` begins with what is there.
import { createRequire } from "node:module";

const [modules, file, ms, mode, ...statements] = process.argv.slice(2);
const Database = createRequire(`${modules}/`)("@rocicorp/zero-sqlite3");
const pause = new Int32Array(new SharedArrayBuffer(4));

function open() {
  // No waiting for locks: the next look comes soon enough.
  const db = new Database(file, { readonly: true, fileMustExist: true, timeout: 0 });
  try {
    return { db, ask: statements.map((sql) => db.prepare(sql).pluck()), begin: db.prepare("BEGIN"), end: db.prepare("COMMIT") };
  } catch (error) {
    db.close();
    throw error;
  }
}

function look({ ask: [hint, whole], begin, end }) {
  begin.run();
  const isThere = hint.get() === 1;
  const now = process.hrtime.bigint();
  const isWhole = isThere && whole.get() === 1;
  end.run();
  return isWhole && String(now);
}

let seen;
function follow({ ask: [values] }) {
  const found = values.all().join();
  if (found !== seen) process.stdout.write(`${process.hrtime.bigint()} ${(seen = found)}\n`);
  return false;
}

if (mode === "until") process.stdout.write("ready\n");
const step = mode === "until" ? look : follow;
let connection;
for (let done = false; !done; ) {
  try {
    connection ??= open();
    done = step(connection);
  } catch {
    connection?.db.close();
    connection = undefined;
  }
  if (done) process.stdout.write(`${done}\n`);
  else Atomics.wait(pause, 0, 0, Number(ms));
}
