"""C9 and C10 with pulsegate.v1: a page that takes nothing, and one that writes a byte a second; others must not notice."""

import time

from kit import raw
from kit.history import APP, TO_APP, TO_CLIENT
from kit.machine import memory_bytes
from kit.peer import Neighbour
from kit.raw import BINARY, CLOSE, TEXT, close_payload, frame
from kit.wait import eventually

WINDOW_BYTES = 64 << 10
MESSAGES, MESSAGE_BYTES = 2000, 4000
# Longer than every bound of profile fast (3 s) and than `page_frozen_after` as set here.
HELD_S, FROZEN_AFTER = 5.0, "3s"
# The window, what is read of the app at once, and the allocator's rounding.
MEMORY_MAX = 4 << 20
# A scheduling hiccup of a shared machine; a queue that others wait behind would cost seconds.
JITTER_S = 0.05
TIMEOUT_S = 2.0
SLACK_S = 1.5
V1 = ["Sec-WebSocket-Protocol: pulsegate.v1"]


def test_a_page_that_reads_nothing_holds_its_app_back_and_nobody_is_closed(numbered, gateway):
    """Its code is busy, but it answers: slow is not dead, for as long as it takes."""
    settings = {"v1.window_bytes": str(WINDOW_BYTES), "v1.page_frozen_after": FROZEN_AFTER}
    running = gateway(numbered.start_app(), "--profile", "fast", settings=settings)
    names = ["slow", "beside"]
    for name in names:
        numbered.clients(running.url(""), [name])
    neighbour = Neighbour(running)
    before = neighbour.p99()
    memory = memory_bytes(running.process.pid)
    numbered.talk(["beside"], 0.02)
    numbered.tell("slow", "read", on=False)
    numbered.tell("slow", "say", side=APP, count=MESSAGES, padding=MESSAGE_BYTES)
    history, session = numbered.history, numbered.history.session("slow")

    def said():
        return history.numbers("slow", TO_CLIENT)[0]

    eventually(lambda: said() > 0 and running.ask(f"/v1/sessions/{session}")[1]["delivery"]["unacked_bytes"]
               > WINDOW_BYTES - MESSAGE_BYTES, "the window is full")
    during, start = neighbour.p99(50), time.monotonic()
    full = said()
    # It can speak all the same. The app's answers to our pings stand behind what it has no room for: no ACK until then.
    numbered.tell("slow", "say", count=10, padding=0)
    numbered.until("slow", TO_APP, 10, 5)
    assert history.delivered("slow") == 0
    during = max(during, neighbour.p99())
    # The wait is what is tested.
    time.sleep(max(0, start + HELD_S - time.monotonic()))
    shown = running.ask(f"/v1/sessions/{session}")[1]
    held = memory_bytes(running.process.pid) - memory
    print(f"{full} of {MESSAGES} said, {shown['delivery']}, {held >> 10} KiB held, p99 {before * 1e3:.1f} -> "
          f"{during * 1e3:.1f} ms")
    assert shown["state"] == "live"
    # The window, and the one message that has no room in it.
    assert shown["delivery"]["unacked_bytes"] <= WINDOW_BYTES + MESSAGE_BYTES + len("slow to_client 1000")
    assert said() == full < MESSAGES, "the app is held back"
    assert held <= MEMORY_MAX
    assert during <= 2 * before + JITTER_S, "the neighbour's p99"
    history.check_nobody_detached()
    numbered.tell("slow", "read", on=True)
    numbered.until("slow", TO_CLIENT, MESSAGES, 10)
    neighbour.close()
    numbered.check(running, names, 2 + SLACK_S)
    history.check_nobody_detached()
    assert running.metric("pulsegate_dead_peers_total") == 0
    assert running.metric("pulsegate_retransmits_total") == 0


def drip(stream, data):
    """Sends a byte each half second until the peer has had enough; the Close that it gets, and when."""
    start = time.monotonic()
    stream.socket.settimeout(0.5)
    for byte in data:
        stream.send(bytes([byte]))
        try:
            while (got := stream.frame()).opcode != CLOSE:
                pass
            return got, time.monotonic() - start
        except TimeoutError:
            pass
    raise AssertionError("nobody stopped it")


def test_a_client_that_writes_its_message_a_byte_at_a_time(numbered, gateway):
    """The app gets nothing of it; the client is told 4429, and the session is over: it broke a limit."""
    limits = {"limits.frame_timeout": f"{TIMEOUT_S:.0f}s"}
    running = gateway(numbered.start_app(), settings=limits)
    numbered.clients(running.url(""), ["beside"])
    numbered.talk(["beside"], 0.02)
    for name, begun in (("in-its-head", 1), ("in-its-payload", 20)):
        stream = raw.open_client(running, f"/?name={name}", V1)
        assert stream.frame().payload[0] == 0x08, "WELCOME"
        whole = frame(TEXT, b"never whole" + b"." * 300)
        stream.send(whole[:begun])
        # The head has eight bytes: the first of these cases never gets to its end.
        close, took = drip(stream, whole[begun : begun + 7])
        assert close.close_code == 4429, close
        assert TIMEOUT_S - 0.3 <= took <= TIMEOUT_S + SLACK_S
        stream.hang_up(frame(CLOSE, close.payload))
        eventually(lambda: numbered.history.end(name, APP), "the app is told")
        assert numbered.history.end(name, APP)[0] == 1001
        assert numbered.history.numbers(name, TO_APP)[1] == 0, "nothing of it came to the app"
        stream.close()
    assert running.metric("pulsegate_sessions_ended_total", reason="limit") == 2
    numbered.hush(["beside"])
    assert numbered.history.misdelivered() == []
    assert running.metric("pulsegate_dead_peers_total") == 0


def test_what_came_in_part_does_not_count(numbered, gateway):
    """A slow writer that is cut in the middle of a message sends it again, whole: the app gets it once."""
    running = gateway(numbered.start_app())
    stream = raw.open_client(running, "/?name=ada", V1)
    token = token_of(stream.frame())
    stream.send(frame(TEXT, b"ada to_app 1"))
    whole = frame(TEXT, b"ada to_app 2" + b"." * 200)
    stream.send(whole[:100])
    numbered.until("ada", TO_APP, 1, 5)
    stream.close()
    eventually(lambda: running.sessions()[0]["state"] == "detached", "it is detached")
    stream = raw.open_client(running, "/?name=ada", [f"Sec-WebSocket-Protocol: pulsegate.v1, pgr.{token}.0"])
    welcome = stream.frame()
    assert welcome.payload[:3] == b"\x08\x01\x01", "resumed, and one message was received"
    stream.send(whole)
    numbered.until("ada", TO_APP, 2, 5)
    stream.send(frame(BINARY, b"\x0a\x00\x02") + frame(CLOSE, close_payload(1000)))
    eventually(lambda: numbered.history.end("ada", APP), "the app is told of the end")
    assert numbered.history.numbers("ada", TO_APP)[1] == 2, "and nothing came twice"
    stream.close()


def token_of(welcome):
    """What a WELCOME says of the token: tag, flags, received, next, each below 128, length, text."""
    length = welcome.payload[4]
    return welcome.payload[5 : 5 + length].decode()
