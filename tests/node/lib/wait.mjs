// Bounded waits on events: nothing in these tests sleeps to let something happen.

import { once } from 'node:events';

/** Every wait that is not itself under test gives up after this. */
export const WAIT_MAX_MS = 10_000;

/** Rejects with `what` unless `promise` settles within `limit` milliseconds. */
export async function within(promise, limit, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${limit} ms: ${what}`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The arguments of the next `name` event. */
export function next(emitter, name, limit = WAIT_MAX_MS) {
  return within(once(emitter, name), limit, `event '${name}'`);
}

/** Asks `probe` again and again until it answers with something true. */
export async function eventually(probe, what, limit = WAIT_MAX_MS) {
  const end = performance.now() + limit;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (performance.now() > end) throw new Error(`not within ${limit} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
