// The guided run: presses the same buttons, waits for what follows, and leaves time to read.

const READ_MS = 5_000;
const LOOK_EVERY_MS = 100;

/** Returns the steps; `does` are the page's own actions, `model` is what they led to. */
function steps(model, does) {
  const open = () => model.browser.ready === 1 && model.app.state === 'open' && model.gate.state === 'live';
  return [
    { act: () => open() || does.connect(), until: open, read: 3_000 },
    { act: () => does.fault('cut'), until: () => model.gate.dead && model.app.closed, read: 9_000 },
    { act: () => does.fault('none'), until: () => model.browser.ready === 3, read: 7_000 },
    { act: () => does.connect(), until: open, read: 3_000 },
    { act: () => does.fault('lag'), until: () => true, read: 8_000 },
    { act: () => does.fault('none'), until: open, read: READ_MS },
    { act: () => does.restart(), until: () => model.browser.ready === 3, read: READ_MS },
    { act: () => {}, until: () => model.app.state !== 'down', read: 500 },
    { act: () => does.connect(), until: open, read: 0 },
  ];
}

/** Runs all steps unless `signal` is aborted. */
export async function runStory(model, does, signal) {
  for (const { act, until, read } of steps(model, does)) {
    if (signal.aborted) return;
    await act();
    while (!until() && !signal.aborted) await pause(LOOK_EVERY_MS, signal);
    await pause(read, signal);
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
