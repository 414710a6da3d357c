"""Clients of pulsegate.v1 whose network goes dead, on either leg and in either direction (C1 to C4)."""

import time
from datetime import datetime

import pytest

from kit.history import APP, TO_APP, TO_CLIENT
from kit.peer import Peer
from kit.wait import eventually
from world import BOUND_S, SAME_BOUND_FOR_APPS, SLACK_S, VERDICT_AFTER_S, Footprint

PACE_S = 0.05
CLIENTS = 3
# A cut lasts about as long as the bound. A SYN that was lost in it is repeated 1 s, 3 s, 7 s after the first.
BACK_MAX_S = 4.0 + SLACK_S


def seconds_until(event, begin):
    """From a wall clock time until an event of the feed."""
    return datetime.fromisoformat(event["at"]).timestamp() - begin


def detached(world, names, limit):
    """Waits until all these were detached; their first such events."""
    sessions = {world.numbered.history.session(name) for name in names}

    def all_told():
        told = [event for event in world.gateway.events("session.detached") if event["session"] in sessions]
        first = {event["session"]: event for event in reversed(told)}
        return list(first.values()) if len(first) == len(sessions) else None

    return eventually(all_told, "all of them are detached", limit)


def assert_only_the_far_came_back(world, far, near):
    """All came back to the one session that they had; the near one was spared."""
    history = world.numbered.history
    assert all(history.resumes(name) >= 1 and history.resets(name) == 0 for name in far)
    assert history.resumes(near) == 0
    assert history.end(near, APP) is None
    metric = world.gateway.metric
    assert metric("pulsegate_sessions_opened_total", mode="v1") == len(far) + 1
    assert metric("pulsegate_dead_peers_total", leg="app") == 0
    assert sum(world.gateway.reasons("pulsegate_resume_failures_total").values()) == 0


DIRECTIONS = {
    "both ways": {},
    "from the client only": {"outgoing": False},
    "toward the client only": {"incoming": False},
}


@pytest.mark.parametrize("lost", DIRECTIONS.values(), ids=DIRECTIONS.keys())
def test_a_dead_line_detaches_and_the_session_goes_on(world, gateway, lost):
    """C1, C3, C4 while both ends talk: neither our writes nor what the client still gets through keep a dead line."""
    numbered = world.start_numbered(gateway)
    far, near = world.far_numbered(CLIENTS), world.near_numbered()
    numbered.talk([*far, near], PACE_S)
    numbered.until_both([*far, near], 20, 10)
    start = Footprint(world.gateway)
    world.client_path.drop(**lost)
    cut_at = time.time()
    told = detached(world, far, BOUND_S + SLACK_S)
    print(*(f"{event['reason']} after {seconds_until(event, cut_at):.2f} s" for event in told), sep=", ")
    for event in told:
        assert event["reason"] in ("unreachable", "write_stalled")
        assert seconds_until(event, cut_at) <= BOUND_S + SLACK_S
    listed = {session["id"]: session["state"] for session in world.gateway.sessions()}
    assert {listed[numbered.history.session(name)] for name in far} == {"detached"}, "kept, for the client to come back"
    if not lost:
        # No dial gets through meanwhile. The sockets of the dead are kept for a while, to see whether it was false.
        eventually(lambda: Footprint(world.gateway).descriptors <= start.descriptors - CLIENTS,
                   "their sockets are free", VERDICT_AFTER_S + SLACK_S)
    world.client_path.heal()
    numbered.check(world.gateway, [*far, near], BACK_MAX_S)
    assert_only_the_far_came_back(world, far, near)
    causes = [world.dead_clients(cause) for cause in ("unreachable", "write_stalled")]
    assert sum(causes) >= CLIENTS


def test_a_quiet_client_in_a_black_hole(world, gateway):
    """C1 while nobody speaks; what both sides say meanwhile arrives when it is back."""
    numbered = world.start_numbered(gateway)
    far, near = world.far_numbered(CLIENTS), world.near_numbered()
    world.client_path.drop()
    cut_at = time.time()
    for event in detached(world, far, BOUND_S + SLACK_S):
        assert event["reason"] == "unreachable"
        assert seconds_until(event, cut_at) <= BOUND_S + SLACK_S
    assert world.dead_clients("unreachable") == CLIENTS
    numbered.tell_both([*far, near], "say", count=50, padding=100)
    eventually(lambda: numbered.history.numbers(far[-1], TO_CLIENT)[0] == 50, "the app has said it")
    assert [numbered.history.numbers(name, TO_APP) for name in far] == [(50, 0)] * CLIENTS
    world.client_path.heal()
    numbered.check(world.gateway, [*far, near], BACK_MAX_S)
    assert_only_the_far_came_back(world, far, near)
    assert world.dead_clients("unreachable") == CLIENTS, "each was given up once"


def test_a_short_outage_detaches_nobody(world, gateway):
    """C1, too short to count: suspected, and spared. The client's own bound is shorter: it may have come back by itself."""
    numbered = world.start_numbered(gateway)
    far, near = world.far_numbered(CLIENTS), world.near_numbered()
    world.client_path.drop()
    eventually(lambda: world.gateway.metric("pulsegate_suspects_total", leg="client") == CLIENTS, "all are suspect", BOUND_S)
    world.client_path.heal()
    numbered.talk([*far, near], PACE_S)
    numbered.until_both([*far, near], 20, 10)
    numbered.check(world.gateway, [*far, near], BACK_MAX_S)
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0


def test_a_half_open_app(world, gateway):
    """C2: its clients are told 4411 with the code as configured, and begin anew when the app is back; each knows which of
    its messages may be lost."""
    settings = SAME_BOUND_FOR_APPS | {"close.dead_app_code": "1013", "upstream.connect_timeout": "1s"}
    numbered = world.start_numbered(gateway, settings=settings)
    names = world.far_numbered(CLIENTS)
    by_hand = world.middle.inside(lambda: Peer(world.gateway, "/neighbour", ["Sec-WebSocket-Protocol: pulsegate.v1"]))
    numbered.talk(names, PACE_S)
    numbered.until_both(names, 20, 10)
    world.app_path.drop()
    cut_at, cut_wall = time.monotonic(), time.time()
    eventually(lambda: by_hand.close, "the client by hand is told", BOUND_S + SLACK_S)
    assert by_hand.closed_at - cut_at <= BOUND_S + SLACK_S
    assert by_hand.close.close_code == 4411
    assert by_hand.close.payload[2:].startswith(b"1013 app unreachable"), by_hand.close
    by_hand.cut()
    for name in names:
        eventually(lambda: numbered.history.resets(name) == 1, f"{name} has lost its session", BOUND_S + SLACK_S)
    ended = world.gateway.events("session.ended")
    assert {(event["reason"], event["leg"], event["close"]["code"]) for event in ended} == {("unreachable", "app", 4411)}
    assert max(seconds_until(event, cut_wall) for event in ended) <= BOUND_S + SLACK_S
    world.app_path.heal()
    # A session that was lost costs a longer wait than a connection.
    for name in names:
        eventually(lambda: numbered.history.is_live(name), f"{name} has a session again", 10)
    numbered.all_grow(names, 10)
    numbered.check(world.gateway, names, BACK_MAX_S)
    unknown = [told for name in names for told in numbered.history.outcomes(name).values() if told != ["delivered"]]
    assert unknown and all(told == ["expired; sent: Maybe"] for told in unknown), unknown
    assert world.gateway.metric("pulsegate_dead_peers_total", leg="app", cause="unreachable") == CLIENTS + 1
    assert world.gateway.metric("pulsegate_dead_peers_total") == CLIENTS + 1
