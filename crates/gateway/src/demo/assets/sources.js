// Where the page's knowledge comes from: its own WebSocket, the control API, and the app's log.

import { emptyGate, mark, note, STATES } from './model.js';

const SEND_EVERY_MS = 1000;
const POLL_EVERY_MS = 200;

/** The WebSocket under test: a plain one, with the four handlers and nothing else. */
export function openSocket(model, tab, changed) {
  const { browser } = model;
  const url = `ws://${location.host}/ws?tab=${tab}`;
  const ws = new WebSocket(url);
  Object.assign(browser, { ready: 0, buffered: 0, lastAt: null, echo: null, closed: null });
  model.gate = emptyGate();
  let count = 0;

  ws.onopen = () => {
    note(browser.log, Date.now(), 'onopen', 'connected');
    changed();
  };
  ws.onmessage = ({ data }) => {
    browser.lastAt = Date.now();
    note(browser.log, browser.lastAt, 'onmessage', data);
    changed();
  };
  ws.onerror = () => {
    note(browser.log, Date.now(), 'onerror', 'no detail is given');
    changed();
  };
  ws.onclose = ({ code, reason, wasClean }) => {
    browser.closed = { code, reason, wasClean, at: Date.now() };
    clearInterval(sender);
    note(browser.log, browser.closed.at, 'onclose', `${code} ${reason || (wasClean ? '' : 'not clean')}`.trim());
    changed();
  };

  const sender = setInterval(() => {
    if (ws.readyState !== WebSocket.OPEN || !model.sending) return;
    count += 1;
    ws.send(`hello ${count}`);
  }, SEND_EVERY_MS);

  return {
    /** What the browser itself says, now. */
    look() {
      browser.ready = ws.readyState;
      browser.word = STATES[ws.readyState];
      browser.buffered = ws.bufferedAmount;
    },
  };
}

/** The control API: the session by polling, what happened to it by the event feed. */
export function followGate(model, tab, changed) {
  const early = new Map();

  const poll = async () => {
    try {
      const answer = await fetch(`/control/v1/sessions?label.tab=${tab}`);
      const { items } = await answer.json();
      adopt(items.at(-1));
      changed();
    } catch {
      // The demo has ended; the next poll shows whether it is back.
    }
    setTimeout(poll, POLL_EVERY_MS);
  };

  function adopt(session) {
    const { gate } = model;
    if (!session || (model.browser.ready === 3 && gate.id === null)) return;
    if (gate.id === null) {
      gate.id = session.id;
      for (const event of early.get(session.id) ?? []) take(event);
      early.clear();
    }
    if (gate.id !== session.id || gate.dead || gate.ended) return;
    Object.assign(gate, { session, polledAt: Date.now(), state: session.state });
  }

  function take(event) {
    const { gate } = model;
    const id = typeof event.session === 'object' ? event.session.id : event.session;
    if (id !== gate.id) {
      if (gate.id === null) early.set(id, [...(early.get(id) ?? []), event]);
      return;
    }
    const at = Date.parse(event.at);
    if (event.type === 'session.suspect' && event.leg === 'client') {
      gate.state = 'suspect';
    } else if (event.type === 'session.recovered' && !gate.dead) {
      gate.state = 'live';
    } else if (event.type === 'session.dead') {
      const silent = event.verdict.silent_for_seconds;
      gate.dead = { at, cause: event.cause, silent, text: event.verdict.text, leg: event.leg };
      gate.silentSince = at - silent * 1000;
    } else if (event.type === 'session.ended') {
      gate.ended = { at, reason: event.reason, close: event.close };
      if (!gate.dead) gate.state = 'ended';
    }
    changed();
  }

  const feed = new EventSource('/control/v1/events');
  for (const type of ['opened', 'suspect', 'recovered', 'dead', 'ended']) {
    feed.addEventListener(`session.${type}`, ({ data }) => take(JSON.parse(data)));
  }
  poll();
}

/** The app's log and the state of the line, as the demo's server writes them. */
export function followJournal(model, tab, changed) {
  const journal = new EventSource(`/demo/journal?tab=${tab}`);
  const opened = new Promise((resolve) => journal.addEventListener('open', resolve, { once: true }));
  journal.onmessage = ({ data }) => {
    take(model, JSON.parse(data));
    changed();
  };
  return opened;
}

function take(model, entry) {
  const { app, line } = model;
  const { at } = entry;
  switch (entry.type) {
    case 'open':
      Object.assign(app, {
        state: 'open', connection: entry.connection, messages: 0, lastAt: null, closed: null,
      });
      note(app.log, at, 'connection', `#${entry.connection}`);
      break;
    case 'message':
      if (entry.connection !== app.connection) return;
      app.messages += 1;
      app.lastAt = at;
      note(app.log, at, 'message', entry.text);
      break;
    case 'close':
      note(app.log, at, 'close', `${entry.code} ${entry.reason}`.trim());
      if (entry.connection !== app.connection) return;
      app.state = 'closed';
      app.closed = { at, code: entry.code, reason: entry.reason };
      break;
    case 'down':
      app.state = 'down';
      note(app.log, at, 'process', 'gone');
      mark(model, at, 'app restarted');
      break;
    case 'up':
      app.state = 'waiting';
      app.closed = null;
      note(app.log, at, 'process', 'started, waits for connections');
      break;
    case 'line':
      takeLine(model, line, entry);
      break;
  }
}

const FAULT_WORDS = { cut: 'plug pulled', tunnel: 'tunnel', lag: 'lag', reset: 'reset' };

function takeLine(model, line, { at, fault }) {
  const before = line.fault;
  line.fault = fault === 'reset' ? 'none' : fault;
  line.since = at;
  if (fault === 'cut' || fault === 'tunnel') line.pulledAt = at;
  if (fault !== 'none') {
    line.mendedAt = null;
    mark(model, at, FAULT_WORDS[fault]);
  } else if (before !== 'none') {
    line.mendedAt = before === 'lag' ? null : at;
    mark(model, at, before === 'cut' ? 'plugged back in' : 'mended');
  }
}

/** Presses one of the server's buttons. */
export function press(path, body) {
  return fetch(path, {
    method: 'POST',
    headers: body ? { 'content-type': 'application/json' } : {},
    body: body && JSON.stringify(body),
  });
}
