"""A running gateway, as an operator sees it: a binary, its log, its three ports."""

import http.client
import json
import os
import re
import signal
from pathlib import Path

from .process import Process
from .wait import WAIT_MAX_S, eventually

_STOP_MAX_S = 10.0
_ROOT = Path(__file__).resolve().parents[3]
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def binary():
    """The gateway under test."""
    if given := os.environ.get("PULSEGATE_BIN"):
        return given
    target = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target"))
    for kind in ("release", "debug"):
        if (target / kind / "pulsegate").exists():
            return str(target / kind / "pulsegate")
    raise AssertionError("no pulsegate binary: run `cargo build --release` or set PULSEGATE_BIN")


def peer_binary():
    """The Rust client of pulsegate.v1, which is built beside the gateway."""
    peer = Path(binary()).parent / "examples" / "peer"
    assert peer.exists(), "no peer: run `cargo build --release -p pulsegate-client --example peer`"
    return str(peer)


class Gateway:
    """`settings` override single keys as `--set` does; `place` is a network namespace to run in."""

    def __init__(self, upstream, *args, settings=None, listen="127.0.0.1:0", place=None):
        self._place = place
        self.stopped = False
        settings = {"drain.window": "200ms", "drain.deadline": "5s"} | (settings or {})
        command = [binary(), "run", "--upstream", upstream, "--listen", listen]
        command += ["--ops", "127.0.0.1:0", "--control", "127.0.0.1:0", *args]
        command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        self.process = Process("gateway", place.command(command) if place else command, reports_on="stderr")
        try:
            listening = self._log(lambda fields: fields.get("message") == "listening", "listening", WAIT_MAX_S)
        except AssertionError:
            self.process.destroy()
            raise
        self.data, self.ops, self.control = (listening[key] for key in ("data", "ops", "control"))

    def _log(self, matches, what, limit):
        return self.process.report(lambda line: matches(line.get("fields", {})), what, limit)["fields"]

    @property
    def address(self):
        """Where clients go, as a socket address."""
        host, _, port = self.data.rpartition(":")
        return host, int(port)

    def url(self, path="/"):
        """Where WebSocket clients go."""
        return f"ws://{self.data}{path}"

    def session_ended(self, matches=lambda fields: True, limit=WAIT_MAX_S):
        """The one wide line that a session leaves in the log."""
        return self._log(
            lambda fields: fields.get("message") == "session ended" and matches(fields), "session ended", limit
        )

    def _get(self, authority, path):
        def ask():
            connection = http.client.HTTPConnection(authority, timeout=WAIT_MAX_S)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        return self._place.inside(ask) if self._place else ask()

    def scrape(self):
        """The text of /metrics."""
        status, body = self._get(self.ops, "/metrics")
        assert status == 200
        return body.decode()

    def metric(self, name, **labels):
        """Sum over the samples of one metric that carry these labels; 0 when there is none."""
        return sum(
            float(value)
            for sample, text, value in _SAMPLE.findall(self.scrape())
            if sample == name and all(f'{key}="{wanted}"' in text for key, wanted in labels.items())
        )

    def reasons(self, name):
        """The samples of one metric by their `reason`."""
        return {
            re.search(r'reason="([^"]*)"', text).group(1): float(value)
            for sample, text, value in _SAMPLE.findall(self.scrape())
            if sample == name
        }

    def ask(self, path):
        """Status and JSON of the control API."""
        status, body = self._get(self.control, path)
        return status, json.loads(body)

    def sessions(self):
        """All live sessions, page by page."""
        items, page = [], "/v1/sessions?limit=1000"
        while True:
            status, answer = self.ask(page)
            assert status == 200, answer
            items += answer["items"]
            if not answer["next"]:
                return items
            page = f"/v1/sessions?limit=1000&cursor={answer['next']}"

    def events(self, *names):
        """What the feed still holds of these events, the oldest first."""
        status, body = self._get(self.control, f"/v1/events?follow=false&last_event_id=0-0&type={','.join(names)}")
        assert status == 200, body
        events = [json.loads(line[5:]) for line in body.decode().splitlines() if line.startswith("data:")]
        return [event for event in events if event["type"] in names]

    def session(self, matches=lambda session: True):
        """The one live session that `matches`."""

        def one():
            found = [session for session in self.sessions() if matches(session)]
            return found[0] if len(found) == 1 else None

        return eventually(one, "exactly one session is listed")

    def memory_peak_bytes(self):
        """The most resident memory the process ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024

    def stop(self):
        """Stops as a service manager would; anything but a clean exit is a failure."""
        self.stopped = True
        self.process.signal(signal.SIGTERM)
        assert self.process.wait(_STOP_MAX_S) == 0, "the gateway ends cleanly on SIGTERM"
