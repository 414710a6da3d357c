"""C18 with pulsegate.v1: the wall clock jumps by an hour; sessions, live or waiting for their clients, go by the true time."""

import time
from datetime import datetime, timezone

from kit import raw
from kit.history import TO_APP
from kit.machine import FakeClock, stop, wake
from kit.wait import eventually

HOUR_S = 3600
# More than the bound of profile fast, so that every timer of a connection comes due after each jump.
HELD_S = 3.5
BOUND_S = 1.0 + 2.0
RESUME_WINDOW_S = 2.0
SLACK_S = 1.0
V1 = ["Sec-WebSocket-Protocol: pulsegate.v1"]


def clock_is_off_by(running, seconds):
    """Whether the gateway stamps a new session with the false time."""
    stream = raw.open_client(running, "/neighbour")
    opened = running.session(lambda session: session["path"] == "/neighbour")["opened_at"]
    stream.close()
    eventually(lambda: all(session["path"] != "/neighbour" for session in running.sessions()), "it has left")
    off = (datetime.fromisoformat(opened) - datetime.now(timezone.utc)).total_seconds()
    return abs(off - seconds) < 60


def test_the_wall_clock_jumps_ahead_and_back(numbered, gateway, tmp_path):
    """Nobody is detached; whoever was before comes back to the session, for which two minutes are left and not none."""
    clock = FakeClock(tmp_path)
    running = gateway(numbered.start_app(), "--profile", "fast", place=clock)
    away, beside = ["ada"], ["bob", "cy"]
    clients = numbered.clients(running.url(""), away)
    numbered.clients(running.url(""), beside)
    names = [*away, *beside]
    numbered.talk(names, 0.02)
    numbered.until_both(names, 20, 5)
    stop(clients)
    eventually(lambda: running.events("session.detached"), "it is detached", BOUND_S + SLACK_S)
    for jump in (HOUR_S, -HOUR_S):
        clock.jump(jump)
        assert clock_is_off_by(running, jump)
        # The wait is what is tested.
        time.sleep(HELD_S)
        numbered.grows("bob", TO_APP, 20)
    detached = {event["session"] for event in running.events("session.detached")}
    assert not detached & {numbered.history.session(name) for name in beside}
    wake(clients)
    eventually(lambda: numbered.history.resumes("ada") == 1, "it is back", BOUND_S + SLACK_S)
    numbered.hush(names)
    eventually(lambda: not numbered.history.lost(), "all has arrived", BOUND_S + SLACK_S)
    assert numbered.history.misdelivered() == []
    assert [numbered.history.resumes(name) for name in names] == [1, 0, 0]
    assert [numbered.history.resets(name) for name in names] == [0, 0, 0]
    assert running.metric("pulsegate_dead_peers_total") == 1, "the one that was stopped"
    assert running.metric("pulsegate_verdicts_withheld_total") == 0


def test_a_session_expires_by_the_true_time(numbered, gateway, tmp_path):
    """The clock jumps an hour back, or ahead, while two sessions wait: neither ends too soon, and neither lives on."""
    clock = FakeClock(tmp_path)
    settings = {"v1.resume_window": f"{RESUME_WINDOW_S:.0f}s"}
    running = gateway(numbered.start_app(), "--profile", "fast", place=clock, settings=settings)
    for jump in (-HOUR_S, HOUR_S):
        raw.open_client(running, "/neighbour", V1).close()
        session = running.session()["id"]
        eventually(lambda: running.ask(f"/v1/sessions/{session}")[1]["state"] == "detached", "it waits")
        begin = time.monotonic()
        clock.jump(jump)
        gone = eventually(lambda: (answer := running.ask(f"/v1/sessions/{session}"))[0] == 410 and answer[1]["session"],
                          "it ends", RESUME_WINDOW_S + SLACK_S)
        took = time.monotonic() - begin
        assert gone["reason"] == "expired"
        assert RESUME_WINDOW_S - 0.5 <= took <= RESUME_WINDOW_S + SLACK_S
