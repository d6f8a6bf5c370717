// A collection of TanStack DB: prints its rows, by their ids in order, whenever they have changed.
//   node tanstack.mjs URL TABLE FILE
// With a file it is kept there, and goes on from there.
import { createCollection } from "@tanstack/db";
import { electricCollectionOptions } from "@tanstack/electric-db-collection";

const [url, table, file] = process.argv.slice(2);
const options = electricCollectionOptions({
  id: table,
  getKey: (row) => row.id,
  shapeOptions: { url: `${url}/v1/shape`, params: { table }, parser: { int8: (text) => text } },
});
const print = (rows) => {
  rows.sort((a, b) => (a.id < b.id ? -1 : 1));
  // Its own notes on a row begin with $.
  return JSON.stringify(rows, (name, value) => (name.startsWith("$") ? undefined : value));
};

async function keeping() {
  const { createNodeSQLitePersistence, persistedCollectionOptions } = await import("@tanstack/node-db-sqlite-persistence");
  const { default: Database } = await import("better-sqlite3");
  const database = new Database(file);
  const persistence = createNodeSQLitePersistence({ database });
  const collection = createCollection(persistedCollectionOptions({ ...options, persistence, schemaVersion: 1 }));
  // It is written a little later than it is shown, and so is what is printed here.
  let said;
  setInterval(() => {
    const first = (sql) => database.prepare(sql).all().map((row) => Object.values(row)[0]);
    const tables = first("SELECT name FROM sqlite_master WHERE name IN ('collection_registry', 'collection_metadata')");
    if (tables.length < 2) return;
    const [rows] = first("SELECT table_name FROM collection_registry");
    const place = first("SELECT value FROM collection_metadata WHERE key = 'electric:resume'").map((text) => JSON.parse(text).kind);
    if (!rows || place[0] !== "resume") return;
    const has = print(first(`SELECT value FROM "${rows}"`).map((text) => JSON.parse(text)));
    if (has !== said && has === print([...collection.values()])) console.log((said = has));
  }, 20);
  return collection;
}

const collection = file ? await keeping() : createCollection(options);
const shown = () => file || console.log(print([...collection.values()]));
collection.subscribeChanges(shown);
await collection.preload();
shown();
