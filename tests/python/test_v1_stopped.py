"""C11, C12 and C13 with pulsegate.v1: a client, the app, or the gateway itself is SIGSTOPped, and goes on later."""

import os
import time

from kit.history import TO_APP, TO_CLIENT
from kit.machine import memory_bytes, stop, wake
from kit.peer import Peer
from kit.v1 import Numbered
from kit.wait import eventually

# Profile fast: ping_interval and verdict_after.
BOUND_S = 1.0 + 2.0
SLACK_S = 1.0
PACE_S = 0.02
WINDOW = 200
# By hand, one that lasts a minute: PULSEGATE_TEST_SLEEP_S=60 (the tests' own names are not passed on to a gateway).
SLEEP_S = float(os.environ.get("PULSEGATE_TEST_SLEEP_S", 5))
V1 = ["Sec-WebSocket-Protocol: pulsegate.v1"]


def state_of(running, numbered, name):
    return running.ask(f"/v1/sessions/{numbered.history.session(name)}")[1]["state"]


def test_a_stopped_client_is_detached_and_comes_back_without_loss(numbered, gateway):
    """C11: its kernel acknowledges, its WebSocket stack does not answer."""
    running = gateway(numbered.start_app(), "--profile", "fast")
    stopped, beside = ["ada", "bob", "cy"], ["dan"]
    clients = numbered.clients(running.url(""), stopped)
    numbered.clients(running.url(""), beside)
    names = [*stopped, *beside]
    numbered.talk(names, PACE_S)
    numbered.until_both(names, 20, 5)
    stop(clients)
    stopped_at = time.monotonic()
    eventually(lambda: all(state_of(running, numbered, name) == "detached" for name in stopped), "they are detached",
               BOUND_S + SLACK_S)
    assert time.monotonic() - stopped_at <= BOUND_S + SLACK_S
    reasons = [event["reason"] for event in running.events("session.detached")]
    assert reasons == ["frozen"] * len(stopped)
    numbered.grows("dan", TO_CLIENT, 50)
    wake(clients)
    for name in stopped:
        eventually(lambda: numbered.history.resumes(name), f"{name} is back", SLACK_S)
    numbered.check(running, names, SLACK_S + 1)
    history = numbered.history
    assert [history.resumes(name) for name in names] == [1, 1, 1, 0]
    assert [history.resets(name) for name in names] == [0] * 4
    assert running.metric("pulsegate_dead_peers_total", leg="client", cause="frozen") == 3
    assert running.metric("pulsegate_dead_peers_total") == 3


def test_a_client_that_goes_on_in_time_keeps_its_connection(numbered, gateway):
    """C11, too short to count; what waited in its kernel is a sign of life of the gateway, whatever its clock says."""
    running = gateway(numbered.start_app(), "--profile", "fast")
    names = ["ada", "bob"]
    clients = numbered.clients(running.url(""), names)
    numbered.talk(names, PACE_S)
    numbered.until_both(names, 20, 5)
    stop(clients)
    eventually(lambda: running.metric("pulsegate_suspects_total", leg="client") == 2, "they are suspect", BOUND_S)
    wake(clients)
    numbered.all_grow(names, 20)
    numbered.check(running, names, SLACK_S + 1)
    numbered.history.check_nobody_detached()
    assert running.metric("pulsegate_dead_peers_total") == 0


def test_a_stopped_app_holds_its_clients_back_and_has_nothing_acknowledged(numbered, gateway):
    """C12, back in time: what its WebSocket stack has not read is not acknowledged, and no more than a window is taken."""
    settings = {"liveness.app_frozen_after": "20s", "liveness.app_write_stall_after": "20s",
                "v1.window_messages": str(WINDOW)}
    running = gateway(numbered.start_app(), "--profile", "fast", settings=settings)
    names = ["ada", "bob"]
    numbered.clients(running.url(""), names)
    numbered.tell_both(names, "say", count=20, padding=0)
    numbered.until_both(names, 20, 5)
    eventually(lambda: all(numbered.history.delivered(name) == 20 for name in names), "all is acknowledged")
    memory = memory_bytes(running.process.pid)
    stop(numbered.app)
    for name in names:
        numbered.tell(name, "say", count=3000, padding=500)

    def taken():
        return {session["legs"]["client"]["messages"] for session in running.sessions()}

    eventually(lambda: taken() == {20 + WINDOW}, "a window of each is taken")
    # The wait is what is tested: longer than any bound that a client would have.
    time.sleep(BOUND_S + SLACK_S)
    assert taken() == {20 + WINDOW}
    assert [numbered.history.delivered(name) for name in names] == [20, 20], "nothing is acknowledged"
    assert memory_bytes(running.process.pid) - memory <= 4 << 20
    numbered.history.check_nobody_detached()
    wake(numbered.app)
    for name in names:
        numbered.until(name, TO_APP, 3020, 10)
    numbered.check(running, names, SLACK_S + 1)
    numbered.history.check_nobody_detached()
    assert running.metric("pulsegate_dead_peers_total") == 0


def test_clients_of_an_app_that_stays_stopped_are_told(numbered, gateway):
    """C12, for good: 4411 with the code for a frozen app as configured, and which messages may be lost. The app hears of it
    when it goes on, and serves the next sessions."""
    settings = {"liveness.app_frozen_after": f"{BOUND_S:.0f}s", "upstream.handshake_timeout": "1s",
                "close.frozen_app_code": "1012"}
    running = gateway(numbered.start_app(), "--profile", "fast", settings=settings)
    names = ["ada", "bob"]
    numbered.clients(running.url(""), names)
    by_hand = Peer(running, "/neighbour", V1)
    numbered.tell_both(names, "say", count=20, padding=0)
    numbered.until_both(names, 20, 5)
    stop(numbered.app)
    stopped_at = time.monotonic()
    for name in names:
        numbered.tell(name, "say", count=30, padding=0)
    eventually(lambda: by_hand.close, "the client by hand is told", BOUND_S + 1 + SLACK_S)
    assert by_hand.close.close_code == 4411
    assert by_hand.close.payload[2:].startswith(b"1012 app frozen"), by_hand.close
    assert by_hand.closed_at - stopped_at <= BOUND_S + 1 + SLACK_S
    by_hand.cut()
    history = numbered.history
    for name in names:
        eventually(lambda: history.resets(name) == 1, f"{name} has lost its session", BOUND_S + SLACK_S)
    wake(numbered.app)
    for name in names:
        eventually(lambda: history.is_live(name), f"{name} has a session again", 5)
    numbered.tell_both(names, "say", count=10, padding=0)
    for name in names:
        eventually(lambda: history.delivered(name) == 30, f"{name} is acknowledged again")
    numbered.check(running, names, SLACK_S + 1)
    for name in names:
        told = [told for told in history.outcomes(name).values() if told != ["delivered"]]
        assert told == [["expired; sent: Maybe"]] * 30
    assert running.metric("pulsegate_dead_peers_total", leg="app", cause="frozen") == 3
    assert running.metric("pulsegate_dead_peers_total") == 3


def test_a_gateway_that_was_stopped_gives_nobody_up(process, gateway):
    """C13: its own sleep is held against nobody. Under profile fast the clients give up first, and come back to their
    sessions; under balanced nobody notices a sleep of 5 s."""
    names = [f"one-{number}" for number in range(12)]
    worlds = {}
    for profile in ("fast", "balanced"):
        numbered = Numbered(process)
        worlds[profile] = numbered, gateway(numbered.start_app(), "--profile", profile)
        numbered.clients(worlds[profile][1].url(""), names)
        numbered.talk(names, 0.1)
        numbered.until_both(names, 10, 5)
    for _, running in worlds.values():
        stop(running.process)
    time.sleep(SLEEP_S)
    for _, running in worlds.values():
        wake(running.process)
    for profile, (numbered, running) in worlds.items():
        history, metric = numbered.history, running.metric
        numbered.all_grow(names, 10)
        numbered.check(running, names, BOUND_S + SLACK_S)
        print(profile, "resumed:", [history.resumes(name) for name in names])
        assert [history.resets(name) for name in names] == [0] * len(names)
        assert metric("pulsegate_dead_peers_total") == 0
        assert metric("pulsegate_sessions_opened_total", mode="v1") == len(names)
        assert metric("pulsegate_timer_lag_seconds_sum") >= SLEEP_S - 1, "the sleep shows as timer lag"
        if profile == "balanced" and SLEEP_S <= 5:
            history.check_nobody_detached()
        else:
            assert all(history.resumes(name) for name in names)
