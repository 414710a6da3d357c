// npm `ws` on both sides of the gateway, with the code every tutorial shows.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { scenario } from './lib/scenario.mjs';
import { next, within } from './lib/wait.mjs';

// Short bounds: what is tested here is who is told what, not the bound of a profile.
const INTERVAL_MS = 500;
const VERDICT_MS = 1_000;
const FROZEN_MS = 1_000;
const SLACK_MS = 1_000;
const SHORT = {
  'liveness.ping_interval': `${INTERVAL_MS}ms`,
  'liveness.verdict_after': `${VERDICT_MS}ms`,
  'liveness.app_frozen_after': `${FROZEN_MS}ms`,
};

async function connect(kit, gateway, options = {}) {
  const ws = new WebSocket(`ws://${gateway.data}/chat?room=1`, options);
  kit.after(() => ws.terminate());
  await next(ws, 'open');
  return ws;
}

async function echo(ws, data) {
  const answer = next(ws, 'message');
  ws.send(data);
  const [bytes, isBinary] = await answer;
  return isBinary ? bytes : bytes.toString();
}

scenario('text and binary come back as they went', async (kit) => {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url);
  const ws = await connect(kit, gateway);
  assert.equal(await echo(ws, 'héllo 👋'), 'héllo 👋');
  assert.equal(await echo(ws, ''), '');
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, at) => at % 251));
  assert.deepEqual(await echo(ws, bytes), bytes);

  const { id, path, legs } = await gateway.session();
  assert.equal(path, '/chat', 'the query string is not kept');
  assert.equal(legs.client.messages, 3);
  assert.equal(legs.app.messages, 3);
  const connection = await app.report(({ event }) => event === 'connection', 'connection');
  assert.equal(connection.session, id, 'the app is told the id of the session');
});

scenario('a close by the client reaches the app with its code and reason', async (kit) => {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url);
  const ws = await connect(kit, gateway);
  ws.close(3001, 'the client is done');
  const close = await app.report(({ event }) => event === 'close', 'close');
  assert.equal(close.code, 3001);
  assert.equal(close.reason, 'the client is done');
  const [code, reason] = ws.readyState === WebSocket.CLOSED ? [3001] : await next(ws, 'close');
  assert.equal(code, 3001, 'the closing handshake ends with the same code on the client');
  assert.equal(reason?.toString() ?? 'the client is done', 'the client is done');
  assert.equal((await gateway.sessionEnded()).reason, 'closed');
});

scenario('a client cut without a Close leaves the app with 1006', async (kit) => {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url);
  const ws = await connect(kit, gateway);
  ws.terminate();
  const close = await app.report(({ event }) => event === 'close', 'close');
  assert.equal(close.code, 1006);
});

scenario('a killed app is a 1012 for its client, and the next app is found', async (kit) => {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url);
  const ws = await connect(kit, gateway);
  const closed = next(ws, 'close');
  app.signal('SIGKILL');
  const [code] = await closed;
  assert.equal(code, 1012);
  assert.equal((await gateway.sessionEnded()).leg, 'app');

  const refused = new WebSocket(`ws://${gateway.data}/chat`);
  refused.on('error', () => {});
  const [, response] = await next(refused, 'unexpected-response');
  assert.equal(response.statusCode, 502);
  assert.equal(response.headers['content-type'], 'application/problem+json');
  response.destroy();
});

scenario('a stopped app is a 1013 for its client within the bound', async (kit) => {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url, { set: SHORT });
  const ws = await connect(kit, gateway);
  assert.equal(await echo(ws, 'awake'), 'awake');
  const closed = once(ws, 'close');
  app.signal('SIGSTOP');
  const [code] = await within(closed, INTERVAL_MS + FROZEN_MS + SLACK_MS, 'the client is told that the app is frozen');
  assert.equal(code, 1013);
  const { reason, leg } = await gateway.sessionEnded();
  assert.deepEqual({ reason, leg }, { reason: 'frozen', leg: 'app' });
  assert.equal(await gateway.metric('pulsegate_dead_peers_total', { leg: 'app', cause: 'frozen' }), 1);
});

scenario('an app that comes back in time keeps its clients', async (kit) => {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url, { set: { ...SHORT, 'liveness.app_frozen_after': '8s' } });
  const ws = await connect(kit, gateway);
  await gateway.session();
  app.signal('SIGSTOP');
  ws.send('are you there?');
  const answer = next(ws, 'message');
  await kit.until(async () => (await gateway.session()).legs.app.state === 'suspect', 'the app is suspect');
  app.signal('SIGCONT');
  assert.equal((await answer)[0].toString(), 'are you there?');
  await kit.until(async () => (await gateway.session()).legs.app.state === 'live', 'the app is live again');
});

scenario('a quiet but living pair is never evicted', async (kit) => {
  const app = await kit.app('chat.mjs');
  const gateway = await kit.gateway(app.url, { set: SHORT });
  const ws = await connect(kit, gateway);
  // The wait is the thing under test: three times the bound without a message.
  await new Promise((resolve) => setTimeout(resolve, 3 * (INTERVAL_MS + VERDICT_MS)));
  assert.equal(await echo(ws, 'still here'), 'still here');
  assert.equal(await gateway.metric('pulsegate_dead_peers_total'), 0);
  assert.ok(await gateway.metric('pulsegate_pongs_received_total', { leg: 'client' }) >= 2);
  assert.ok(await gateway.metric('pulsegate_pongs_received_total', { leg: 'app' }) >= 2);
});

scenario("the app's refusal reaches the client with status, headers and body", async (kit) => {
  const app = createServer().on('upgrade', (request, socket) => {
    socket.end('HTTP/1.1 403 Forbidden\r\nx-why: no ticket\r\ncontent-length: 9\r\nconnection: close\r\n\r\nno ticket');
  });
  app.listen(0, '127.0.0.1');
  await next(app, 'listening');
  kit.after(() => app.close());
  const gateway = await kit.gateway(`http://127.0.0.1:${app.address().port}`);
  const ws = new WebSocket(`ws://${gateway.data}/chat`);
  ws.on('error', () => {});
  const [, response] = await next(ws, 'unexpected-response');
  assert.equal(response.statusCode, 403);
  assert.equal(response.headers['x-why'], 'no ticket');
  const [body] = await next(response, 'data');
  assert.equal(body.toString(), 'no ticket');
});
