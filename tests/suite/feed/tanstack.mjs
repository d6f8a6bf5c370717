// A collection of TanStack DB: prints its rows, by their ids in order, whenever they have changed.
//   node tanstack.mjs URL TABLE
import { createCollection } from "@tanstack/db";
import { electricCollectionOptions } from "@tanstack/electric-db-collection";

const [url, table] = process.argv.slice(2);
const collection = createCollection(
  electricCollectionOptions({
    id: table,
    getKey: (row) => row.id,
    shapeOptions: { url: `${url}/v1/shape`, params: { table }, parser: { int8: (text) => text } },
  }),
);
const print = () => {
  const rows = [...collection.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  // Its own notes on a row begin with $.
  console.log(JSON.stringify(rows, (name, value) => (name.startsWith("$") ? undefined : value)));
};
collection.subscribeChanges(print);
await collection.preload();
print();
