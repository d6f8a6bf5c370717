// A client of one shape: prints its rows, by their keys in order, whenever they have changed.
//   node plain.mjs URL TABLE WHERE COLUMNS sse
import { Shape, ShapeStream } from "@electric-sql/client";

const [url, table, where, columns, live] = process.argv.slice(2);
const params = { table, ...(where && { where }), ...(columns && { columns: columns.split(",") }) };
const stream = new ShapeStream({
  url: `${url}/v1/shape`,
  params,
  liveSse: live === "sse",
  onError: (e) => {
    console.error(String(e));
    process.exit(1);
  },
});
// A row that is told as new and is there, or as changed and is not, is an error of the server.
const keys = new Set();
stream.subscribe((messages) => {
  for (const { key, headers } of messages) {
    if (headers.control === "must-refetch") keys.clear();
    const had = keys.has(key);
    if (headers.operation === "insert" && had) throw new Error(`inserted twice: ${key}`);
    if (headers.operation === "update" && !had) throw new Error(`updated, and not there: ${key}`);
    if (headers.operation === "delete") keys.delete(key);
    else if (key) keys.add(key);
  }
});
const shape = new Shape(stream);
const text = (_, value) => (typeof value === "bigint" ? `${value}n` : value);
shape.subscribe(({ value }) => {
  const rows = [...value.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
  console.log(JSON.stringify(rows, text));
});
