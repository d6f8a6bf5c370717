// Bundles the page, serves it, and gives out tokens where your application would have people sign in: to whoever asks, so
// only to this machine. FEED_URL, FEED_JWT_SECRET, ROLE, ORG, PORT.
import { build } from "esbuild";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const { FEED_URL, FEED_JWT_SECRET, ROLE = "authenticated", ORG = "acme", PORT = "8080" } = process.env;
const here = import.meta.dirname;
const define = { FEED_URL: JSON.stringify(FEED_URL) };
const { outputFiles } = await build({ entryPoints: [`${here}/app.js`], bundle: true, format: "esm", minify: true, write: false, define });

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
function token() {
  const claims = { sub: "ann", org: ORG, role: ROLE, exp: Math.floor(Date.now() / 1000) + 300 };
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return { org: ORG, token: `${text}.${createHmac("sha256", FEED_JWT_SECRET).update(text).digest("base64url")}` };
}

const server = createServer(({ url }, answer) => {
  const given = {
    "/": ["text/html", () => readFileSync(`${here}/index.html`)],
    "/app.js": ["text/javascript", () => outputFiles[0].contents],
    "/token": ["application/json", () => JSON.stringify(token())],
  }[url];
  if (!given) return answer.writeHead(404).end();
  answer.writeHead(200, { "content-type": given[0] }).end(given[1]());
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(JSON.stringify(`http://127.0.0.1:${server.address().port}`)));
