// The dashboard as somebody sees it who has the secret: at desktop and phone width, light and dark, by keyboard, with a
// screen reader's rules (axe-core). ADDRESS and SECRET say where, PARTS where Playwright is, OUT where pictures go.
import { createRequire } from 'node:module';
import { mkdir } from 'node:fs/promises';
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';

const { ADDRESS: address, SECRET: secret, PARTS: parts, OUT: out } = process.env;
const require = createRequire(parts + '/');
const { chromium } = require('playwright-core');
const axe = require('axe-core').source;

let browser;
before(async () => {
  await mkdir(out, { recursive: true });
  browser = await chromium.launch({
    executablePath: parts + '/chromium',
    chromiumSandbox: process.getuid() !== 0, // Chromium refuses to run as root with its sandbox
    timeout: 60_000,
    args: ['--disable-gpu', '--disable-quic', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'],
  });
});
after(() => browser?.close());

async function opened(options) {
  const context = await browser.newContext({ reducedMotion: 'reduce', locale: 'en-GB', timezoneId: 'UTC', ...options });
  context.setDefaultTimeout(30_000);
  const page = await context.newPage();
  page.troubles = [];
  page.on('pageerror', (error) => page.troubles.push(String(error)));
  // Who has no session is told so by a 401.
  page.on('console', (message) => message.type() === 'error' && !message.text().includes('401') && page.troubles.push(message.text()));
  page.on('request', (request) => request.url().startsWith(address) || request.url().startsWith('data:') || page.troubles.push('asks ' + request.url()));
  await page.goto(address + '/');
  return page;
}

async function signIn(page) {
  await page.getByLabel('The webhook secret').fill(secret);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'replicate_data_libsql' }).waitFor();
}

async function violations(page) {
  await page.evaluate(axe + ';0');
  const found = await page.evaluate(() => axe.run(document, {
    resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  }));
  return found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`);
}

for (const [name, width, height] of [['desktop', 1280, 900], ['phone', 390, 844]]) {
  for (const colorScheme of ['light', 'dark']) {
    test(`${name}, ${colorScheme}`, { timeout: 120_000 }, async () => {
      // axe-core is put into the page, which the page's own policy forbids.
      const page = await opened({ viewport: { width, height }, colorScheme, bypassCSP: true });
      assert.deepEqual(await violations(page), [], 'signing in');
      await signIn(page);
      for (const text of ['Needs attention', 'PF-003', 'waiting', 'Dead letters (1)', 'No longer as it was set up', 'shop']) {
        await page.getByText(text).first().waitFor();
      }
      await page.getByText('Dead letters (1)').click();
      await page.getByRole('button', { name: /^Retry dead letter/ }).waitFor();
      assert.ok(await page.getByRole('progressbar').count() >= 1, 'a copy shows how far it is');
      const sideways = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
      assert.equal(sideways, false, 'it scrolls sideways');
      assert.deepEqual(await violations(page), [], 'signed in');
      await page.screenshot({ path: `${out}/${name}-${colorScheme}.png`, fullPage: true, animations: 'disabled' });
      assert.deepEqual(page.troubles, []);
      await page.context().close();
    });
  }
}

test('by keyboard alone, under its own policy', { timeout: 120_000 }, async () => {
  const page = await opened({ viewport: { width: 1280, height: 900 } });
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'secret');
  await page.keyboard.type('not the secret');
  await page.keyboard.press('Enter');
  await page.getByText('That is not the secret.').waitFor();
  await signIn(page);
  const reached = [];
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const style = getComputedStyle(document.activeElement);
      return { text: document.activeElement.getAttribute('aria-label') || document.activeElement.textContent, outline: style.outlineStyle };
    });
    if (reached.some((other) => other.text === at.text)) break;
    reached.push(at);
  }
  const texts = reached.map((at) => at.text);
  for (const wanted of ['Sign out', 'Drain now', 'Rebuild t']) assert.ok(texts.includes(wanted), `${wanted} in ${texts}`);
  assert.ok(reached.every((at) => at.text === texts.at(-1) || at.outline === 'solid'), 'what has the focus shows it');
  // It stays where it is while the page is renewed.
  await page.getByRole('button', { name: 'Rebuild t' }).focus();
  await page.waitForResponse((answer) => answer.url().endsWith('/dashboard/data'));
  await page.waitForFunction(() => document.activeElement.getAttribute('aria-label') === 'Rebuild t');
  // A letter is dropped.
  page.on('dialog', (dialog) => dialog.accept());
  await page.getByText('Dead letters (1)').focus();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: /^Drop dead letter/ }).click();
  await page.getByText('It is dropped.').waitFor();
  await page.getByText('Dead letters (1)').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('The webhook secret').waitFor();
  assert.equal(await page.getByRole('heading', { name: 'replicate_data_libsql' }).count(), 0);
  assert.deepEqual(page.troubles, []);
});
