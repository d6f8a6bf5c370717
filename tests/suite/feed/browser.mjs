// The page of examples/web in two browsers, one of which loses the network. ADDRESS says where, PARTS where Playwright is,
// OUT where the picture goes.
import { createRequire } from "node:module";
import { mkdir } from "node:fs/promises";
import { after, test } from "node:test";
import assert from "node:assert/strict";

const { ADDRESS: address, PARTS: parts, OUT: out } = process.env;
const { chromium } = createRequire(parts + "/")("playwright-core");

const opened = async (context) => {
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error(String(error)));
  page.on("console", (message) => console.error(message.text()));
  await page.goto(address);
  return page;
};
const shown = (page) =>
  page.locator("#list li").evaluateAll((lines) =>
    lines.map((line) => [line.children[1].value, line.children[0].checked]).map(([title, done]) => (done ? `${title}, done` : title)),
  );
const add = async (page, title) => {
  await page.getByLabel("New todo").fill(title);
  await page.getByRole("button", { name: "Add" }).click();
};
const line = async (page, title) => page.locator("#list li").nth((await shown(page)).findIndex((text) => text.startsWith(title)));
const rename = async (page, from, to) => {
  const input = (await line(page, from)).getByLabel("Title");
  await input.fill(to);
  await input.press("Enter");
};
const tick = async (page, title) => (await line(page, title)).getByLabel("Done").check();
const waits = (page, text) => page.locator("#state", { hasText: text }).waitFor();
// Until both pages show these, in this order.
async function show(pages, rows) {
  for (const page of pages) {
    const until = Date.now() + 30_000;
    while (JSON.stringify(await shown(page)) !== JSON.stringify(rows)) {
      assert(Date.now() < until, `${JSON.stringify(await shown(page))}, and not ${JSON.stringify(rows)}`);
      await page.waitForFunction((had) => document.querySelector("#list").innerHTML !== had || had === null, null, { timeout: 1000 }).catch(() => {});
    }
  }
}

let browser;
after(() => browser?.close());

test("one writes without a network, another meanwhile, and both end up with the same", { timeout: 120_000 }, async () => {
  browser = await chromium.launch({
    executablePath: parts + "/chromium",
    chromiumSandbox: process.getuid() !== 0, // Chromium refuses to run as root with its sandbox
    args: ["--disable-gpu", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
  });
  const contexts = [await browser.newContext({ viewport: { width: 640, height: 480 } }), await browser.newContext()];
  for (const context of contexts) context.setDefaultTimeout(30_000);
  const [ann, bob] = await Promise.all(contexts.map(opened));
  const both = [ann, bob];

  await waits(ann, "online, 0 waiting");
  await show(both, ["Buy bread"]);
  await add(ann, "Buy milk");
  await show(both, ["Buy bread", "Buy milk"]);
  await waits(ann, "online, 0 waiting");

  await contexts[0].setOffline(true);
  await rename(ann, "Buy milk", "Buy oat milk");
  await tick(ann, "Buy bread");
  await add(ann, "Written in a train");
  await waits(ann, "offline, 3 waiting");
  await show([ann], ["Buy bread, done", "Buy oat milk", "Written in a train"]);
  // The same column of one row, and another column of the other.
  await rename(bob, "Buy milk", "Buy soy milk");
  await rename(bob, "Buy bread", "Buy rye bread");
  await waits(bob, "online, 0 waiting");
  await show([bob], ["Buy rye bread", "Buy soy milk"]);

  await contexts[0].setOffline(false);
  await show(both, ["Buy rye bread, done", "Buy soy milk", "Written in a train"]);
  await waits(ann, "online, 0 waiting");
  await ann.getByText("Meanwhile: Buy soy milk").waitFor();
  await mkdir(out, { recursive: true });
  await ann.screenshot({ path: out + "/todos-conflict.png" });
  await ann.getByRole("button", { name: "Use mine: Buy oat milk" }).click();
  await show(both, ["Buy rye bread, done", "Buy oat milk", "Written in a train"]);

  // What waits outlives its page.
  await contexts[0].setOffline(true);
  await (await line(ann, "Written")).getByRole("button", { name: "Delete" }).click();
  await rename(ann, "Buy oat milk", "Buy milk of oats");
  await waits(ann, "offline, 2 waiting");
  await ann.close();
  await contexts[0].setOffline(false);
  both[0] = await opened(contexts[0]);
  await show(both, ["Buy rye bread, done", "Buy milk of oats"]);
  await waits(both[0], "online, 0 waiting");

  // Another tab of hers, which has no outbox of its own.
  both.push(await opened(contexts[0]));
  await show(both, ["Buy rye bread, done", "Buy milk of oats"]);
  await add(both[2], "Of another tab");
  await show(both, ["Buy rye bread, done", "Buy milk of oats", "Of another tab"]);
});
