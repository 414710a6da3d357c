// The demo as a visitor meets it: the real binary, Chromium, the page's own buttons.
// SCREENSHOTS=DIR writes the pictures, among them the README's.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { launch } from './lib/browser.mjs';
import { Demo } from './lib/demo.mjs';

const BOUND_MS = 3_000;
const SLACK_MS = 1_000;
const DESKTOP = { width: 1280, height: 930 };
const PHONE = { width: 390, height: 844 };
const PICTURES = process.env.SCREENSHOTS;

let browser;
let demo;
before(async () => {
  browser = await launch();
  demo = await Demo.start();
});
after(async () => {
  await browser?.close();
  await demo?.stop();
});

/** A test with its own page; whatever it asked for and complained about is checked at the end. */
function visit(name, options, body) {
  test(name, { timeout: 60_000 }, async () => {
    const visitor = await demo.visit(browser, { viewport: DESKTOP, ...options });
    try {
      await visitor.connected();
      await body(visitor);
      visitor.assertAllFromOneOrigin();
      assert.deepEqual(visitor.complaints, [], 'the console stays empty');
    } finally {
      await visitor.close();
    }
  });
}

async function picture(visitor, name) {
  if (!PICTURES) return;
  mkdirSync(PICTURES, { recursive: true });
  // Long enough for the lanes to show that the browser goes on believing.
  await visitor.reads('detail', /^Line cut ([5-9]|\d\d)\.\d s ago/);
  await visitor.page.screenshot({ path: `${PICTURES}/${name}.png` });
}

/** Pulls the plug and waits until the app has been told; the page then shows what this is all about. */
async function unplugged(visitor) {
  const pulled = performance.now();
  await visitor.press('Pull the plug');
  await visitor.reads('app-state', /^CLOSED 4408$/);
  const took = performance.now() - pulled;
  assert.ok(took <= BOUND_MS + SLACK_MS, `the app was told after ${Math.round(took)} ms`);
  await visitor.reads('verdict', /^peer declared dead \(unreachable\): last byte [\d.]+ s ago, probes unanswered/);
  assert.equal(await visitor.text('browser-state'), 'OPEN');
  assert.equal(await visitor.text('browser-buffered'), '0 B');
  assert.match(await visitor.text('app-note'), /client unreachable/);
  await visitor.reads('headline', /^The browser still says OPEN\. The app already knows: unreachable\.$/);
}

visit('the plug is pulled: the browser says OPEN beside the verdict, the app got 4408', {}, async (visitor) => {
  await unplugged(visitor);
  await picture(visitor, 'demo');
  await visitor.press('Plug back in');
  await visitor.reads('browser-state', /^CLOSED$/);
  await visitor.reads('browser-note', /1006/);
  await visitor.press('Connect again');
  await visitor.connected();
});

visit('plugged back in before the verdict, nobody is evicted', {}, async (visitor) => {
  await visitor.press('Pull the plug');
  await visitor.reads('gate-state', /^SUSPECT$/);
  await visitor.press('Plug back in');
  await visitor.reads('gate-state', /^LIVE$/);
  await visitor.connected();
  await visitor.reads('headline', /^Back in time/);
  assert.equal(await visitor.text('browser-state'), 'OPEN');
  assert.equal(await visitor.text('app-state'), 'OPEN');
});

visit('in a tunnel the way to the browser still works, so both sides are told', {}, async (visitor) => {
  await visitor.press('Tunnel');
  await visitor.reads('app-state', /^CLOSED 4408$/);
  await visitor.reads('browser-note', /code 4408/);
  await visitor.reads('headline', /^Both sides were told\.$/);
});

visit('lag is no death', {}, async (visitor) => {
  await visitor.press('Lag');
  await visitor.reads('headline', /^Slow is not dead/);
  // A round trip that no clean line has: late bytes came all the way, and more than one bound has passed.
  await visitor.reads('gate-trip', /^\d{3,} ms$|^\d{3,}\.\d ms$/);
  await visitor.quiet(BOUND_MS * 2);
  assert.equal(await visitor.text('browser-state'), 'OPEN');
  assert.equal(await visitor.text('app-state'), 'OPEN');
  assert.match(await visitor.text('gate-state'), /^(LIVE|SUSPECT)$/);
});

visit('a reset is heard at once by everybody', {}, async (visitor) => {
  await visitor.press('Reset');
  await visitor.reads('browser-note', /code 1006/);
  await visitor.reads('app-state', /^CLOSED 1006$/);
  await visitor.reads('gate-note', /^reset$/);
});

visit('a restarted app is 1012 for the browser', {}, async (visitor) => {
  await visitor.press('Restart app');
  await visitor.reads('browser-note', /code 1012, “app connection lost”/);
  await visitor.reads('app-state', /^WAITING$/);
  await visitor.press('Connect again');
  await visitor.connected();
});

visit('the keyboard is enough', {}, async (visitor) => {
  await visitor.tabTo('Pull the plug');
  await visitor.page.keyboard.press('Enter');
  await visitor.reads('app-state', /^CLOSED 4408$/);
  await visitor.tabTo('Plug back in');
  await visitor.page.keyboard.press('Space');
  await visitor.reads('browser-state', /^CLOSED$/);
  await visitor.tabTo('Connect again');
  await visitor.page.keyboard.press('Enter');
  await visitor.connected();
  assert.equal(await visitor.focused(), 'Pull the plug');
});

visit('it fits a phone', { viewport: PHONE }, async (visitor) => {
  await unplugged(visitor);
  assert.equal(await visitor.page.evaluate('document.documentElement.scrollWidth'), PHONE.width);
  await picture(visitor, 'demo-narrow');
});

visit('it has a dark side, and keeps still when asked to', { colorScheme: 'dark', reducedMotion: 'reduce' },
  async (visitor) => {
    await unplugged(visitor);
    const { ground, moving } = await visitor.page.evaluate(() => ({
      ground: getComputedStyle(document.body).backgroundColor,
      moving: document.getAnimations().length,
    }));
    assert.deepEqual({ ground, moving }, { ground: 'rgb(14, 21, 20)', moving: 0 });
    await picture(visitor, 'demo-dark');
  });

test('other names and other pages are refused', async () => {
  const refused = async (path, init) => (await demo.ask(path, init)).status;
  assert.equal(await refused('/', { headers: { host: 'rebound.example' } }), 421);
  const foreign = { method: 'POST', headers: { origin: 'http://evil.example' } };
  assert.equal(await refused('/demo/restart', foreign), 403);
  assert.equal(await refused('/nothing'), 404);
  const page = await demo.ask('/');
  assert.match(page.headers['content-security-policy'], /^default-src 'self';/);
});
