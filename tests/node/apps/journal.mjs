// An app that tells each message before it answers for it, so that what was told is what it has had, even if it is killed.
// usage: journal.mjs HOST PORT [dies-after=MESSAGES] [closes-for=SECONDS]

import { writeSync } from 'node:fs';
import { WebSocketServer } from 'ws';

const [host, port, ...rest] = process.argv.slice(2);
const options = Object.fromEntries(rest.map((option) => option.split('=')));
const report = (event, fields) => writeSync(1, JSON.stringify({ event, ...fields }) + '\n');

const startedAt = Date.now();
const isIll = () => Date.now() - startedAt < 1000 * (options['closes-for'] ?? 0);
let messages = 0;
const server = new WebSocketServer({ host, port: Number(port) });

server.on('listening', () => report('listening', { port: server.address().port }));
server.on('connection', (ws, request) => {
  const name = new URL(request.url, 'http://app').searchParams.get('name');
  const session = request.headers['pulsegate-session'];
  const resumed = request.headers['pulsegate-resumed'] === '?1';
  report('opened', { name, session, resumed, replayed: Number(request.headers['pulsegate-replayed'] ?? 0) });
  ws.on('close', (code) => report('closed', { name, session, code }));
  if (isIll()) return ws.close(1011, 'not well');
  // ws tells a message before it reads the ping behind it.
  ws.on('message', (data) => {
    report('arrived', { name, text: String(data) });
    messages += 1;
    if (messages === Number(options['dies-after'])) process.kill(process.pid, 'SIGKILL');
  });
});

process.on('SIGTERM', () => {
  for (const ws of server.clients) ws.close(1001, 'restarts');
  server.close(() => process.exit(0));
});
