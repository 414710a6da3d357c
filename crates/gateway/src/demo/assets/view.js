// Puts the model on the page.

import {
  appTone, appWord, browserTone, gateTone, gateWord, seconds, STATES, tell,
} from './model.js';

const LANE_SPAN_MS = 20_000;
const LANE_SPAN_NARROW_MS = 12_000;
const AXIS_STEP_MS = 5_000;
/** Width of a letter in the lanes, and of what surrounds a word, in pixels. */
const LETTER_PX = 7.4;
const AROUND_PX = 22;

const byId = (id) => document.getElementById(id);
const narrow = matchMedia('(max-width: 700px)');

/** Changes a text only when it is another one: what is announced or selected stays put. */
function put(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

/** Lines break between sentences rather than inside them. */
function putHeadline(text) {
  const node = byId('headline');
  if (node.textContent === text) return;
  const sentences = text.split(/(?<=[.:!?] )(?=[A-Z\dp])/);
  node.replaceChildren(...sentences.map((sentence) => span('sentence', sentence)));
}

function tone(id, name) {
  const node = byId(id);
  if (node.dataset.tone !== name) node.dataset.tone = name;
}

export function render(model, now) {
  const words = tell(model, now);
  putHeadline(words.headline);
  put('detail', words.detail);
  tone('story', words.tone);
  renderBrowser(model, now);
  renderGate(model, now);
  renderApp(model, now);
  renderControls(model);
}

function ago(at, now) {
  return at === null ? 'none yet' : `${seconds(now - at)} ago`;
}

function renderBrowser({ browser }, now) {
  tone('browser', browserTone(browser));
  put('browser-state', STATES[browser.ready]);
  put('browser-ready', `${browser.ready}`);
  put('browser-buffered', `${browser.buffered} B`);
  put('browser-last', ago(browser.lastAt, now));
  put('browser-note', browserNote(browser));
  renderLog('browser-log', browser.log);
  byId('connect').hidden = browser.ready !== 3;
}

function browserNote({ ready, closed }) {
  if (ready === 3) return `onclose: code ${closed.code}${closed.reason ? `, “${closed.reason}”` : ', no reason'}`;
  return ready === 1 ? 'no error, no close' : 'no event yet';
}

function renderGate({ gate, app }, now) {
  tone('gate', gateTone(gate));
  put('gate-state', gateWord(gate));
  put('gate-note', gateNote(gate));
  const leg = gate.session?.legs.client;
  put('gate-silent', silence(gate, now));
  put('gate-trip', leg?.round_trip_seconds == null ? '–' : `${(leg.round_trip_seconds * 1000).toFixed(1)} ms`);
  put('gate-probes', leg ? `${leg.probes_unanswered}` : '–');
  put('gate-told', told(gate, app));
  const verdict = byId('verdict');
  verdict.dataset.empty = `${!gate.dead}`;
  put('verdict', gate.dead?.text ?? 'None: the client is heard.');
}

function told(gate, app) {
  if (!gate.dead || !app.closed) return '–';
  return `${app.closed.code}, after ${seconds(app.closed.at - gate.silentSince)} of silence`;
}

function gateNote(gate) {
  if (gate.dead) return `${gate.dead.leg} ${gate.dead.cause}`;
  if (gate.ended) return gate.ended.reason;
  return { none: 'no such client', live: 'the client is heard', suspect: 'asked, no answer in time' }[gate.state];
}

function silence(gate, now) {
  if (gate.dead) return seconds(now - gate.silentSince);
  if (!gate.session || gate.ended) return '–';
  return seconds(gate.session.legs.client.silent_for_seconds * 1000 + now - gate.polledAt);
}

function renderApp({ app, line }, now) {
  tone('app', appTone(app));
  put('app-state', appWord(app));
  put('app-note', appNote(app));
  put('app-messages', `${app.messages}`);
  put('app-last', ago(app.lastAt, now));
  put('app-plug', line.pulledAt === null ? '–' : pulled(app, line, now));
  renderLog('app-log', app.log);
}

function appNote({ state, closed }) {
  if (state === 'down') return 'starts again in two seconds';
  if (closed) return closed.reason ? `“${closed.reason}”` : 'no Close frame came';
  return state === 'open' ? 'one client connected' : 'no client';
}

function pulled(app, line, now) {
  const since = `${seconds(now - line.pulledAt)} ago`;
  const told = app.closed && app.closed.at >= line.pulledAt;
  return told ? `${since}, told after ${seconds(app.closed.at - line.pulledAt)}` : since;
}

function renderControls({ browser, line, app }) {
  const open = browser.ready === 1;
  for (const button of document.querySelectorAll('[data-fault]')) {
    const { fault } = button.dataset;
    button.setAttribute('aria-disabled', `${!open || (fault === 'none' && line.fault === 'none')}`);
    if (fault !== 'none' && fault !== 'reset') button.setAttribute('aria-pressed', `${line.fault === fault}`);
  }
  byId('wire-page').dataset.line = open ? line.fault : 'gone';
  byId('wire-app').dataset.line = app.state === 'open' ? 'none' : 'gone';
}

function renderLog(id, log) {
  const list = byId(id);
  const last = log.at(-1);
  const stamp = `${log.length}:${last?.at}:${last?.kind}:${last?.text}`;
  if (list.dataset.stamp === stamp) return;
  list.dataset.stamp = stamp;
  list.replaceChildren(...log.toReversed().map(logLine));
}

function logLine({ at, kind, text }) {
  const line = document.createElement('li');
  line.dataset.kind = kind;
  line.append(span('time', clock(at)), span('kind', kind), span('text', text));
  return line;
}

function span(name, text) {
  const node = document.createElement('span');
  node.className = name;
  node.textContent = text;
  return node;
}

function clock(at) {
  return new Date(at).toTimeString().slice(0, 8) + `.${Math.floor((at % 1000) / 100)}`;
}

/** The latest seconds of all three, on one axis. */
export function renderLanes(model, now) {
  const span_ms = narrow.matches ? LANE_SPAN_NARROW_MS : LANE_SPAN_MS;
  const place = (at) => 1 - (now - at) / span_ms;
  const width_px = byId('lane-axis').clientWidth;
  const marks = model.lanes.marks.filter(({ at }) => place(at) >= 0);
  for (const name of ['browser', 'gate', 'app']) {
    const lines = marks.map(({ at }) => at_x('line', '', place(at)));
    byId(`lane-${name}`).replaceChildren(...pieces(model.lanes[name], place, width_px), ...lines);
  }
  const words = marks.map(({ at, text }) => markWord(text, place(at), width_px));
  byId('lane-axis').replaceChildren(...ticks(span_ms), ...words, ...gap(model, place, width_px));
}

function at_x(name, text, x) {
  const node = span(name, text);
  node.style.left = `${x * 100}%`;
  return node;
}

function pieces(list, place, width_px) {
  return list.flatMap((piece, index) => {
    const from = Math.max(0, place(piece.at));
    const to = Math.min(1, index + 1 < list.length ? place(list[index + 1].at) : 1);
    if (to <= from) return [];
    const node = at_x('piece', piece.tone === 'idle' ? '' : fitting(piece.state, (to - from) * width_px), from);
    node.dataset.tone = piece.tone;
    node.style.width = `${(to - from) * 100}%`;
    return [node];
  });
}

/** The word if there is room for it, or at least its number. */
function fitting(word, room_px) {
  const fits = (text) => text.length * LETTER_PX + AROUND_PX <= room_px;
  return [word, word.split(' ')[1] ?? ''].find(fits) ?? '';
}

function ticks(span_ms) {
  const nodes = [];
  for (let back = 0; back < span_ms; back += AXIS_STEP_MS) {
    nodes.push(at_x('tick', back === 0 ? 'now' : `−${back / 1000} s`, 1 - back / span_ms));
  }
  return nodes;
}

/** The word stands before its line, unless there is no room for it. */
function markWord(text, x, width_px) {
  const node = at_x('mark', text, x);
  node.dataset.side = x * width_px > text.length * LETTER_PX + AROUND_PX ? 'before' : 'after';
  return node;
}

/** From the pulled plug to the app being told. */
function gap({ line, app }, place, width_px) {
  if (line.pulledAt === null || !app.closed || app.closed.at < line.pulledAt) return [];
  const from = Math.max(0, place(line.pulledAt));
  const to = place(app.closed.at);
  if (to <= from) return [];
  const node = at_x('gap', '', from);
  node.style.width = `${(to - from) * 100}%`;
  if ((to - from) * width_px > AROUND_PX * 2) node.append(span('', seconds(app.closed.at - line.pulledAt)));
  return [node];
}

export function renderFacts({ profile, bound_seconds, metrics_url, control_url }) {
  put('facts', `profile ${profile}: a silent client is declared dead within ${bound_seconds} s`);
  byId('metrics-link').href = metrics_url;
  byId('control-link').href = control_url;
}
