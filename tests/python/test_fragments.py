"""Fragmented messages with control frames between the fragments, byte for byte (RFC 6455 section 5.4)."""

import queue

import pytest

from kit import raw
from kit.raw import CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from websockets.sync.server import serve
import threading


@pytest.fixture
def wire(gateway, raw_app):
    """A client and its app, both as raw streams on the two sides of a gateway."""

    def open_pair(**settings):
        arrived = queue.Queue()
        done = threading.Event()

        def behave(stream, head):
            stream.send(raw.accepted(head))
            arrived.put(stream)
            done.wait(60)

        app = raw_app(behave)
        running = gateway(app.url, settings=settings)
        client = raw.open_client(running)
        return running, client, arrived.get(timeout=10), done

    opened = []

    def keep(**settings):
        opened.append(open_pair(**settings))
        return opened[-1][:3]

    yield keep
    for _, client, _, done in opened:
        client.close()
        done.set()


def _data_frames(stream, count):
    """The next `count` frames that are not control frames; pings are answered on the way."""
    found = []
    while len(found) < count:
        got = stream.frame()
        if got.opcode == PING:
            stream.send(frame(PONG, got.payload, masked=not got.masked))
        elif got.opcode < CLOSE:
            found.append((got.opcode, got.fin, got.payload))
    return found


def test_the_clients_fragments_stay_as_they_are(wire):
    _, client, app = wire()
    client.send(frame(TEXT, b"Hel", fin=False))
    client.send(frame(PING, b"between"))
    client.send(frame(CONTINUATION, b"", fin=False))
    client.send(frame(PONG, b"nobody asked"))
    client.send(frame(CONTINUATION, b"lo", fin=True))
    assert client.frame_of(PONG).payload == b"between", "the gateway answers the client's ping"
    assert _data_frames(app, 3) == [(TEXT, False, b"Hel"), (CONTINUATION, False, b""), (CONTINUATION, True, b"lo")]


def test_the_apps_fragments_stay_as_they_are(wire):
    _, client, app = wire()
    app.send(frame(TEXT, b"Hel", fin=False, masked=False))
    app.send(frame(PING, b"from the app", masked=False))
    app.send(frame(CONTINUATION, b"lo", masked=False))
    assert app.frame_of(PONG).payload == b"from the app", "the gateway answers the app's ping"
    assert _data_frames(client, 2) == [(TEXT, False, b"Hel"), (CONTINUATION, True, b"lo")]


def test_own_pings_go_between_the_fragments_of_a_slow_message(wire):
    """A message that takes longer than the ping interval: probes go out inside it, at a frame's border."""
    _, client, app = wire(**{"liveness.ping_interval": "500ms", "liveness.verdict_after": "2s"})
    app.send(frame(TEXT, b"Hel", fin=False, masked=False))
    assert client.frame_of(TEXT).payload == b"Hel"
    probe = client.frame_of(PING)
    client.send(frame(PONG, probe.payload))
    app.send(frame(CONTINUATION, b"lo", masked=False))
    assert client.frame_of(CONTINUATION).payload == b"lo"


def test_every_split_of_a_frame_arrives_whole(wire):
    """One byte a segment, over a head with an extended length and a mask."""
    _, client, app = wire()
    whole = frame(TEXT, b"x" * 130)
    for at in range(len(whole)):
        client.send(whole[at : at + 1])
    got = app.frame_of(TEXT)
    assert (got.payload, got.masked) == (b"x" * 130, True)


def test_many_frames_in_one_segment_arrive_in_order(wire):
    _, client, app = wire()
    client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(2_000)))
    assert [payload for _, _, payload in _data_frames(app, 2_000)] == [b"%d" % number for number in range(2_000)]


def test_frames_right_behind_the_handshake_are_not_lost(gateway, raw_app):
    """Client and app may both speak in the same segment as their half of the handshake."""
    first = queue.Queue()

    def behave(stream, head):
        stream.send(raw.accepted(head) + frame(TEXT, b"app was first", masked=False))
        first.put(stream.frame_of(TEXT).payload)
        stream.frame_of(CLOSE)

    running = gateway(raw_app(behave).url)
    client = raw.connect(running.address)
    client.send(raw.upgrade(running.data) + frame(TEXT, b"client was first"))
    assert client.head().startswith("HTTP/1.1 101 ")
    assert client.frame_of(TEXT).payload == b"app was first"
    assert first.get(timeout=10) == b"client was first"
    client.close()


def test_a_library_puts_the_fragments_together(gateway):
    got = queue.Queue()

    def handle(connection):
        for message in connection:
            got.put(message)
            connection.send(["one ", "two ", "three"])

    with serve(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running = gateway("http://127.0.0.1:%d" % server.socket.getsockname()[1])
        client = raw.open_client(running)
        client.send(frame(TEXT, b"frag", fin=False) + frame(PING, b"!") + frame(CONTINUATION, b"ments"))
        assert got.get(timeout=10) == "fragments"
        assert client.frame_of(PONG).payload == b"!"
        assert [payload for _, _, payload in _data_frames(client, 3)] == [b"one ", b"two ", b"three"]
        client.close()
        server.shutdown()
