// What the page knows, and the plain words for it. No DOM, no sockets: time comes in as `now`.

export const STATES = ['CONNECTING', 'OPEN', 'CLOSING', 'CLOSED'];
const LOG_MAX = 60;
const LANE_MAX = 200;

export function createModel(now) {
  return {
    facts: null,
    browser: { ready: 0, buffered: 0, lastAt: null, echo: null, closed: null, log: [] },
    gate: emptyGate(),
    app: { state: 'waiting', connection: null, messages: 0, lastAt: null, closed: null, log: [] },
    line: { fault: 'none', since: now, pulledAt: null, mendedAt: null },
    lanes: { browser: [], gate: [], app: [], marks: [] },
  };
}

export function emptyGate() {
  return { id: null, state: 'none', session: null, polledAt: 0, dead: null, ended: null };
}

export function note(log, at, kind, text) {
  log.push({ at, kind, text });
  if (log.length > LOG_MAX) log.shift();
}

/** Adds a piece to a lane when its state changes. */
export function lane(model, name, at, state, tone) {
  const pieces = model.lanes[name];
  const last = pieces.at(-1);
  if (last?.state === state) return;
  pieces.push({ at: Math.max(at, last?.at ?? at), state, tone });
  if (pieces.length > LANE_MAX) pieces.shift();
}

export function mark(model, at, text) {
  model.lanes.marks.push({ at, text });
  if (model.lanes.marks.length > LANE_MAX) model.lanes.marks.shift();
}

/** Brings the lanes up to what the three of them say now. */
export function follow(model, now) {
  const { browser, gate, app } = model;
  const word = STATES[browser.ready];
  lane(model, 'browser', now, closedWord(word, browser.closed), browserTone(browser));
  lane(model, 'gate', gate.dead?.at ?? now, gateWord(gate), gateTone(gate));
  lane(model, 'app', app.closed?.at ?? now, appWord(app), appTone(app));
}

function closedWord(word, closed) {
  return word === 'CLOSED' && closed ? `CLOSED ${closed.code}` : word;
}

export function browserTone(browser) {
  return ['idle', 'good', 'idle', 'bad'][browser.ready];
}

export function gateWord(gate) {
  if (gate.dead) return 'DEAD';
  if (gate.ended) return 'ENDED';
  return { none: 'NO SESSION', live: 'LIVE', suspect: 'SUSPECT' }[gate.state];
}

export function gateTone(gate) {
  if (gate.dead) return 'bad';
  return { none: 'idle', live: 'good', suspect: 'warn', ended: 'idle' }[gate.state];
}

export function appWord(app) {
  if (app.state === 'down') return 'DOWN';
  if (app.state === 'open') return 'OPEN';
  return app.closed ? `CLOSED ${app.closed.code}` : 'WAITING';
}

export function appTone(app) {
  if (app.state === 'down') return 'bad';
  if (app.state === 'open') return 'good';
  return app.closed ? 'bad' : 'idle';
}

export function seconds(ms) {
  const value = Math.max(0, ms) / 1000;
  return `${value < 100 ? value.toFixed(1) : Math.round(value)} s`;
}

/** The story in two sentences: the headline changes with the state only, the detail may tick. */
export function tell(model, now) {
  const { browser, gate, app, line } = model;
  if (browser.ready === 0) {
    return say('calm', 'Connecting …', 'The page opens a plain WebSocket to an echo app behind pulsegate.');
  }
  if (browser.ready === 3) return tellClosed(model, now);
  if (gate.dead) return tellDead(model, now);
  if (line.fault === 'lag') return tellLag(gate);
  if (line.fault === 'cut' || line.fault === 'tunnel') return tellSilence(model, now);
  if (app.state === 'down') return say('bad', 'The app is down.', 'It hung up on everybody without a word.');
  if (line.mendedAt && now - line.mendedAt < 8000) {
    return say('good', 'Back in time: nobody was evicted.',
      'Late bytes arrived before the verdict was due, so the session went on as if nothing had been.');
  }
  if (gate.state === 'none' || app.state !== 'open') return say('calm', 'The browser is connected.', '');
  return say('good', 'All three agree: the connection is open.',
    'Now pull the plug, and see who notices.');
}

function say(tone, headline, detail) {
  return { tone, headline, detail };
}

function tellSilence({ gate, line }, now) {
  const ago = seconds(now - line.since);
  const oneWay = line.fault === 'tunnel';
  const what = oneWay ? `The way out of the browser went dead ${ago} ago` : `Line cut ${ago} ago`;
  if (gate.state === 'suspect') {
    return say('warn', 'The browser says OPEN. pulsegate has doubts.',
      `${what}. ${probes(gate.session)} unanswered; the verdict falls when the bound is reached.`);
  }
  return say('warn', oneWay ? 'Into the tunnel. Nobody has noticed yet.' : 'The plug is pulled. Nobody has noticed yet.',
    `${what}. The browser got no event and will get none.`);
}

function probes(session) {
  const count = session?.legs?.client?.probes_unanswered ?? 0;
  return `${count} probe${count === 1 ? '' : 's'}`;
}

function tellDead({ gate, line, app }, now) {
  const { cause, silent } = gate.dead;
  const told = `pulsegate told the app ${seconds(silent * 1000)} after the last byte`;
  if (line.fault === 'none') {
    return say('warn', 'The line is back. The browser has yet to learn what it missed.',
      'Its next bytes reach a connection that was given up long ago; the answer will be a reset.');
  }
  const since = `${line.fault === 'cut' ? 'Line cut' : 'Way out dead'} ${seconds(now - line.since)} ago`;
  const code = app.closed ? `, close ${app.closed.code}` : '';
  return say('bad', `The browser still says OPEN. The app already knows: ${cause}.`,
    `${since}. ${told}${code}. The browser has had no event at all.`);
}

function tellLag(gate) {
  const doubt = gate.state === 'suspect' ? 'Right now it has doubts, and asks again.' : 'It hears the client, and waits as long as this line needs.';
  return say('warn', 'Slow is not dead: nobody is evicted.',
    `Every byte takes more than half a second each way. ${doubt}`);
}

function tellClosed({ browser, gate, app }) {
  const { code, at } = browser.closed;
  const again = 'A plain WebSocket has no reconnect of its own.';
  if (gate.dead && code === 1006) {
    const late = seconds(at - (app.closed?.at ?? gate.dead.at));
    return say('calm', `Now the browser knows too, ${late} after the app.`,
      `All it got is ${code}: no reason, no code of ours could reach it. ${again}`);
  }
  if (gate.dead) {
    return say('calm', 'Both sides were told.',
      `The way to the browser still worked, so it got close ${code} (“${browser.closed.reason}”). ${again}`);
  }
  if (code === 1012) {
    return say('warn', 'The app went down without a word. The browser got one: 1012.',
      `pulsegate said for it: “${browser.closed.reason}”. ${again}`);
  }
  if (app.state === 'down') return say('warn', 'The app is still down.', `The handshake was refused. ${again}`);
  return say('calm', `The connection is closed: ${code}.`, `A reset is heard at once, by everybody. ${again}`);
}
