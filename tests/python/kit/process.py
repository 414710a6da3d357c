"""A child process that reports with one JSON object a line, and can't outlive its test."""

import json
import os
import signal
import subprocess
import threading
import time

from .wait import WAIT_MAX_S

_LINES_SHOWN = 60


def environment():
    """Without `PULSEGATE_…`: the settings of a gateway under test are those that its test gives."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PULSEGATE_")}


class Process:
    """`reports_on` says which of its streams carries the JSON lines; each is given to `tell` as it comes."""

    def __init__(self, name, command, reports_on="stdout", tell=None):
        self.name = name
        self.lines = []
        self.reports = []
        self._tell = tell
        self._news = threading.Condition()
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            env=environment(),
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, kind == reports_on), daemon=True)
            for kind, stream in (("stdout", self._child.stdout), ("stderr", self._child.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, is_report):
        for line in stream:
            with self._news:
                self.lines.append(line.rstrip())
                if is_report and line.startswith("{"):
                    self.reports.append(json.loads(line) | {"seen_at": time.monotonic()})
                    if self._tell:
                        self._tell(self.reports[-1])
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def pid(self):
        return self._child.pid

    @property
    def running(self):
        return self._child.poll() is None

    def report(self, matches, what, limit=WAIT_MAX_S):
        """The first report that `matches`, already here or still to come."""
        end = time.monotonic() + limit
        with self._news:
            while True:
                found = next((report for report in self.reports if matches(report)), None)
                if found:
                    return found
                if not any(reader.is_alive() for reader in self._readers):
                    raise AssertionError(f"{self.name} ended with {self._child.wait()} before it reported: {what}")
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {limit} s: {self.name} reports: {what}")
                self._news.wait(min(left, 0.2))

    def event(self, name, limit=WAIT_MAX_S):
        """The first report with `"event": name`."""
        return self.report(lambda report: report.get("event") == name, name, limit)

    def say(self, line):
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def signal(self, number):
        self._child.send_signal(number)

    def wait(self, limit=WAIT_MAX_S):
        """The exit status."""
        return self._child.wait(limit)

    def destroy(self):
        """Ends the process whatever state it is in, and leaves its last lines for the report of a failure."""
        if self.running:
            self._child.send_signal(signal.SIGCONT)
            self._child.kill()
            self._child.wait(WAIT_MAX_S)
        for reader in self._readers:
            reader.join(1)
        self._child.stdin.close()
        print(f"--- last lines of {self.name}:", *self.lines[-_LINES_SHOWN:], sep="\n    ")
