// Socket.IO 4, unmodified, over each of its ways.

import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { scenario } from './lib/scenario.mjs';
import { within, WAIT_MAX_MS } from './lib/wait.mjs';

async function open(kit, options) {
  const app = await kit.app('socketio.mjs');
  const gateway = await kit.gateway(app.url);
  const socket = io(`http://${gateway.data}`, { ...options, reconnection: false, forceNew: true });
  kit.after(() => socket.disconnect());
  await connected(socket);
  return { app, gateway, socket };
}

/** `EventEmitter.once` of node does not know this emitter. */
function connected(socket) {
  return within(new Promise((resolve, reject) => {
    socket.on('connect', resolve);
    socket.on('connect_error', reject);
  }), WAIT_MAX_MS, 'Socket.IO connects');
}

async function exchange(socket) {
  const bytes = Buffer.from([0, 127, 255]);
  const [text, back] = await new Promise((resolve, reject) => {
    socket.timeout(WAIT_MAX_MS).emit('shout', 'hello', bytes, (error, ...answer) => (error ? reject(error) : resolve(answer)));
  });
  assert.equal(text, 'HELLO');
  assert.deepEqual(Buffer.from(back), bytes);
}

scenario('Socket.IO over WebSocket alone', async (kit) => {
  const { app, gateway, socket } = await open(kit, { transports: ['websocket'] });
  await exchange(socket);
  assert.equal((await app.report(({ event }) => event === 'connection', 'connection')).transport, 'websocket');
  assert.equal((await gateway.session()).path, '/socket.io/');
  socket.disconnect();
  await app.report(({ event, reason }) => event === 'disconnect' && reason === 'client namespace disconnect', 'disconnect');
});

scenario('Socket.IO over polling alone', async (kit) => {
  const { app, gateway, socket } = await open(kit, { transports: ['polling'] });
  for (let round = 0; round < 5; round += 1) await exchange(socket);
  assert.equal(socket.io.engine.transport.name, 'polling');
  assert.deepEqual(await gateway.sessions(), [], 'no WebSocket session was needed');
  socket.disconnect();
  // Only then is the last poll answered; a gateway that stops waits for answers under way.
  await app.report(({ event }) => event === 'transport closed', 'transport closed');
});

scenario('Socket.IO from polling to WebSocket', async (kit) => {
  const { app, gateway, socket } = await open(kit, { transports: ['polling', 'websocket'] });
  assert.equal((await app.report(({ event }) => event === 'connection', 'connection')).transport, 'polling');
  await app.report(({ event, transport }) => event === 'upgrade' && transport === 'websocket', 'upgrade');
  await exchange(socket);
  assert.equal(socket.io.engine.transport.name, 'websocket');
  assert.equal((await gateway.session()).path, '/socket.io/');
});
