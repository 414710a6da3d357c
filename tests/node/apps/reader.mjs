// Unmodified `ws` clients that come back whenever their connection is gone, and tell what they have read.
// usage: reader.mjs URL…; a line per message: its URL's query, its first word, its length. Ends with its stdin.

import { WebSocket } from 'ws';

const PAUSE_MS = 100;

function connect(url) {
  const who = new URL(url).searchParams.get('who');
  const ws = new WebSocket(url);
  ws.on('message', (data) => process.stdout.write(`${who} ${data.toString().split(' ', 1)[0]} ${data.length}\n`));
  ws.on('error', () => {});
  ws.on('close', () => setTimeout(connect, PAUSE_MS, url));
}

process.argv.slice(2).forEach(connect);
process.stdin.on('end', () => process.exit(0)).resume();
