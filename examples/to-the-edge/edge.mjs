// npm install @libsql/client
import { createClient } from "@libsql/client";

const file = { url: process.env.EDGE_FILE }; // file:edge.db, this process's own
const server = { syncUrl: process.env.SYNC_URL, authToken: process.env.SYNC_TOKEN };

// Brings what the server has committed. Where it does not answer, the file is as of the last time.
let edge;
try {
  edge = createClient({ ...file, ...server });
  await edge.sync();
} catch (error) {
  console.error(`as of the last time: ${error.message}`);
  edge?.close();
  edge = createClient(file);
}

const ARRIVED = `
SELECT token < seen_below
    OR token < seen_before AND token NOT IN (SELECT value FROM json_each(running))
FROM _pgflume_syncs, (SELECT CAST(? AS INTEGER) AS token)
WHERE kind = 'queue'`;

// Whether the file holds the write that this token is of.
async function arrived(token) {
  for (let tries = 0; tries < 200; tries++) {
    const { rows } = await edge.execute({ sql: ARRIVED, args: [token] });
    if (rows[0]?.[0] === 1) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
    await edge.sync();
  }
  return false;
}

const [sql, token] = process.argv.slice(2);
if (token && !(await arrived(token))) throw new Error("not there yet: read from Postgres");
const { rows } = await edge.execute(sql);
for (const row of rows) console.log(JSON.stringify(Array.from(row)));
