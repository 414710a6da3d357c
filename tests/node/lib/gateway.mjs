// A running gateway, as an operator sees it: a binary, its log, its three ports.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Process } from './process.mjs';
import { eventually, WAIT_MAX_MS } from './wait.mjs';

const STOP_MAX_MS = 10_000;

export function binary() {
  if (process.env.PULSEGATE_BIN) return process.env.PULSEGATE_BIN;
  const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../../target', import.meta.url));
  const found = ['release', 'debug'].map((kind) => `${target}/${kind}/pulsegate`).find(existsSync);
  assert.ok(found, 'no pulsegate binary: run `cargo build --release` or set PULSEGATE_BIN');
  return found;
}

export class Gateway {
  /**
   * Starts a gateway in front of `upstream` (`http://host:port`) and waits until it listens.
   * `set` overrides single settings, as `--set key=value` does.
   */
  static async start(upstream, { args = [], set = {} } = {}) {
    const gateway = new Gateway();
    const settings = { 'drain.window': '200ms', 'drain.deadline': '5s', ...set };
    const any = '127.0.0.1:0';
    gateway.process = new Process(
      'gateway',
      binary(),
      ['run', '--upstream', upstream, '--listen', any, '--ops', any, '--control', any, ...args,
        ...Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`])],
      { reportsOn: 'stderr' },
    );
    const listening = await gateway.process.report((line) => line.fields?.message === 'listening', 'listening');
    gateway.data = listening.fields.data;
    gateway.ops = listening.fields.ops;
    gateway.control = listening.fields.control;
    return gateway;
  }

  /** The one wide line that a session leaves in the log. */
  async sessionEnded(matches = () => true, limit = WAIT_MAX_MS) {
    const line = await this.process.report(
      ({ fields }) => fields?.message === 'session ended' && matches(fields), 'session ended', limit);
    return line.fields;
  }

  /** Sum over the samples of one metric whose labels include `labels`; 0 when there is none. */
  async metric(name, labels = {}) {
    const text = await (await fetch(`http://${this.ops}/metrics`)).text();
    return text.split('\n')
      .map((line) => /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line))
      .filter((sample) => sample?.[1] === name
        && Object.entries(labels).every(([key, value]) => sample[2]?.includes(`${key}="${value}"`)))
      .reduce((sum, sample) => sum + Number(sample[3]), 0);
  }

  async sessions() {
    const answer = await fetch(`http://${this.control}/v1/sessions`);
    assert.equal(answer.status, 200);
    return (await answer.json()).items;
  }

  /** The session once the registry lists exactly one. */
  session() {
    return eventually(async () => {
      const items = await this.sessions();
      return items.length === 1 && items[0];
    }, 'exactly one session is listed');
  }

  /** Stops as a service manager would; anything but a clean exit is a failure. */
  async stop() {
    if (this.process.exit) return;
    this.process.signal('SIGTERM');
    const { code, signal } = await this.process.ended(STOP_MAX_MS);
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, 'the gateway ends cleanly on SIGTERM');
  }
}
