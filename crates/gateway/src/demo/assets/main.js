// Wires sources, model and view.

import { createModel, follow } from './model.js';
import { followGate, followJournal, openSocket, press } from './sources.js';
import { runStory } from './story.js';
import { render, renderFacts, renderLanes } from './view.js';

const RENDER_EVERY_MS = 100;
const LANES_CALM_MS = 1_000;

const tab = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, '0')).join('');
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const model = createModel(Date.now());
const byId = (id) => document.getElementById(id);
let socket = null;
let story = null;
let lanesAt = 0;

function show() {
  const now = Date.now();
  socket?.look();
  follow(model, now);
  render(model, now);
  if (now - lanesAt >= (calm.matches ? LANES_CALM_MS : 0)) {
    lanesAt = now;
    renderLanes(model, now);
  }
}

const does = {
  async fault(fault) {
    if (model.browser.ready !== 1 || fault === model.line.fault) return;
    await press('/demo/faults', { tab, fault });
  },
  async restart() {
    await press('/demo/restart');
  },
  connect() {
    if (socket && model.browser.ready !== 3) return;
    socket = openSocket(model, tab, show);
    show();
  },
};

/** A person's own button ends the guided run. */
function byHand(act) {
  return () => {
    story?.abort();
    act();
  };
}

for (const button of document.querySelectorAll('[data-fault]')) {
  button.addEventListener('click', byHand(() => does.fault(button.dataset.fault)));
}
byId('restart').addEventListener('click', byHand(does.restart));
byId('connect').addEventListener('click', byHand(() => {
  does.connect();
  // The button goes away; the next thing to press takes the focus.
  document.querySelector('[data-fault="cut"]').focus();
}));

const sending = byId('sending');
model.sending = sending.checked;
sending.addEventListener('change', () => {
  model.sending = sending.checked;
});

const storyButton = byId('run-story');
storyButton.addEventListener('click', async () => {
  if (story) {
    story.abort();
    return;
  }
  story = new AbortController();
  storyButton.textContent = 'Stop the story';
  storyButton.setAttribute('aria-pressed', 'true');
  await runStory(model, does, story.signal);
  story = null;
  storyButton.textContent = 'Run the story';
  storyButton.setAttribute('aria-pressed', 'false');
});

renderFacts(await (await fetch('/demo/facts')).json());
await followJournal(model, tab, show);
followGate(model, tab, show);
does.connect();
setInterval(show, RENDER_EVERY_MS);
