"""Pongs that nobody asked for, as fast as a socket takes them: allowed (RFC 6455 section 5.5.3), and worth nothing."""

import threading
import time

import pytest

from kit import raw
from kit.machine import memory_bytes
from kit.peer import Neighbour
from kit.raw import CLOSE, PING, PONG, TEXT, frame
from kit.wait import eventually

# More than there are cores, so that no thread of the gateway is left out.
FLOODERS = 6
FLOOD_S = 3.0
RATE_MAX = 100
CLOSE_TIMEOUT_S = 2.0
SLACK_S = 1.0
# Profile fast.
BOUND_S = 3.0
# A good client is served within a second, whatever others do.
ECHO_MAX_S = 1.0
# What one session may hold: a relay buffer per direction and the allocator's rounding.
MEMORY_MAX = 4 << 20
# As long as a pong may be, so that the bytes and not the limit bound how many come.
CHUNK = frame(PONG, b"nobody asked".ljust(125, b".")) * 500


class App:
    """Echoes to the neighbour; of the others it counts the pongs until a Close if `parses`, and the bytes as soon as
    `reads` is set."""

    def __init__(self, raw_app, parses=False):
        self.pongs, self.bytes, self.close = 0, 0, None
        self._parses = parses
        self.reads = threading.Event()
        self.url = raw_app(self._behave).url

    def _behave(self, stream, head):
        stream.send(raw.accepted(head))
        while "GET /neighbour " in head:
            stream.send(frame(TEXT, stream.frame_of(TEXT).payload, masked=False))
        stream.socket.settimeout(None)
        while self._parses and self.close is None:
            got = stream.frame()
            self.pongs += got.opcode == PONG
            self.close = got if got.opcode == CLOSE else None
        self.reads.wait()
        while got := stream.socket.recv(1 << 20):
            self.bytes += len(got)


class Flooder:
    """Sends on whatever it is told, until it is stopped or cut; it answers no ping unless `foreign_answers`."""

    def __init__(self, gateway, path="/flood"):
        self.stream = raw.open_client(gateway, path)
        self.stream.socket.settimeout(60)
        self.close, self.over, self.pings, self.foreign_answers = None, None, 0, False
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._flood, daemon=True)
        self._sender.start()
        threading.Thread(target=self._listen, daemon=True).start()

    def _flood(self):
        try:
            while not self._stop.is_set():
                self.stream.send(CHUNK)
        except OSError as end:
            self.over = end

    def _listen(self):
        try:
            while True:
                got = self.stream.frame()
                if got.opcode == CLOSE:
                    self.close = self.close or got
                elif got.opcode == PING:
                    self.pings += 1
                    if self.foreign_answers:
                        self.stream.send(frame(PONG, got.payload[::-1] + b"!"))
        except (OSError, EOFError) as end:
            self.over = self.over or end

    def stop(self):
        self._stop.set()
        self._sender.join()


@pytest.fixture
def neighbour():
    started = []

    def start(gateway):
        started.append(Neighbour(gateway))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_the_limit_cuts_a_flooder_that_listens_to_nobody(gateway, raw_app, neighbour):
    app = App(raw_app, parses=True)
    running = gateway(app.url, "--profile", "fast", settings={
        "limits.control_frames_rate_max": str(RATE_MAX), "limits.close_timeout": f"{CLOSE_TIMEOUT_S:g}s"})
    good = neighbour(running)
    memory = memory_bytes(running.process.pid)
    begin = time.monotonic()
    one = Flooder(running)
    worst = good.worst(50)
    eventually(lambda: one.close, "the flooder is told")
    assert (one.close.close_code, one.close.payload[2:]) == (1008, b"too many control frames")
    eventually(lambda: app.close, "the app is told")
    app.reads.set()
    # A burst of twice the rate, and the rate for as long as it lasted.
    assert 2 * RATE_MAX <= app.pongs <= RATE_MAX * (2 + time.monotonic() - begin)
    eventually(lambda: one.over, "it is cut, though it goes on", CLOSE_TIMEOUT_S + SLACK_S)
    held = memory_bytes(running.process.pid) - memory
    print(f"{app.pongs} pongs passed, {held >> 10} KiB held, worst echo {worst:.3f} s")
    assert running.session_ended()["reason"] == "limit"
    assert worst <= ECHO_MAX_S and held <= MEMORY_MAX
    assert [session["path"] for session in running.sessions()] == ["/neighbour"]


def test_floods_within_the_limit_harm_nobody_and_answer_nothing(gateway, raw_app, neighbour):
    """The limit is as high as it goes: for seconds all threads of the gateway have pongs to pass on."""
    app = App(raw_app)
    running = gateway(app.url, "--profile", "fast", settings={
        "limits.control_frames_rate_max": "1000000", "limits.close_timeout": f"{CLOSE_TIMEOUT_S:g}s",
        # The neighbour would be asked what it has read, and answer.
        "delivery.confirm": "off"})
    good = neighbour(running)
    before, memory = good.worst(50), memory_bytes(running.process.pid)
    flooders = [Flooder(running) for _ in range(FLOODERS)]
    begin, worst = time.monotonic(), 0.0
    while (lasted := time.monotonic() - begin) < FLOOD_S:
        # At first the app reads nothing: then nothing more may be read for it.
        if lasted > FLOOD_S / 3:
            app.reads.set()
        worst = max(worst, good.worst(10))
        held = memory_bytes(running.process.pid) - memory
        assert held <= FLOODERS * MEMORY_MAX, "bounded all along"
    for one in flooders:
        assert one.close is None and one.over is None, "within the limit nobody is cut"
        one.stop()
    print(f"{app.bytes >> 20} MiB of pongs passed, {held >> 10} KiB held, worst echo {before:.3f} -> {worst:.3f} s")
    assert app.bytes > 100 * len(CHUNK), "there was a flood, and it was passed on"
    assert worst <= ECHO_MAX_S

    # Now they are silent, so they are asked. One answers with what was not asked, the others not at all.
    flooders[0].foreign_answers = True
    eventually(lambda: flooders[0].pings >= 2, "it is asked again after an answer that was none", 2 * BOUND_S)
    eventually(lambda: running.metric("pulsegate_dead_peers_total") == FLOODERS - 1, "the silent ones are dead",
               BOUND_S + SLACK_S)
    assert running.metric("pulsegate_dead_peers_total", leg="client", cause="frozen") == FLOODERS - 1
    assert running.metric("pulsegate_pongs_received_total", leg="client") == 0
    living = running.session(lambda session: session["path"] == "/flood")
    assert living["legs"]["client"]["round_trip_seconds"] is None
