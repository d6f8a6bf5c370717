// What users of NebulaDB's sync plugin do, done with the clients that pgflume feeds: docs/from-nebuladb.md shows lines of it.
// FEED_URL, and TOKENS: those of somebody of org a, of one of org b, and one that lacks the claim.
import { Shape, ShapeStream } from "@electric-sql/client";
import { createCollection } from "@tanstack/db";
import { electricCollectionOptions } from "@tanstack/electric-db-collection";
import { NonRetriableError, startOfflineExecutor } from "@tanstack/offline-transactions";
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

const url = process.env.FEED_URL;
const [ann, bob, nobody] = JSON.parse(process.env.TOKENS);
const log = [];
const tokenOfTheApplication = async () => ann;

async function until(what, condition) {
  for (const end = Date.now() + 30_000; !(await condition()); await pause(5)) assert(Date.now() < end, what);
}
const write = async (table, change, token = ann, key = crypto.randomUUID()) => {
  const answer = await fetch(`${url}/v1/push?wait=10000`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", "idempotency-key": key },
    body: JSON.stringify({ client: "test", changes: [{ table, ...change }] }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).results[0];
};
const insert = (table, id, title, more) => write(table, { op: "insert", key: { id }, set: { org: "a", title, ...more } });

// serverUrl, authToken, collections, useWebSockets, retry and logging are options of a stream; a collection each.
const streams = new Map();
function addCollection(table, place = {}, more = {}) {
  const controller = new AbortController();
  const messages = [];
  const stream = new ShapeStream({
    url: `${url}/v1/shape`,
    params: { table },
    headers: { authorization: async () => `Bearer ${await tokenOfTheApplication()}` },
    signal: controller.signal,
    liveSse: true,
    backoffOptions: { initialDelay: 1000, maxDelay: 30_000, multiplier: 2, maxRetries: 5 },
    onError: (error) => void log.push(error),
    ...place,
    ...more,
  });
  assert(!stream.hasStarted());
  stream.subscribe((told) => messages.push(...told.filter(({ key }) => key)));
  streams.set(table, { stream, controller, messages });
  return streams.get(table);
}
function removeCollection(table) {
  const { stream, controller } = streams.get(table);
  stream.unsubscribeAll();
  controller.abort();
  streams.delete(table);
}
const getCollections = () => [...streams.keys()];

const { stream, controller, messages } = addCollection("merged");
assert.equal(stream.isConnected(), false);
await until("connected", () => stream.isUpToDate && stream.isConnected());
assert(Date.now() - stream.lastSyncedAt() < 30_000);
assert.deepEqual(messages.map(({ value }) => value.title), ["first"]);
addCollection("others", {}, { liveSse: false });
assert.deepEqual(getCollections(), ["merged", "others"]);
await insert("merged", "1", "by events");
await insert("others", "1", "by polls");
await until("both told", () => messages.length === 2 && streams.get("others").messages.length === 1);
removeCollection("others");
assert.deepEqual(getCollections(), ["merged"]);

// syncNow: resolves when it has asked again.
const before = stream.lastSyncedAt();
await pause(5);
await stream.forceDisconnectAndRefresh();
await until("asked again", () => stream.lastSyncedAt() > before);

// disable, and enable from where it was: only what came meanwhile is told.
const place = { offset: stream.lastOffset, handle: stream.shapeHandle };
controller.abort();
await until("off", () => !stream.isConnected());
await insert("merged", "2", "meanwhile");
const again = addCollection("merged", place);
await until("told", () => again.messages.length > 0);
assert.deepEqual(again.messages.map(({ value }) => value.title), ["meanwhile"]);
assert.equal(messages.length, 2);

// Who is refused hears it, and it is not tried again.
for (const [token, status] of [["x", 401], [nobody, 403]]) {
  const { stream } = addCollection("merged", {}, { headers: { authorization: `Bearer ${token}` } });
  await until("refused", () => stream.error);
  assert.equal(stream.error.status, status);
  assert.equal(log.pop().status, status);
}
const ofBob = addCollection("merged", {}, { headers: { authorization: `Bearer ${bob}` } });
await until("bob is told", () => ofBob.stream.isUpToDate);
assert.deepEqual(ofBob.messages, []);
[...streams.keys()].forEach(removeCollection);

// Writes wait while there is no network, and go by themselves when there is.
const todos = createCollection(
  electricCollectionOptions({
    id: "todos",
    getKey: (row) => row.id,
    shapeOptions: { url: `${url}/v1/shape`, params: { table: "merged" }, headers: { authorization: `Bearer ${ann}` } },
  }),
);
await todos.preload();
const heard = new Set();
let isOnline = false;
const onlineDetector = {
  isOnline: () => isOnline,
  subscribe: (callback) => (heard.add(callback), () => heard.delete(callback)),
  notifyOnline: () => heard.forEach((callback) => callback()),
  dispose: () => heard.clear(),
};
const leaderElection = {
  requestLeadership: async () => true,
  releaseLeadership: () => {},
  isLeader: () => true,
  onLeadershipChange: () => () => {},
};
// What it finds by itself in a browser.
const ofNode = { onlineDetector, leaderElection };
// storage: whatever keeps text by a name.
const texts = new Map();
const storage = {
  get: async (key) => texts.get(key) ?? null,
  set: async (key, value) => void texts.set(key, value),
  delete: async (key) => void texts.delete(key),
  keys: async () => [...texts.keys()],
  clear: async () => texts.clear(),
};
const mutationFns = {
  push: async ({ transaction, idempotencyKey }) => {
    const [{ key, changes }] = transaction.mutations;
    const { org, title } = changes;
    const { status } = await write("merged", { op: "insert", key: { id: key }, set: { org, title } }, ann, idempotencyKey);
    if (status !== "applied") throw new NonRetriableError(status);
  },
};
const outbox = startOfflineExecutor({ collections: { todos }, ...ofNode, mutationFns, storage });
await outbox.waitForInit();
const queue = (id) => {
  const transaction = outbox.createOfflineTransaction({ mutationFnName: "push", autoCommit: false });
  const shown = transaction.mutate(() => todos.insert({ id, org: "a", title: "offline" }));
  transaction.commit().catch((error) => log.push(error));
  return shown;
};
const waiting = [queue("3"), queue("4")];
const pendingEvents = async () => (await outbox.peekOutbox()).length;
await until("two wait", async () => (await pendingEvents()) === 2);
assert(todos.has("3") && texts.size === 2);
await outbox.clearOutbox();
waiting.forEach((transaction) => transaction.rollback());
assert.equal(await pendingEvents(), 0);
assert(!todos.has("3"));
queue("5");
await until("one waits", async () => (await pendingEvents()) === 1);
isOnline = true;
outbox.getOnlineDetector().notifyOnline();
await until("it is written", async () => (await pendingEvents()) === 0);
await until("it is told", () => todos.get("5")?.title === "offline" && todos.size === 4);

// The strategies, of a table each: somebody changed the title after it was "first".
const update = (table, set, base) => write(table, { op: "update", key: { id: "0" }, set, base });
async function titleOf(table) {
  const controller = new AbortController();
  const headers = { authorization: `Bearer ${ann}` };
  const shape = new Shape(new ShapeStream({ url: `${url}/v1/shape`, params: { table }, headers, signal: controller.signal }));
  const { title } = (await shape.rows).find(({ id }) => id === "0");
  controller.abort();
  return title;
}
assert.equal((await update("merged", { title: "second" }, { title: "first" })).status, "applied");
assert.equal((await update("merged", { title: "mine" }, { title: "first" })).now.title, "second");
assert.equal((await update("merged", { note: "mine" }, { note: null, title: "first" })).status, "applied");
assert.equal((await update("server_wins", { note: "mine" }, { note: null, title: "older" })).status, "conflict");
assert.equal((await update("client_wins", { title: "mine" }, { title: "older" })).status, "applied");
assert.equal(await titleOf("client_wins"), "mine");
assert.equal((await update("last_write_wins", { title: "mine", at: "2026-01-01T00:00:00Z" })).status, "applied");
assert.equal((await update("last_write_wins", { title: "late", at: "2025-12-31T23:59:59Z" })).status, "conflict");
assert.equal(await titleOf("last_write_wins"), "mine");
const tomorrow = new Date(Date.now() + 86_400_000).toISOString();
assert.equal((await update("last_write_wins", { title: "ahead", at: tomorrow })).code, "22008");
assert.equal((await update("customs", { title: "mine" }, { title: "older" })).status, "applied");
assert.equal(await titleOf("customs"), "first & mine");
await todos.cleanup();
console.log(JSON.stringify("done"));
process.exit(0);
