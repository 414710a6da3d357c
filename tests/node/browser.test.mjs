// A page in Chromium with the four handlers, its app behind the gateway, both on one origin.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch, openChat, seen } from './lib/browser.mjs';
import { scenario } from './lib/scenario.mjs';

const INTERVAL_MS = 1_000;
const VERDICT_MS = 1_500;
const FROZEN_MS = 1_500;
const SLACK_MS = 1_000;
const SHORT = {
  'liveness.ping_interval': `${INTERVAL_MS}ms`,
  'liveness.verdict_after': `${VERDICT_MS}ms`,
  'liveness.app_frozen_after': `${FROZEN_MS}ms`,
};

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

async function chat(kit, set = {}) {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url, { set });
  return { app, gateway, ...(await openChat(kit, browser, gateway)) };
}

scenario('the page opens its socket on its own origin and gets its echoes', async (kit) => {
  const { app, gateway, page } = await chat(kit);
  await page.evaluate("ws.send('hello'); ws.send(new Uint8Array([0, 1, 254, 255]))");
  await seen(page, ({ data }) => data === 'hello');
  await seen(page, ({ data }) => data?.join?.() === '0,1,254,255');
  const { origin } = await app.report(({ event }) => event === 'connection', 'connection');
  assert.equal(origin, `http://${gateway.data}`);
});

scenario('a close by the page reaches the app', async (kit) => {
  const { app, page } = await chat(kit);
  await page.evaluate("ws.close(3001, 'the page is done')");
  const { code, reason } = await app.report(({ event }) => event === 'close', 'close');
  assert.deepEqual({ code, reason }, { code: 3001, reason: 'the page is done' });
  const closed = await seen(page, ({ type }) => type === 'close');
  assert.deepEqual(closed, { type: 'close', code: 3001, reason: 'the page is done', wasClean: true });
});

scenario('a close by the app reaches the page', async (kit) => {
  const { app, page } = await chat(kit);
  await page.evaluate("ws.send('please close')");
  const closed = await seen(page, ({ type }) => type === 'close');
  assert.deepEqual(closed, { type: 'close', code: 4001, reason: 'the app says goodbye', wasClean: true });
  assert.equal((await app.report(({ event }) => event === 'close', 'close')).code, 4001);
});

scenario('a page that is left is a 1001 for the app', async (kit) => {
  const { app, page } = await chat(kit);
  await page.goto('about:blank');
  assert.equal((await app.report(({ event }) => event === 'close', 'close')).code, 1001);
});

scenario('a killed app is a clean 1012 for the page', async (kit) => {
  const { app, page } = await chat(kit);
  app.signal('SIGKILL');
  const closed = await seen(page, ({ type }) => type === 'close');
  assert.equal(closed.code, 1012);
  assert.equal(closed.wasClean, true);
});

scenario('a stopped app is a 1013 for the page within the bound', async (kit) => {
  const { app, page } = await chat(kit, SHORT);
  app.signal('SIGSTOP');
  const closed = await seen(page, ({ type }) => type === 'close', INTERVAL_MS + FROZEN_MS + SLACK_MS);
  assert.equal(closed.code, 1013);
});
