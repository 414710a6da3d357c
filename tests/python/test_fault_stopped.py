"""C11 and C12: a client or an app is stopped while its kernel goes on acknowledging for it."""

import sys
import time
from pathlib import Path

import pytest

from kit import raw
from kit.machine import memory_bytes, stop, wake
from kit.peer import Peer
from kit.raw import BINARY, CLOSE, frame
from kit.wait import eventually

TESTS = Path(__file__).resolve().parents[1]
CLIENTS = {
    "node ws": ["node", str(TESTS / "node" / "apps" / "client.mjs")],
    "python websockets": [sys.executable, str(TESTS / "netns" / "client.py")],
}
# Profile fast.
PING_INTERVAL_S, VERDICT_AFTER_S = 1.0, 2.0
BOUND_S = PING_INTERVAL_S + VERDICT_AFTER_S
SLACK_S = 1.0
FROZEN_AFTER_S = 5.0
STALL_S = 5.0
HANDSHAKE_S = 1.0


def test_a_stopped_client_is_found_and_told_when_it_wakes(gateway, chat, process):
    app = chat()
    running = gateway(app.url, "--profile", "fast")
    beside = Peer(running)
    known = {running.session()["id"]}
    clients = {}
    for kind, command in CLIENTS.items():
        client = process(kind, [*command, running.url("/chat")])
        client.event("open")
        client.say("hello")
        client.event("message")
        (session,) = {one["id"] for one in running.sessions()} - known
        known.add(session)
        clients[session] = client, time.monotonic()
        # Data in flight when it stops: the echo waits in its kernel, and is no sign of life.
        client.say("the echo that it sleeps through")
        stop(client)
    for session, (client, stopped) in clients.items():
        gone = eventually(
            lambda: (answer := running.ask(f"/v1/sessions/{session}"))[0] == 410 and answer[1]["session"],
            f"{client.name} is found", BOUND_S + SLACK_S)
        assert time.monotonic() - stopped <= BOUND_S + SLACK_S
        assert (gone["reason"], gone["leg"]) == ("frozen", "client")
        assert "probes unanswered" in gone["verdict"]
    closes = eventually(
        lambda: len(found := [one for one in app.reports if one["event"] == "close"]) == 2 and found, "the app is told")
    assert {(one["code"], one["reason"].split(":")[0]) for one in closes} == {(4408, "client frozen")}
    metric = running.metric
    assert metric("pulsegate_dead_peers_total", leg="client", cause="frozen") == 2
    assert metric("pulsegate_dead_peers_total") == 2
    for client, _ in clients.values():
        wake(client)
        close = client.event("close")
        assert close["code"] == 4408, f"{client.name} is told when it wakes: {close}"
        again = process(f"{client.name} again", [*CLIENTS[client.name], running.url("/chat")])
        again.event("open")
        again.say("back")
        again.report(lambda report: report.get("text") == "back", "the echo after it has come back")
    beside.echo("nothing happened here")
    assert len(running.sessions()) == 3


def test_a_client_that_is_back_in_time_misses_nothing(gateway, chat, process):
    app = chat()
    running = gateway(app.url, "--profile", "fast")
    client = process("node ws", [*CLIENTS["node ws"], running.url("/chat")])
    client.event("open")
    for number in range(20):
        client.say(f"message {number}")
    stop(client)
    eventually(lambda: running.metric("pulsegate_suspects_total", leg="client") == 1, "it is suspect", BOUND_S)
    wake(client)
    client.report(lambda report: report.get("text") == "message 19", "the last echo")
    eventually(lambda: running.metric("pulsegate_suspects_recovered_total", leg="client") == 1, "it has recovered")
    assert [one["text"] for one in client.reports if one["event"] == "message"] == [f"message {n}" for n in range(20)]
    assert running.metric("pulsegate_dead_peers_total") == 0


def test_a_stopped_app(gateway, chat):
    """Its clients are held for `app_frozen_after`, not less; then they are told to try again later."""
    app = chat()
    running = gateway(app.url, "--profile", "fast", settings={
        "liveness.app_frozen_after": f"{FROZEN_AFTER_S:.0f}s", "liveness.app_write_stall_after": f"{STALL_S:.0f}s",
        "upstream.handshake_timeout": f"{HANDSHAKE_S:.0f}s"})
    quiet, talker = Peer(running), Peer(running)
    flood = raw.open_client(running)
    talker.echo("hello")
    memory = memory_bytes(running.process.pid)
    stop(app)
    stopped = time.monotonic()
    talker.say("nobody reads this")
    refused = raw.connect(running.address)
    refused.send(raw.upgrade(running.data))
    sent = _until_blocked(flood)
    print(f"{sent >> 10} KiB until back-pressure")
    assert refused.head().startswith("HTTP/1.1 504 "), "it accepts, and never answers"
    assert HANDSHAKE_S <= time.monotonic() - stopped <= HANDSHAKE_S + SLACK_S + 1
    eventually(lambda: quiet.close and talker.close, "the clients are told", FROZEN_AFTER_S + SLACK_S + 1)
    for one in (quiet, talker):
        assert one.close.close_code == 1013, one.close
        assert b"app frozen" in one.close.payload
        # Silence is counted from the last byte of the app, which came just before the stop.
        assert FROZEN_AFTER_S - 0.3 <= one.closed_at - stopped <= FROZEN_AFTER_S + PING_INTERVAL_S + SLACK_S
        print(f"1013 after {one.closed_at - stopped:.2f} s")
    end = flood.frame_of(CLOSE)
    print(f"the flood: {end.close_code} {end.payload[2:]} after {time.monotonic() - stopped:.2f} s")
    assert end.close_code in (1012, 1013)
    assert time.monotonic() - stopped <= STALL_S + PING_INTERVAL_S + SLACK_S
    assert memory_bytes(running.process.pid) - memory <= 4 << 20
    assert running.metric("pulsegate_dead_peers_total", leg="app") == 3
    assert running.metric("pulsegate_dead_peers_total", leg="client") == 0
    wake(app)
    app.report(lambda report: report.get("code") == 4408, "the app hears of it when it wakes")
    Peer(running).echo("and serves new clients")


def _until_blocked(stream):
    """Sends until nothing has gone for a second; the number of bytes until then."""
    stream.socket.settimeout(1)
    sent, chunk = 0, frame(BINARY, b"x" * 16_000)
    try:
        while True:
            sent += stream.socket.send(chunk[sent % len(chunk) :])
            assert sent < 64 << 20, "nothing holds it back"
    except TimeoutError:
        stream.socket.settimeout(10)
        return sent


def test_an_app_that_is_back_in_time_loses_nobody(gateway, chat):
    app = chat()
    running = gateway(app.url, "--profile", "fast", settings={"liveness.app_frozen_after": "10s"})
    peers = [Peer(running) for _ in range(3)]
    for one in peers:
        one.echo("hello")
    stop(app)
    stopped = time.monotonic()
    for number in range(20):
        peers[0].say(f"said into the stop {number}")
    # Longer than the bound of a silent peer: only the kernel that acknowledges speaks for the app.
    with pytest.raises(AssertionError, match="not within"):
        eventually(lambda: any(one.close or one.ended for one in peers), "somebody is cut", BOUND_S + SLACK_S)
    wake(app)
    eventually(lambda: len(peers[0].texts) == 21, "every word arrives", 5)
    print(f"held for {time.monotonic() - stopped:.1f} s")
    assert peers[0].texts[1:] == [f"said into the stop {number}" for number in range(20)]
    for one in peers:
        one.echo("still here")
        one.check()
    assert running.metric("pulsegate_dead_peers_total") == 0
    assert running.metric("pulsegate_suspects_recovered_total", leg="app") == 3
