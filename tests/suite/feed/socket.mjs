// Two shapes on one WebSocket, in Node or, where PARTS says where Playwright is, in a browser. Prints all rows whenever
// both are up to date. A connection that ends is made anew, and goes on from where it was.
import { createRequire } from "node:module";

const { ADDRESS: address, PARTS: parts } = process.env;

function follow(address) {
  const shapes = new Map(["todos", "lists"].map((table) => [table, { rows: new Map(), offset: "-1", parts: [], isWhole: false }]));
  const apply = (shape, { headers, key, value }) => {
    if (headers.control === "must-refetch") shape.rows.clear();
    else if (headers.control === "up-to-date") shape.isWhole = true;
    else if (headers.operation === "delete") shape.rows.delete(key);
    else if (headers.operation) shape.rows.set(key, { ...shape.rows.get(key), ...value });
  };
  const connect = () => {
    const socket = new WebSocket(address);
    socket.onopen = () => {
      for (const [table, { offset, handle }] of shapes)
        socket.send(JSON.stringify({ type: "subscribe", id: table, table, offset, ...(handle && { handle }) }));
    };
    socket.onmessage = ({ data }) => {
      const { id, messages, offset, handle, status } = JSON.parse(data);
      const shape = shapes.get(id);
      if (status === 503 || !shape) return;
      shape.parts.push(...messages);
      if (!offset && status !== 409) return;
      shape.parts.splice(0).forEach((message) => apply(shape, message));
      Object.assign(shape, status === 409 ? { offset: "-1", handle: undefined } : { offset, handle });
      if ([...shapes.values()].every(({ isWhole }) => isWhole))
        print([...shapes].flatMap(([table, { rows }]) => [...rows.values()].map(({ id, title }) => `${table} ${id} ${title}`)).sort());
    };
    socket.onclose = () => {
      for (const shape of shapes.values()) shape.parts = [];
      setTimeout(connect, 100);
    };
  };
  connect();
}

globalThis.print = (rows) => console.log(JSON.stringify(rows));
if (parts) {
  const { chromium } = createRequire(parts + "/")("playwright-core");
  const browser = await chromium.launch({
    executablePath: parts + "/chromium",
    chromiumSandbox: process.getuid() !== 0, // Chromium refuses to run as root with its sandbox
    args: ["--disable-gpu", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
  });
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(String(error)));
  await page.exposeFunction("print", globalThis.print);
  await page.evaluate(follow, address);
} else follow(address);
