"""The client that must never notice: it echoes without a pause while others misbehave."""

import threading

from . import raw
from .raw import TEXT, frame
from .wait import WAIT_MAX_S, eventually

# Where its page came from, for gateways that allow one origin only.
ORIGIN = "https://shop.example"


class GoodClient:
    """Echoes numbered messages in a thread until it is told to stop; any surprise is kept for `check`."""

    def __init__(self, gateway):
        self._stream = raw.open_client(gateway, "/good", [f"Origin: {ORIGIN}"])
        self.echoes = 0
        self._failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        try:
            while not self._stop.is_set():
                message = b"good %d" % self.echoes
                self._stream.send(frame(TEXT, message))
                got = self._stream.frame_of(TEXT)
                assert got.payload == message, got
                self.echoes += 1
        except Exception as failure:
            self._failure = failure

    def check(self):
        """Fails unless the client still gets its echoes now."""
        before = self.echoes
        eventually(lambda: self._failure or self.echoes > before + 1, "the good client gets another echo", WAIT_MAX_S)
        assert self._failure is None, f"the good client was harmed: {self._failure!r}"

    def close(self):
        self._stop.set()
        self._thread.join(WAIT_MAX_S)
        self._stream.close()
