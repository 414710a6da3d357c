// A running `pulsegate demo` and its visitors.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { binary } from './gateway.mjs';
import { Process } from './process.mjs';
import { eventually, WAIT_MAX_MS } from './wait.mjs';

const STOP_MAX_MS = 10_000;
const TABS_MAX = 20;

export class Demo {
  static async start() {
    const demo = new Demo();
    demo.process = new Process('demo', binary(), ['demo']);
    const link = () => demo.process.lines.find((line) => /page\s+http/.test(line));
    const line = await eventually(link, 'the demo prints its links');
    demo.origin = /http:\/\/127\.0\.0\.1:\d+/.exec(line)[0];
    return demo;
  }

  /** A request as no browser lets a page make it: with any Host and Origin. */
  async ask(path, { method = 'GET', headers = {} } = {}) {
    const asked = request(`${this.origin}${path}`, { method, headers });
    asked.end();
    const [answer] = await once(asked, 'response');
    answer.resume();
    return { status: answer.statusCode, headers: answer.headers };
  }

  async visit(browser, options) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    const visitor = new Visitor(this.origin, context, page);
    await page.goto(this.origin);
    return visitor;
  }

  async stop() {
    this.process.signal('SIGTERM');
    const { code, signal } = await this.process.ended(STOP_MAX_MS);
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, 'the demo ends cleanly on SIGTERM');
  }
}

class Visitor {
  requests = [];
  complaints = [];

  constructor(origin, context, page) {
    Object.assign(this, { origin, context, page });
    page.on('request', (asked) => this.requests.push(asked.url()));
    page.on('websocket', (socket) => this.requests.push(socket.url().replace(/^ws:/, 'http:')));
    page.on('console', (line) => ['error', 'warning'].includes(line.type()) && this.complaints.push(line.text()));
    page.on('pageerror', (error) => this.complaints.push(error.message));
  }

  text(id) {
    return this.page.textContent(`#${id}`);
  }

  /** Waits until the element with this id reads so. */
  async reads(id, pattern, limit = WAIT_MAX_MS) {
    try {
      await this.page.waitForFunction(
        ([name, source]) => new RegExp(source).test(document.getElementById(name).textContent),
        [id, pattern.source], { timeout: limit, polling: 20 });
    } catch {
      assert.fail(`#${id} reads “${await this.text(id)}”, not ${pattern}`);
    }
  }

  /** All three see the connection, and an echo has come. */
  async connected() {
    await this.reads('browser-state', /^OPEN$/);
    await this.reads('gate-state', /^LIVE$/);
    await this.reads('app-state', /^OPEN$/);
    await this.reads('gate-trip', /ms$/);
    await this.reads('browser-last', /^\d\.\d s ago$/);
  }

  press(name) {
    return this.page.getByRole('button', { name }).click();
  }

  focused() {
    return this.page.evaluate(() => document.activeElement?.textContent ?? '');
  }

  /** Goes through the page with Tab alone; what has the focus must show it. */
  async tabTo(name) {
    for (let tabs = 0; tabs < TABS_MAX; tabs += 1) {
      if ((await this.focused()) === name) {
        assert.notEqual(
          await this.page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
        return;
      }
      await this.page.keyboard.press('Tab');
    }
    assert.fail(`no way to “${name}” with ${TABS_MAX} tabs`);
  }

  /** Time is the matter under test: nothing may happen for this long. */
  quiet(ms) {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }

  assertAllFromOneOrigin() {
    assert.ok(this.requests.some((url) => url.includes('/ws?')), 'the socket is among the requests');
    assert.deepEqual(this.requests.filter((url) => new URL(url).origin !== this.origin), []);
  }

  close() {
    return this.context.close();
  }
}
