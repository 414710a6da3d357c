"""C9 and C10: peers that read or write far too slowly, on either leg; a neighbour must not notice."""

import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kit import raw
from kit.machine import memory_bytes
from kit.peer import Neighbour
from kit.raw import BINARY, CLOSE, TEXT, frame, upgrade
from kit.wait import eventually

STALL_S = 3.0
# What two busy cores may add between a verdict and the peer that hears of it.
SLACK_S = 1.5
# More than one session may ever hold: a relay buffer per direction and the allocator's rounding.
MEMORY_MAX = 4 << 20
# A scheduling hiccup of a shared machine; a queue that others wait behind would cost seconds.
JITTER_S = 0.05
CHUNK = frame(BINARY, b"x" * 16_000, masked=False), frame(BINARY, b"x" * 16_000)


class Pipe:
    """One side floods, the other reads `rate` bytes a second (0 or 1); beside them a neighbour."""

    def __init__(self, gateway, raw_app, slow, rate, **settings):
        self._apps = queue.Queue()
        self._over = threading.Event()
        self.gateway = gateway(raw_app(self._app).url, "--profile", "fast", settings=settings)
        self.neighbour = Neighbour(self.gateway)
        self.p99_before = self.neighbour.p99()
        self.client = self._slow_client() if slow == "client" else raw.open_client(self.gateway)
        app = self._apps.get(timeout=10)
        self.reader, self.writer = (self.client, app) if slow == "client" else (app, self.client)
        self.memory = memory_bytes(self.gateway.process.pid)
        self.sent, self.told = 0, None
        self.start = time.monotonic()
        for work in (self._flood, self._listen, *([self._sip] * rate)):
            threading.Thread(target=work, daemon=True).start()

    def _app(self, stream, head):
        stream.send(raw.accepted(head))
        if "GET /neighbour " in head:
            while got := stream.frame_of(TEXT):
                stream.send(frame(TEXT, got.payload, masked=False))
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._apps.put(stream)
        self._over.wait(60)

    def _slow_client(self):
        connection = socket.socket()
        # Before connect: the window is never larger than this.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(self.gateway.address)
        stream = raw.Stream(connection)
        stream.send(upgrade(self.gateway.data))
        assert stream.head().startswith("HTTP/1.1 101 ")
        return stream

    def _flood(self):
        self.writer.socket.settimeout(60)
        chunk = CHUNK[self.writer is self.client]
        try:
            while not self._over.is_set():
                self.sent += self.writer.socket.send(chunk)
        except OSError:
            pass

    def _listen(self):
        """The side that floods also reads, so it hears why it has to stop."""
        try:
            self.told = self.writer.frame_of(CLOSE), time.monotonic() - self.start
        except (OSError, EOFError) as end:
            self.told = end, time.monotonic() - self.start
        self._over.set()

    def _sip(self):
        try:
            while self.reader.socket.recv(1) and not self._over.wait(1):
                pass
        except OSError:
            pass

    def close(self):
        self._over.set()
        self.neighbour.close()
        self.client.close()


@pytest.mark.parametrize("rate", [0, 1])
@pytest.mark.parametrize("slow", ["client", "app"])
def test_a_slow_reader_is_cut_and_holds_nothing(gateway, raw_app, slow, rate):
    one = Pipe(gateway, raw_app, slow, rate, **{"liveness.app_write_stall_after": f"{STALL_S:.0f}s"})
    try:
        during = one.neighbour.p99(50)
        full = one.sent
        during = max(during, one.neighbour.p99(20))
        held = memory_bytes(one.gateway.process.pid) - one.memory
        assert one.told is None and one.sent == full, "the queue has stopped at its bound"
        close, took = eventually(lambda: one.told, "the side that floods is told", 2 * STALL_S + SLACK_S)
        print(f"{slow} at {rate} B/s: cut after {took:.2f} s, {full >> 10} KiB sent, {held >> 10} KiB held, "
              f"p99 {one.p99_before * 1e3:.1f} -> {during * 1e3:.1f} ms")
        assert held <= MEMORY_MAX
        assert during <= 2 * one.p99_before + JITTER_S, "the neighbour's p99"
        assert isinstance(close, raw.Frame), f"cut without a word: {close!r}"
        assert close.close_code == (4408 if slow == "client" else 1013)
        assert f"{slow} write_stalled".encode() in close.payload, close
        assert STALL_S <= took <= STALL_S + SLACK_S
        assert one.gateway.session_ended()["reason"] == "write_stalled"
        metric = one.gateway.metric
        assert metric("pulsegate_dead_peers_total", leg=slow, cause="write_stalled") == 1
        assert metric("pulsegate_dead_peers_total") == 1
        assert metric("pulsegate_sessions_ended_total", reason="write_stalled") == 1
        assert metric("pulsegate_backpressure_pauses_total") >= 1
    finally:
        one.close()


TIMEOUT_S = 2.0


def _drip(stream, data):
    """One byte a second until the peer has had enough."""
    done = threading.Event()

    def work():
        try:
            for byte in data:
                stream.send(bytes([byte]))
                if done.wait(1):
                    return
        except OSError:
            pass

    threading.Thread(target=work, daemon=True).start()
    return done


def _slow_head(gateway, first):
    """What a client is answered whose head comes a byte a second after `first`, and when."""
    stream = raw.connect(gateway.address)
    start = time.monotonic()
    stream.send(first)
    done = _drip(stream, b"X-Slow: " + b"x" * 100)
    answer = stream.head()
    done.set()
    stream.close()
    return answer, time.monotonic() - start


def _slow_frame(stream, first, rest, masked):
    """The Close that the writer of a slow frame gets, and when."""
    start = time.monotonic()
    stream.send(first)
    done = _drip(stream, rest)
    close = stream.frame_of(CLOSE)
    done.set()
    stream.hang_up(frame(CLOSE, close.payload, masked=masked))
    return close, time.monotonic() - start


SLOW_FRAMES = {
    "/head": lambda masked: (b"", frame(BINARY, b"x" * 300, masked=masked)[:60]),
    "/payload": lambda masked: (frame(BINARY, b"x" * 10, claimed=300, masked=masked), b"x" * 60),
}


def test_a_slow_writer_is_cut_in_its_head_its_headers_and_its_frames(gateway, raw_app):
    def app(stream, head):
        stream.send(raw.accepted(head))
        if "GET /neighbour " in head:
            while got := stream.frame_of(TEXT):
                stream.send(frame(TEXT, got.payload, masked=False))
        try:
            ends[head.split()[1]] = stream.frame_of(CLOSE).close_code
        except EOFError:
            ends[head.split()[1]] = "FIN"

    ends = {}
    limits = {"limits.header_timeout": f"{TIMEOUT_S:.0f}s", "limits.frame_timeout": f"{TIMEOUT_S:.0f}s"}
    running = gateway(raw_app(app).url, settings=limits)
    neighbour = Neighbour(running)
    before = neighbour.p99()
    whole = upgrade(running.data).removesuffix(b"\r\n")
    with ThreadPoolExecutor() as pool:
        heads = [pool.submit(_slow_head, running, first) for first in (b"", b"GET / HTTP/1.1\r\n", whole)]
        frames = [
            pool.submit(_slow_frame, raw.open_client(running, path), *make(True), True)
            for path, make in SLOW_FRAMES.items()]
        # A queue that others wait behind would show in each window; a hiccup of a shared machine in one.
        during = min(neighbour.p99(40), neighbour.p99(40))
        for answer, took in (one.result() for one in heads):
            assert answer.startswith("HTTP/1.1 408 "), answer
            assert TIMEOUT_S - 0.1 <= took <= TIMEOUT_S + SLACK_S
        for close, took in (one.result() for one in frames):
            assert close.close_code == 1008, close
            assert TIMEOUT_S - 0.1 <= took <= TIMEOUT_S + SLACK_S
    # The bytes of the half payload have gone on to the app: there is no valid place for a Close any more.
    eventually(lambda: ends == {"/head": 1001, "/payload": "FIN"}, "the app's sides end", 5)
    neighbour.close()
    assert during <= 2 * before + JITTER_S, f"the neighbour's p99: {before} -> {during}"
    assert running.reasons("pulsegate_handshakes_rejected_total")["head_timeout"] == 3
    eventually(lambda: running.metric("pulsegate_sessions_ended_total", reason="limit") == 2, "both are counted")
    assert running.metric("pulsegate_dead_peers_total") == 0


def test_an_app_that_writes_its_head_a_byte_a_second_or_not_at_all(gateway, raw_app):
    def app(stream, head):
        if "GET /never " not in head:
            answer = raw.accepted(head)
            cut = 0 if "GET /head " in head else answer.index(b"\r\n") + 2
            stream.send(answer[:cut])
            _drip(stream, answer[cut:])
        stream.rest()

    def ask(path):
        stream = raw.connect(running.address)
        start = time.monotonic()
        stream.send(upgrade(running.data, path))
        answer = stream.head()
        stream.close()
        return answer, time.monotonic() - start

    running = gateway(raw_app(app).url, settings={"upstream.handshake_timeout": f"{TIMEOUT_S:.0f}s"})
    with ThreadPoolExecutor() as pool:
        for answer, took in pool.map(ask, ("/head", "/header", "/never")):
            assert answer.startswith("HTTP/1.1 504 "), answer
            assert TIMEOUT_S - 0.1 <= took <= TIMEOUT_S + SLACK_S
    assert running.reasons("pulsegate_handshakes_rejected_total")["app_timeout"] == 3
    assert running.metric("pulsegate_sessions_opened_total") == 0


def test_an_app_that_writes_its_frames_a_byte_a_second(gateway, raw_app):
    def app(stream, head):
        stream.send(raw.accepted(head))
        first, rest = SLOW_FRAMES[head.split()[1]](False)
        closes.put(_slow_frame(stream, first, rest, False))

    closes = queue.Queue()
    running = gateway(raw_app(app).url, settings={"limits.frame_timeout": f"{TIMEOUT_S:.0f}s"})
    clients = [raw.open_client(running, path) for path in ("/head", "/payload")]
    for _ in clients:
        close, took = closes.get(timeout=TIMEOUT_S + 5)
        assert close.close_code == 1008, close
        assert TIMEOUT_S - 0.1 <= took <= TIMEOUT_S + SLACK_S
    # Within the payload of a frame there is no valid place for a Close: that client gets FIN.
    assert clients[0].frame_of(CLOSE).close_code == 1011
    assert CLOSE not in clients[1].rest()[:2]
    for client in clients:
        client.hang_up()
    eventually(lambda: running.metric("pulsegate_sessions_ended_total", reason="limit") == 2, "both are counted")
