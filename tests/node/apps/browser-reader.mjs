// WebSockets of a page in Chromium that come back whenever their connection is gone, and tell what the page has read.
// usage: browser-reader.mjs URL…; a line per message: its URL's query, its first word, its length. Ends with its stdin.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { launch } from '../lib/browser.mjs';

const PAUSE_MS = 100;
// What the browser has read gets to the page by then.
const QUIET_MS = 500;

let toldAt = Date.now();

function tell(line) {
  toldAt = Date.now();
  process.stdout.write(`${line}\n`);
}

/** Runs in the page. */
function connect([urls, pauseMs]) {
  const open = (url) => {
    const who = new URL(url).searchParams.get('who');
    const ws = new WebSocket(url);
    ws.onmessage = ({ data }) => globalThis.tell(`${who} ${data.split(' ', 1)[0]} ${data.length}`);
    ws.onclose = () => setTimeout(open, pauseMs, url);
  };
  urls.forEach(open);
}

// A page of a server of this machine: others may not be let into its network.
const server = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html>'));
await once(server.listen(0, '127.0.0.1'), 'listening');
const browser = await launch();
const page = await browser.newPage();
await page.exposeFunction('tell', tell);
await page.goto(`http://127.0.0.1:${server.address().port}/`);
await page.evaluate(connect, [process.argv.slice(2), PAUSE_MS]);

await once(process.stdin.resume(), 'end');
while (Date.now() - toldAt < QUIET_MS) await sleep(QUIET_MS / 10);
await browser.close();
process.exit(0);
