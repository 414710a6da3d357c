"""C18: the wall clock jumps an hour ahead, an hour back, and ahead again, while the monotonic clock stays true."""

import time
from datetime import datetime, timezone

from kit.machine import FakeClock
from kit.peer import Peer
from kit.wait import eventually

HOUR_S = 3600
# More than the bound of profile fast, so that every timer of a session comes due after each jump.
HELD_S = 4.0
QUIET = 3


def _off_by(text):
    """How far a time in RFC 3339 is from the true one, in seconds."""
    return (datetime.fromisoformat(text) - datetime.now(timezone.utc)).total_seconds()


def test_the_wall_clock_jumps(gateway, chat, tmp_path):
    clock = FakeClock(tmp_path)
    running = gateway(chat().url, "--profile", "fast", place=clock)
    quiet = [Peer(running, "/quiet") for _ in range(QUIET)]
    busy = Peer(running, "/busy")
    gone = Peer(running, "/gone")
    known = [one["id"] for one in running.sessions()]
    tombstone = running.session(lambda one: one["path"] == "/gone")["id"]
    gone.cut()
    eventually(lambda: running.ask(f"/v1/sessions/{tombstone}")[0] == 410, "it has left")
    joined = []
    for jump in (HOUR_S, -HOUR_S, HOUR_S):
        clock.jump(jump)
        joined.append(Peer(running, f"/joined{len(joined)}"))
        session = running.session(lambda one: one["path"] == f"/joined{len(joined) - 1}")
        assert abs(_off_by(session["opened_at"]) - jump) < 60, "the gateway sees the false clock"
        assert session["age_seconds"] < 60
        known.append(session["id"])
        end = time.monotonic() + HELD_S
        while time.monotonic() < end:
            busy.echo(f"{jump} {time.monotonic()}")
            time.sleep(0.1)
        for one in (*quiet, busy, *joined):
            one.check()
        status, answer = running.ask(f"/v1/sessions/{tombstone}")
        assert (status, answer["session"]["reason"]) == (410, "reset"), "it is remembered, whatever the clock says"
    assert len(set(known)) == len(known), "ids are unique"
    assert known == sorted(known), "ids rise"
    assert {one["id"] for one in running.sessions()} == set(known) - {tombstone}
    assert running.metric("pulsegate_dead_peers_total") == 0
    assert running.metric("pulsegate_verdicts_withheld_total") == 0
    assert sum(running.reasons("pulsegate_sessions_ended_total").values()) == 1
    for one in (*quiet, *joined):
        one.echo("still here")


def test_a_client_dies_while_the_clock_jumps(gateway, chat, tmp_path):
    """The bound is counted by the monotonic clock: neither shortened nor stretched by an hour."""
    clock = FakeClock(tmp_path)
    running = gateway(chat().url, "--profile", "fast", place=clock)
    ends = []
    for jump in (HOUR_S, -HOUR_S):
        one = Peer(running)
        one.echo("hello")
        one.answers = False
        start = time.monotonic()
        clock.jump(jump)
        eventually(lambda: one.close or one.ended, "it is found", 4.0)
        ends.append(one.closed_at - start)
        assert 2.0 <= ends[-1] <= 4.0
    line = running.session_ended()
    assert line["reason"] == "frozen"
    stamps = [_off_by(line["timestamp"]) for line in running.process.reports if "timestamp" in line]
    assert min(stamps) < 60 - HOUR_S and max(stamps) > HOUR_S - 60, "the log shows the jumps"
    print(f"found after {[round(end, 2) for end in ends]} s")
