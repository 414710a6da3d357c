"""Frames that break RFC 6455 or a limit: the right Close to each side, a counted reason, no harm to others."""

import queue
import struct
import threading

import pytest

from kit import raw
from kit.good import GoodClient
from kit.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame

ENDED = "pulsegate_sessions_ended_total"
PROTOCOL_ERROR, TOO_BIG, POLICY, GOING_AWAY, INTERNAL_ERROR = 1002, 1009, 1008, 1001, 1011


class Attack:
    """One session between a misbehaving side and its bystander, and a good client beside it."""

    def __init__(self, gateway, raw_app, settings, extra, answer):
        self._apps = queue.Queue()
        self._done = threading.Event()

        def behave(stream, head):
            if "GET /good " in head:
                stream.send(raw.accepted(head))
                while (got := stream.frame_of(TEXT)):
                    stream.send(frame(TEXT, got.payload, masked=False))
            stream.send(raw.accepted(head, answer))
            self._apps.put(stream)
            self._done.wait(60)

        self.gateway = gateway(raw_app(behave).url, settings=settings)
        self.good = GoodClient(self.gateway)
        self.client = raw.open_client(self.gateway, extra=extra)
        self.app = self._apps.get(timeout=10)

    def throw(self, stream, data):
        """Sends in a thread: a refusal may come before the last byte has left."""

        def work():
            try:
                stream.send(data)
            except OSError:
                pass

        threading.Thread(target=work, daemon=True).start()

    def ends(self, reason, client, app):
        """Asserts what each side is told and what is counted; each side answers its Close and hangs up."""
        for name, stream, code in (("client", self.client, client), ("app", self.app, app)):
            got = stream.frame_of(CLOSE)
            assert got.close_code == code, f"{name}: {got}"
            stream.hang_up(frame(CLOSE, got.payload, masked=not got.masked))
        assert self.gateway.session_ended()["reason"] == reason
        assert self.gateway.metric(ENDED, reason=reason) == 1
        assert self.gateway.metric("pulsegate_dead_peers_total") == 0
        self.good.check()

    def close(self):
        self.good.close()
        self.client.close()
        self._done.set()


@pytest.fixture
def attack(gateway, raw_app):
    """`attack(settings={…}, extra=[request lines], answer=[lines of the app's 101])`."""
    started = []

    def start(settings=None, extra=(), answer=()):
        started.append(Attack(gateway, raw_app, settings or {}, extra, answer))
        return started[-1]

    yield start
    for one in started:
        one.close()


VIOLATIONS = {
    "a reserved bit": lambda masked: frame(TEXT, b"x", reserved=4, masked=masked),
    "the lowest reserved bit": lambda masked: frame(TEXT, b"x", reserved=1, masked=masked),
    "a reserved data opcode": lambda masked: frame(0x3, b"x", masked=masked),
    "a reserved control opcode": lambda masked: frame(0xB, b"x", masked=masked),
    "a ping of 126 bytes": lambda masked: frame(PING, b"x" * 126, masked=masked),
    "a pong of 70,000 bytes": lambda masked: frame(PONG, b"x" * 70_000, masked=masked),
    "a fragmented ping": lambda masked: frame(PING, b"x", fin=False, masked=masked),
    "a continuation of nothing": lambda masked: frame(CONTINUATION, b"x", masked=masked),
    "a message inside a message": lambda masked: (
        frame(TEXT, b"x", fin=False, masked=masked) + frame(BINARY, b"y", masked=masked)),
    "a Close of one byte": lambda masked: frame(CLOSE, b"x", masked=masked),
    "a Close of 126 bytes": lambda masked: frame(CLOSE, close_payload(1000, "x" * 124), masked=masked),
    "a Close with code 1005": lambda masked: frame(CLOSE, close_payload(1005), masked=masked),
    "a Close with code 999": lambda masked: frame(CLOSE, close_payload(999), masked=masked),
    "a length with its top bit set": lambda masked: (
        struct.pack("!BBQ", 0x82, 0x80 * masked | 127, 1 << 63) + b"mask" * masked),
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_by_the_client(attack, data):
    one = attack()
    one.throw(one.client, data(True))
    one.ends("protocol_error", client=PROTOCOL_ERROR, app=GOING_AWAY)


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_by_the_app(attack, data):
    one = attack()
    one.throw(one.app, data(False))
    one.ends("protocol_error", client=INTERNAL_ERROR, app=PROTOCOL_ERROR)


def test_a_client_that_does_not_mask(attack):
    one = attack()
    one.throw(one.client, frame(TEXT, b"x", masked=False))
    one.ends("protocol_error", client=PROTOCOL_ERROR, app=GOING_AWAY)


def test_an_app_that_masks(attack):
    one = attack()
    one.throw(one.app, frame(TEXT, b"x", masked=True))
    one.ends("protocol_error", client=INTERNAL_ERROR, app=PROTOCOL_ERROR)


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def test_a_negotiated_bit_is_the_only_one(attack):
    one = attack(extra=[DEFLATE], answer=[DEFLATE])
    one.client.send(frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", reserved=4))
    assert one.app.frame_of(TEXT).reserved == 4, "the bit of permessage-deflate passes"
    one.throw(one.client, frame(TEXT, b"x", reserved=2))
    one.ends("protocol_error", client=PROTOCOL_ERROR, app=GOING_AWAY)


@pytest.mark.parametrize("reason", [b"\xff\xfe", b"\xc3"], ids=["never UTF-8", "half a character"])
def test_a_close_reason_that_is_not_text(attack, reason):
    one = attack()
    one.throw(one.client, frame(CLOSE, struct.pack("!H", 1000) + reason))
    assert one.client.frame_of(CLOSE).close_code in (PROTOCOL_ERROR, 1007)
    assert one.app.frame_of(CLOSE).close_code == GOING_AWAY
    one.good.check()


def test_a_frame_over_the_limit_is_refused_by_its_head(attack):
    one = attack({"limits.frame_bytes_max": 1_000})
    one.client.send(frame(BINARY, b"x" * 1_000))
    assert len(one.app.frame_of(BINARY).payload) == 1_000, "the limit itself is allowed"
    one.throw(one.client, frame(BINARY, claimed=1 << 40))
    one.ends("limit", client=TOO_BIG, app=GOING_AWAY)


def test_an_app_over_the_limit_is_refused_by_its_head(attack):
    one = attack({"limits.frame_bytes_max": 1_000})
    one.throw(one.app, frame(BINARY, claimed=1_001, masked=False))
    one.ends("limit", client=INTERNAL_ERROR, app=TOO_BIG)


def test_a_message_over_the_limit_is_refused_over_its_fragments(attack):
    one = attack({"limits.message_bytes_max": 2_500})
    one.throw(one.client, frame(BINARY, b"x" * 1_000, fin=False) + frame(CONTINUATION, b"x" * 1_000, fin=False) * 2)
    one.ends("limit", client=TOO_BIG, app=GOING_AWAY)


def test_a_million_tiny_fragments(attack):
    one = attack()
    drained = threading.Thread(target=_drain, args=(one.app, close := queue.Queue()), daemon=True)
    drained.start()
    one.throw(one.client, frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 1_000_000)
    assert one.client.frame_of(CLOSE).close_code in (POLICY, TOO_BIG)
    assert close.get(timeout=20).close_code == GOING_AWAY
    one.client.hang_up()
    one.app.hang_up()
    assert one.gateway.session_ended()["reason"] == "limit"
    assert one.gateway.metric(ENDED, reason="limit") == 1
    one.good.check()


def _drain(stream, close):
    try:
        close.put(stream.frame_of(CLOSE))
    except (OSError, EOFError) as failure:
        close.put(failure)


@pytest.mark.parametrize("opcode", [PING, PONG], ids=["pings", "pongs that nobody asked for"])
def test_a_flood_of_control_frames(attack, opcode):
    one = attack()
    one.throw(one.client, frame(opcode, b"flood") * 50_000)
    assert one.client.frame_of(CLOSE).close_code == POLICY
    assert one.app.frame_of(CLOSE).close_code == GOING_AWAY
    one.client.hang_up()
    one.app.hang_up()
    assert one.gateway.session_ended()["reason"] == "limit"
    one.good.check()


def test_pings_within_the_rate_are_answered(attack):
    one = attack()
    one.client.send(b"".join(frame(PING, b"%d" % at) for at in range(50)))
    assert one.client.frame_of(PONG).payload in {b"%d" % at for at in range(50)}
    one.client.send(frame(TEXT, b"and on it goes"))
    assert one.app.frame_of(TEXT).payload == b"and on it goes"


def test_a_frame_that_never_ends_is_cut(attack):
    one = attack({"limits.frame_timeout": "1s"})
    one.throw(one.client, frame(BINARY, b"x" * 10, claimed=1_000_000))
    assert one.client.frame_of(CLOSE).close_code in (POLICY, TOO_BIG)
    one.client.hang_up()
    one.app.hang_up()
    assert one.gateway.session_ended()["reason"] == "limit"
    one.good.check()
