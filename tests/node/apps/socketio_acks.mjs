// Socket.IO with an acknowledgement for each message, over WebSocket alone, for the benchmark.
// usage: socketio_acks.mjs server|client WAY,KIND,PER_SECOND,MESSAGES,BYTES [URL]; the side that sends begins at a line on stdin.

import { createServer } from 'node:http';
import { once } from 'node:events';
import { io } from 'socket.io-client';
import { Server } from 'socket.io';

const [side, options, url] = process.argv.slice(2);
const [way, kind, perSecond, messages, bytes] = options.split(',');
const sends = (way === 'to-server') === (side === 'client');
const payload = kind === 'text' ? 'x'.repeat(Number(bytes)) : Buffer.alloc(Number(bytes), 1);
const say = (text) => process.stdout.write(`${text}\n`);

async function talk(socket) {
  await once(process.stdin, 'data');
  const startedAt = performance.now();
  const answers = [];
  while (answers.length < Number(messages)) {
    const due = Math.min(Number(messages), 1 + Math.floor(((performance.now() - startedAt) * Number(perSecond)) / 1000));
    while (answers.length < due) answers.push(socket.emitWithAck('message', payload));
    await new Promise((resolve) => setTimeout(resolve, Math.min(1000 / Number(perSecond), 10)));
  }
  await Promise.all(answers);
  say('done');
}

function attend(socket) {
  if (sends) talk(socket);
  else socket.on('message', (_, acknowledge) => acknowledge());
}

if (side === 'server') {
  const server = createServer();
  new Server(server, { transports: ['websocket'] }).on('connection', attend);
  server.listen(0, '127.0.0.1', () => say(server.address().port));
} else {
  const socket = io(url, { transports: ['websocket'] });
  socket.on('connect', () => {
    attend(socket);
    say('ready');
  });
}
