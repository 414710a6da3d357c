// A page in Chromium in its own process tree, so that a test can put the whole browser into another network.
// usage: browser.mjs URL; lines on stdin are sent by the page, the line "state" reports what the page believes.

import { createInterface } from 'node:readline';
import { launch } from '../lib/browser.mjs';

const report = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));
const browser = await launch();
const page = await browser.newPage();
await page.exposeFunction('report', report);
await page.goto(`http://${new URL(process.argv[2]).host}/`);
await page.evaluate(`
  ws.addEventListener('message', ({ data }) => report('message', { text: data }));
  ws.addEventListener('close', ({ code, reason }) => report('close', { code, reason }));
`);
await page.waitForFunction('ws.readyState === WebSocket.OPEN');
report('open');

createInterface({ input: process.stdin }).on('line', async (line) => {
  if (line === 'state') report('state', { readyState: await page.evaluate('ws.readyState') });
  else await page.evaluate((text) => ws.send(text), line);
}).on('close', () => browser.close());
