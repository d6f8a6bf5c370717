// Keeps the todos that its token may read in a file, and writes some.
//
//   node todos.mjs                         follows, and prints all rows whenever one has changed
//   node todos.mjs add ID '{"title":"…"}'  writes one, says what became of it, and ends; so do
//   node todos.mjs set ID '{"title":"…"}' '{"title":"as I knew it"}'
//   node todos.mjs remove ID
//
// FEED_URL: where pgflume feeds clients. TOKEN_URL: where your application gives out a token, as text. STATE: the file.
import { ShapeStream } from "@electric-sql/client";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

const { FEED_URL, TOKEN_URL, STATE = "todos.json" } = process.env;

// A token is used until half a minute before its end, or until it is refused.
let known;
const forget = () => void (known = undefined);
async function token() {
  while (!known || known.until < Date.now()) {
    const answer = await fetch(TOKEN_URL).catch(() => undefined);
    const text = answer?.ok && (await answer.text());
    if (!text) await pause(1000);
    else known = { text, until: 1000 * JSON.parse(Buffer.from(text.split(".")[1], "base64url")).exp - 30_000 };
    if (text) break; // also one that lives shorter
  }
  return `Bearer ${known.text}`;
}

function follow() {
  // What was written down at the last `up-to-date`: the rows, and where that was.
  const { rows: saved, ...place } = existsSync(STATE) ? JSON.parse(readFileSync(STATE, "utf8")) : { rows: [] };
  const rows = new Map(saved);
  const stream = new ShapeStream({
    url: `${FEED_URL}/v1/shape`,
    params: { table: "todos" },
    ...place, // offset and handle
    headers: { authorization: token },
    parser: { int8: (text) => text }, // else it is a BigInt, which JSON cannot say
    onError: async ({ status, message }) => {
      if (status !== 401) return console.error(message);
      forget();
      await pause(1000); // a token that is refused for another reason than its age is refused again
      return {}; // go on, with the headers anew
    },
  });
  stream.subscribe((messages) => {
    for (const { key, value, headers } of messages) {
      if (headers.control === "must-refetch") rows.clear();
      else if (headers.operation === "delete") rows.delete(key);
      else if (headers.operation) rows.set(key, { ...rows.get(key), ...value });
    }
    if (!messages.some(({ headers }) => headers.control === "up-to-date")) return;
    // Renamed into place: whoever is killed here has what was there before.
    const state = { offset: stream.lastOffset, handle: stream.shapeHandle, rows: [...rows] };
    writeFileSync(`${STATE}.new`, JSON.stringify(state));
    renameSync(`${STATE}.new`, STATE);
    console.log(JSON.stringify([...rows.values()].sort((a, b) => (a.id < b.id ? -1 : 1))));
  });
}

// Sends it until it is known what became of it: whatever was lost on the way, it is done once.
async function push(change) {
  const key = randomUUID();
  for (let rest = 250; ; rest = Math.min(2 * rest, 10_000)) {
    const headers = { authorization: await token(), "content-type": "application/json", "idempotency-key": key };
    const body = JSON.stringify({ client: "node", changes: [{ table: "todos", ...change }] });
    const answer = await fetch(`${FEED_URL}/v1/push`, { method: "POST", headers, body }).catch(() => undefined);
    if (answer?.ok) return await answer.json();
    if (answer?.status === 401) forget();
    else if (answer && answer.status !== 503) throw new Error(`${answer.status}: ${await answer.text()}`);
    await pause(1000 * answer?.headers.get("retry-after") || rest);
  }
}

const [verb, id, set, base] = process.argv.slice(2);
const op = { add: "insert", set: "update", remove: "delete" }[verb];
const members = { ...(set && { set: JSON.parse(set) }), ...(base && { base: JSON.parse(base) }) };
if (op) console.log(JSON.stringify(await push({ op, key: { id }, ...members })));
else follow();
