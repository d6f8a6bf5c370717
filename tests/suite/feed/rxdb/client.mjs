// A collection of RxDB: prints its documents, by their keys in order, whenever they have changed, and does what lines of the
// file `commands` beside it say.
//   node client.mjs URL TOKEN
import { existsSync, readFileSync } from "node:fs";
import { createRxDatabase } from "rxdb";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { replicate } from "./replicate.mjs";

const [url, token] = process.argv.slice(2);
const database = await createRxDatabase({ name: "test", storage: getRxStorageMemory(), multiInstance: false });
const text = { type: "string" };
const schema = {
  version: 0,
  primaryKey: "id",
  type: "object",
  properties: { id: { ...text, maxLength: 100 }, org: text, title: text },
  required: ["id"],
};
const { todos } = await database.addCollections({ todos: { schema } });
const replication = replicate(todos, url, async () => token);
replication.error$.subscribe((error) => console.error(String(error.parameters?.errors?.[0]?.message ?? error)));
todos.find({ sort: [{ id: "asc" }] }).$.subscribe((found) => console.log(JSON.stringify(found.map((one) => one.toJSON()))));

const commands = {
  insert: (document) => todos.insert(document),
  upsert: (document) => todos.incrementalUpsert(document),
  // What another has removed meanwhile is not there.
  patch: async ([id, change]) => (await todos.findOne(id).exec())?.incrementalPatch(change),
  remove: async (id) => (await todos.findOne(id).exec())?.incrementalRemove(),
  pause: () => replication.pause(),
  start: () => replication.start(),
};
const file = new URL("commands", import.meta.url);
let done = 0;
setInterval(async () => {
  const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : [];
  while (done < lines.length) {
    const [[name, argument]] = Object.entries(JSON.parse(lines[done++]));
    await commands[name](argument);
  }
}, 20);
