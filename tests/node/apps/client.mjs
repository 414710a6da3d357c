// A `ws` client in its own process, so that a test can put it into another network.
// usage: client.mjs URL; lines on stdin are sent as they are, the line "state" reports readyState.

import { createInterface } from 'node:readline';
import { WebSocket } from 'ws';

const report = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));
const ws = new WebSocket(process.argv[2]);

ws.on('open', () => report('open'));
ws.on('message', (data) => report('message', { text: data.toString() }));
ws.on('close', (code, reason) => report('close', { code, reason: reason.toString() }));
ws.on('error', (error) => report('error', { message: error.message }));

createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'state') report('state', { readyState: ws.readyState });
  else ws.send(line);
});
