// The app of every tutorial: `ws` on an http server that also serves the page. It knows nothing of a gateway.
// What its handlers see goes to stdout, one JSON object a line.

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { WebSocketServer } from 'ws';

const report = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));
const page = readFileSync(new URL('chat.html', import.meta.url));
const host = process.argv[2] ?? '127.0.0.1';

const server = createServer((request, response) => {
  response.setHeader('content-type', 'text/html; charset=utf-8');
  response.end(page);
});
const wss = new WebSocketServer({ server });

wss.on('connection', (ws, request) => {
  report('connection', { session: request.headers['pulsegate-session'], origin: request.headers.origin });
  ws.on('message', (data, isBinary) => {
    if (!isBinary && data.toString() === 'please close') ws.close(4001, 'the app says goodbye');
    else ws.send(data, { binary: isBinary });
  });
  ws.on('close', (code, reason) => report('close', { code, reason: reason.toString() }));
  ws.on('error', (error) => report('error', { message: error.message }));
});

server.listen(0, host, () => report('listening', { port: server.address().port }));
