// Debian's Chromium, driven from outside; no other browser is ever downloaded.

import { chromium } from 'playwright-core';

const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** One browser for a test file. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium', headless: true, args: ARGUMENTS,
  });
}

/** A page in a fresh context, opened through the gateway, with its socket open. */
export async function openChat(kit, browser, gateway) {
  const context = await browser.newContext();
  kit.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`http://${gateway.data}/`);
  await seen(page, ({ type }) => type === 'open');
  return { context, page };
}

/** What the page's handlers saw, once some of it `matches`. */
export async function seen(page, matches, limit = 10_000) {
  const handle = await page.waitForFunction(
    `seen.find(${matches})`,
    undefined, { timeout: limit, polling: 20 });
  return handle.jsonValue();
}
