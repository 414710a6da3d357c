"""A client that lives through faults: it answers pings in a thread, never hangs up, and remembers what it saw."""

import socket
import threading
import time

from . import raw
from .raw import CLOSE, PING, PONG, TEXT, frame
from .wait import WAIT_MAX_S, eventually

# Longer than any stop in these tests: the client must never be the one that gives up.
_PATIENCE_S = 150.0
_PACE_S = 0.02


class Peer:
    """`answers` may be switched off: the client's stack is stuck then, while its kernel goes on acknowledging."""

    def __init__(self, gateway, path="/", extra=()):
        self.stream = raw.open_client(gateway, path, extra)
        self.stream.socket.settimeout(_PATIENCE_S)
        self.texts = []
        self.close = None
        self.ended = None
        self.closed_at = None
        self.answers = True
        self._unanswered = []
        self._writing = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while True:
                got = self.stream.frame()
                if got.opcode == PING:
                    self._unanswered.append(got.payload)
                    if self.answers:
                        self.answer()
                elif got.opcode == TEXT:
                    self.texts.append(got.payload.decode())
                elif got.opcode == CLOSE:
                    self.close, self.closed_at = got, time.monotonic()
                    if self.answers:
                        self._send(frame(CLOSE, got.payload))
        except (OSError, EOFError) as end:
            self.ended = end
            self.closed_at = self.closed_at or time.monotonic()

    def answer(self):
        """Answers each ping that is still without a pong."""
        waiting, self._unanswered = self._unanswered, []
        for payload in waiting:
            self._send(frame(PONG, payload))

    def _send(self, data):
        with self._writing:
            self.stream.send(data)

    def say(self, text):
        self._send(frame(TEXT, text.encode()))

    def echo(self, text, limit=WAIT_MAX_S):
        """Sends a text, waits until the app has sent it back, and returns the seconds between."""
        start = time.monotonic()
        self.say(text)
        eventually(lambda: self.ended or text in self.texts, f"the echo of {text!r}", limit)
        assert text in self.texts, f"cut off: {self.ended!r}, {self.close}"
        return time.monotonic() - start

    def cut(self):
        """Hangs up at once; a mere close() would wait for the thread that reads."""
        self.stream.socket.shutdown(socket.SHUT_RDWR)

    def check(self):
        assert self.close is None and self.ended is None, f"evicted: {self.close}, {self.ended!r}"


class Neighbour:
    """Echoes at a steady pace in a thread and keeps how long each echo took."""

    def __init__(self, gateway):
        self._stream = raw.open_client(gateway, "/neighbour")
        self._stream.socket.settimeout(_PATIENCE_S)
        self._times = []
        self._failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        try:
            while not self._stop.wait(_PACE_S):
                start = time.monotonic()
                message = b"neighbour %d" % len(self._times)
                self._stream.send(frame(TEXT, message))
                assert self._stream.frame_of(TEXT).payload == message
                self._times.append(time.monotonic() - start)
        except Exception as failure:
            self._failure = failure

    def p99(self, count=100):
        """The 99th percentile of the next `count` echoes, in seconds."""
        return self._next(count)[count * 99 // 100 - 1]

    def worst(self, count):
        """The longest of the next `count` echoes, in seconds."""
        return self._next(count)[-1]

    def _next(self, count):
        start = len(self._times)
        eventually(lambda: self._failure or len(self._times) >= start + count, f"{count} echoes of the neighbour", 60)
        assert self._failure is None, f"the neighbour was harmed: {self._failure!r}"
        return sorted(self._times[start : start + count])

    def close(self):
        self._stop.set()
        self._thread.join(WAIT_MAX_S)
        self._stream.close()
        assert self._failure is None, f"the neighbour was harmed: {self._failure!r}"
