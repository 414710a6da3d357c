// A child process that reports with one JSON object a line, and can't outlive the test.

import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';
import { WAIT_MAX_MS, within } from './wait.mjs';

const LINES_MAX = 5_000;
const alive = new Set();
process.on('exit', () => alive.forEach((child) => child.kill('SIGKILL')));

/** Without `PULSEGATE_…`: the settings of a gateway under test are those that its test gives. */
function environment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PULSEGATE_')));
}

export class Process extends EventEmitter {
  #child;
  #exited;
  /** Every line as text, for the dump after a failure. */
  lines = [];
  /** Every line that was JSON, parsed, with `seen_at` in milliseconds. */
  reports = [];

  constructor(name, command, args, { reportsOn = 'stdout' } = {}) {
    super();
    this.name = name;
    this.#child = spawn(command, args, { env: environment(), stdio: ['pipe', 'pipe', 'pipe'] });
    alive.add(this.#child);
    this.#exited = once(this.#child, 'close').then(([code, signal]) => {
      alive.delete(this.#child);
      this.exit = { code, signal };
      this.emit('line');
      return this.exit;
    });
    for (const stream of ['stdout', 'stderr']) {
      createInterface({ input: this.#child[stream] }).on('line', (line) => this.#take(line, stream === reportsOn));
    }
  }

  #take(line, isReport) {
    if (this.lines.push(line) > LINES_MAX) this.lines.shift();
    if (isReport && line.startsWith('{')) {
      this.reports.push({ ...JSON.parse(line), seen_at: performance.now() });
    }
    this.emit('line');
  }

  get pid() {
    return this.#child.pid;
  }

  /** The first report that `matches`, already here or still to come. */
  async report(matches, what, limit = WAIT_MAX_MS) {
    const end = performance.now() + limit;
    for (;;) {
      const found = this.reports.find(matches);
      if (found) return found;
      if (this.exit) throw new Error(`${this.name} ended (${JSON.stringify(this.exit)}) before it reported: ${what}`);
      await within(once(this, 'line'), Math.max(1, end - performance.now()), `${this.name} reports: ${what}`);
    }
  }

  say(line) {
    this.#child.stdin.write(`${line}\n`);
  }

  signal(name) {
    this.#child.kill(name);
  }

  ended(limit = WAIT_MAX_MS) {
    return within(this.#exited, limit, `${this.name} ends`);
  }

  /** Ends the process whatever state it is in: a stopped one first needs SIGCONT. */
  async destroy() {
    if (this.exit) return;
    this.signal('SIGCONT');
    this.signal('SIGKILL');
    await this.ended();
  }
}
