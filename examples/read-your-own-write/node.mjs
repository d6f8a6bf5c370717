// npm install pg @libsql/client
import pg from "pg";
import { createClient } from "@libsql/client";

const postgres = new pg.Client({ connectionString: process.env.DATABASE_URL });
const replica = createClient({ url: process.env.REPLICA_URL }); // file:replica.db, or libsql://…
await postgres.connect();

// Writes, and has the token of its own transaction.
async function write(note) {
  const text = "insert into orders (note) values ($1) returning id, pgflume.token() as token";
  return (await postgres.query(text, [note])).rows[0];
}

// Either: the worker tells when it has arrived. 504 means not yet.
async function waited(token) {
  const answer = await fetch(`${process.env.WORKER_URL}/wait?token=${token}&timeout=10`);
  return answer.ok;
}

// Or: the replica tells it, without the worker.
const ARRIVED = `
SELECT token < seen_below
    OR token < seen_before AND token NOT IN (SELECT value FROM json_each(running))
FROM _pgflume_syncs, (SELECT CAST(? AS INTEGER) AS token)
WHERE kind = 'queue'`;

async function arrived(token) {
  for (let tries = 0; tries < 200; tries++) {
    const { rows } = await replica.execute({ sql: ARRIVED, args: [token] });
    if (rows[0]?.[0] === 1) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

for (const isThere of [waited, arrived]) {
  const { id, token } = await write(`by ${isThere.name}`);
  if (!(await isThere(token))) throw new Error("not there yet: read from Postgres");
  const { rows } = await replica.execute({ sql: "SELECT note FROM orders WHERE id = ?", args: [id] });
  console.log(rows[0].note);
}
await postgres.end();
