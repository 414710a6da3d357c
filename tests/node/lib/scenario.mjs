// One test with everything it starts: ended with it, logs shown when it fails.

import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { Gateway } from './gateway.mjs';
import { Process } from './process.mjs';
import { eventually, within } from './wait.mjs';

const SCENARIO_MAX_MS = 60_000;
const LOG_LINES_SHOWN = 60;

class Kit {
  #processes = [];
  #gateways = [];
  #cleanups = [];

  /** Runs at the end, together with all others. */
  after(cleanup) {
    this.#cleanups.push(cleanup);
  }

  #own(child) {
    this.#processes.push(child);
    this.after(() => child.destroy());
    return child;
  }

  /** Starts one of `apps/` in its own process and waits for its address. */
  async app(file, ...args) {
    const path = fileURLToPath(new URL(`../apps/${file}`, import.meta.url));
    const app = this.#own(new Process(file, process.execPath, [path, ...args]));
    const listening = await app.report((line) => line.event === 'listening', 'listening');
    app.url = `http://127.0.0.1:${listening.port}`;
    return app;
  }

  /** Starts a gateway; `gateway.data` is where clients go. */
  async gateway(upstream, options) {
    const gateway = await Gateway.start(upstream, options);
    this.#own(gateway.process);
    this.#gateways.push(gateway);
    return gateway;
  }

  until(probe, what) {
    return eventually(probe, what);
  }

  async stopGateways() {
    for (const gateway of this.#gateways) await gateway.stop();
  }

  async close() {
    const ends = await Promise.allSettled(this.#cleanups.map((cleanup) => cleanup()));
    const failed = ends.find(({ status }) => status === 'rejected');
    if (failed) throw failed.reason;
  }

  dump() {
    for (const child of this.#processes) {
      const lines = child.lines.slice(-LOG_LINES_SHOWN).map((line) => `    ${line}`);
      console.error([`--- last lines of ${child.name}:`, ...lines].join('\n'));
    }
  }
}

/** A test whose `body` gets a kit; whatever the kit started is ended, also when the body fails or hangs. */
export function scenario(name, body) {
  test(name, async () => {
    const kit = new Kit();
    try {
      await within(body(kit), SCENARIO_MAX_MS, name);
      await kit.stopGateways();
    } catch (error) {
      kit.dump();
      throw error;
    } finally {
      await kit.close();
    }
  });
}
