// Todos that work offline: rows come by pgflume's feed, writes go by its `POST /v1/push`, both when there is a network.
import { createCollection } from "@tanstack/db";
import { electricCollectionOptions } from "@tanstack/electric-db-collection";
import { NonRetriableError, startOfflineExecutor } from "@tanstack/offline-transactions";

const COLUMNS = ["org", "title", "done", "created"]; // that clients may write
const element = (id) => document.getElementById(id);

// A token of the application that this page is of, and whose todos they are: kept until it is refused.
let known, org;
async function token() {
  known ??= await fetch("/token").then((answer) => answer.json());
  org = known.org;
  return `Bearer ${known.token}`;
}

const todos = createCollection(
  electricCollectionOptions({
    id: "todos",
    getKey: (row) => row.id,
    shapeOptions: {
      url: `${FEED_URL}/v1/shape`,
      params: { table: "todos" },
      headers: { authorization: token },
      parser: { int8: (text) => text }, // the outbox keeps JSON, which has no BigInt
      backoffOptions: { initialDelay: 200, maxDelay: 2000, multiplier: 1.5 },
      onError: async ({ status, message }) => {
        if (status && status !== 401) return console.error(message);
        known = undefined;
        return new Promise((resolve) => setTimeout(resolve, 1000, {})); // go on then, with another token
      },
    },
  }),
);
const writable = (row) => Object.fromEntries(Object.entries(row).filter(([name]) => COLUMNS.includes(name)));

// What the outbox calls until it does not throw, or throws a NonRetriableError; with the same key each time.
async function push({ transaction, idempotencyKey }) {
  const changes = transaction.mutations.map(({ type, key, changes, original }) => ({
    ...{ table: "todos", op: type, key: { id: key } },
    ...(type !== "delete" && { set: writable(changes) }),
    ...(type !== "insert" && { base: writable(original) }),
  }));
  const answer = await fetch(`${FEED_URL}/v1/push`, {
    method: "POST",
    headers: { authorization: await token(), "content-type": "application/json", "idempotency-key": idempotencyKey },
    body: JSON.stringify({ client: "a page", changes }),
  });
  // By these words alone it is sent again; a status in them would end it.
  if (answer.status === 401) known = undefined;
  if ([401, 503].includes(answer.status)) throw new Error("again");
  if (!answer.ok) throw new NonRetriableError(await answer.text());
  const { txid, results } = await answer.json();
  const stuck = results.findIndex(({ status }) => status === "conflict" || status === "rejected");
  if (stuck >= 0) {
    tell(changes[stuck], results[stuck]);
    throw new NonRetriableError(results[stuck].status); // the row becomes what it is for others
  }
  await todos.utils.awaitTxId(txid, 20_000).catch(() => { throw new Error("written, and not here yet"); });
}
const outbox = startOfflineExecutor({ collections: { todos }, mutationFns: { push } });
function write(change) {
  const transaction = outbox.createOfflineTransaction({ mutationFnName: "push", autoCommit: false });
  transaction.mutate(change);
  transaction.commit().catch((e) => console.warn(e.message));
}
// Somebody else was first: what is there now stays, unless one says otherwise.
function tell({ op, key, set }, { status, now, code }) {
  const line = document.createElement("li");
  line.append(status === "rejected" ? `Refused: ${code}` : now ? `Meanwhile: ${now.title}` : "It is gone");
  const mine = Object.assign(document.createElement("button"), { textContent: `Use mine: ${set?.title ?? op}` });
  mine.onclick = () => (line.remove(), write(() => todos.update(key.id, (row) => void Object.assign(row, set))));
  if (now && op === "update") line.append(mine);
  element("conflicts").append(line);
}
async function show() {
  const { length } = await outbox.peekOutbox();
  element("state").textContent = `${navigator.onLine ? "online" : "offline"}, ${length} waiting`;
  if (element("list").contains(document.activeElement)) return; // nobody's typing is written over
  const rows = [...todos.values()].sort((a, b) => Number(a.created) - Number(b.created));
  element("list").replaceChildren(...rows.map(({ id, title, done }) => {
    const line = document.createElement("li");
    line.innerHTML = '<input type="checkbox" aria-label="Done"><input aria-label="Title"><button>Delete</button>';
    const [check, text, remove] = line.children;
    [check.checked, text.value] = [done, title];
    check.onchange = () => (check.blur(), write(() => todos.update(id, (row) => void (row.done = check.checked))));
    text.onchange = () => (text.blur(), write(() => todos.update(id, (row) => void (row.title = text.value))));
    remove.onclick = () => (remove.blur(), write(() => todos.delete(id)));
    return line;
  }));
}
element("new").onsubmit = (event) => {
  event.preventDefault();
  const title = event.target.elements.title.value;
  write(() => todos.insert({ id: crypto.randomUUID(), org, title, done: false, created: String(Date.now()) }));
  event.target.reset();
};
todos.subscribeChanges(show);
setInterval(show, 500);
