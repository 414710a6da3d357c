"""The network goes dead for real: packets vanish between namespaces, and the bound must hold (C1, C2)."""

import time

import pytest

from kit.history import APP, CLIENT
from kit.wait import eventually
from world import (
    BOUND_S, CLIENTS, SAME_BOUND_FOR_APPS, SLACK_S, VERDICT_AFTER_S, Footprint, assert_dead_client, back_to,
)

FLOODED_BYTES = 1 << 20


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_quiet_client_in_a_black_hole(world, gateway, chat, kind):
    """C1: packets vanish both ways, nobody speaks."""
    world.start(gateway, chat)
    client, session = world.far_client(kind)
    near, near_session = world.near_client()
    world.client_path.drop()
    close, took = world.app_close(BOUND_S + SLACK_S)
    assert close["code"] == 4408
    assert "unreachable" in close["reason"]
    assert took <= BOUND_S + SLACK_S
    client.say("state")
    assert CLIENTS[kind][1].items() <= client.event("state").items(), "the client still believes: OPEN"
    assert_dead_client(world, session, "unreachable")
    world.still_talks(near, "nothing happened here")
    assert [one["id"] for one in world.gateway.sessions()] == [near_session]


def test_a_client_that_is_being_written_to(world, gateway, chat):
    """C1: data in flight when the path dies: our own writes must not count as life."""
    world.start(gateway, chat)
    client, session = world.far_client()
    world.client_path.drop(incoming=False)
    # The request still gets through; its echo is the first byte that is lost.
    client.say("this echo never arrives")
    eventually(
        lambda: world.gateway.ask(f"/v1/sessions/{session}")[1]["legs"]["app"]["messages"] == 2, "the echo is on its way")
    world.client_path.heal()
    world.client_path.drop()
    close, _ = world.app_close(BOUND_S + SLACK_S)
    assert close["code"] == 4408
    assert_dead_client(world, session, "unreachable")


def test_a_client_whose_cable_is_pulled(world, gateway, chat):
    """C1 by a device that goes down: the kernel soon knows of no way, the bound is the same."""
    world.start(gateway, chat)
    _, session = world.far_client()
    near, _ = world.near_client()
    world.client_path.cut_cable()
    close, _ = world.app_close(BOUND_S + SLACK_S)
    assert close["code"] == 4408
    assert_dead_client(world, session, "unreachable")
    world.still_talks(near, "my cable is fine")


def pushed_bytes(world):
    """What the app has pushed to each of the flooded."""
    return [one["legs"]["app"]["bytes"] for one in world.gateway.sessions() if one["path"] == "/flood"]


def test_full_queues_hide_no_death_and_are_freed(world, gateway):
    """C1 whatever is queued: the app pushes without end when the path dies, so every buffer and window is full."""
    peers = world.start_peers(gateway)
    world.near_peer()
    # What one round costs stays with the allocator; the second one must add nothing.
    for round_number in range(2):
        start = Footprint(world.gateway)
        names = world.far_peers(8, f"flooded{round_number}", path="/flood")
        eventually(lambda: min(pushed_bytes(world)) > FLOODED_BYTES, "all are flooded")
        world.client_path.drop()
        cut_at = time.monotonic()
        for name in names:
            code, at = peers.told(name, APP, BOUND_S + SLACK_S)
            assert code == 4408
            assert at - cut_at <= BOUND_S + SLACK_S
            assert world.ended_as(name)["leg"] == "client"
        assert sum(map(world.dead_clients, ("unreachable", "write_stalled"))) == len(names) * (round_number + 1)
        if round_number:
            # The socket of the dead is kept for a while, to see whether it was false.
            back_to(start, world.gateway, VERDICT_AFTER_S + SLACK_S)
        world.client_path.heal()
        for name in names:
            # Our reset was lost in the dark: who only listens learns of it when it next speaks.
            peers.say(name)
            peers.told(name, CLIENT, BOUND_S + SLACK_S)
    world.check_history()


def test_a_short_outage_kills_nobody(world, gateway, chat):
    """C1, too short to count: suspected, and spared."""
    world.start(gateway, chat)
    client, session = world.far_client()
    world.client_path.drop()
    eventually(
        lambda: world.gateway.ask(f"/v1/sessions/{session}")[1].get("state") == "suspect", "the session is suspect", BOUND_S)
    world.client_path.heal()
    eventually(lambda: world.gateway.ask(f"/v1/sessions/{session}")[1].get("state") == "live", "the session is live again")
    world.still_talks(client, "back again")
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
    assert world.gateway.metric("pulsegate_suspects_recovered_total", leg="client") >= 1


def test_many_clients_in_the_same_black_hole(world, gateway, chat):
    """C1: half of all peers go at once: that is doubtful, not endless; the near half stays."""
    world.start(gateway, chat)
    far = [world.far_client()[1] for _ in range(4)]
    near = [world.near_client() for _ in range(4)]
    world.client_path.drop()
    start = time.monotonic()
    eventually(
        lambda: all(world.gateway.ask(f"/v1/sessions/{session}")[0] == 410 for session in far),
        "all far sessions have ended", 2 * BOUND_S + SLACK_S)
    assert time.monotonic() - start >= VERDICT_AFTER_S
    assert sorted(one["id"] for one in world.gateway.sessions()) == sorted(session for _, session in near)
    for client, _ in near:
        world.still_talks(client, "not me")


def test_an_app_in_a_black_hole(world, gateway, chat):
    """C2: packets vanish both ways between gateway and app, nobody speaks."""
    world.start(gateway, chat)
    client, session = world.near_client()
    start = time.monotonic()
    world.app_path.drop()
    close = client.event("close", BOUND_S + SLACK_S)
    assert close["seen_at"] - start <= BOUND_S + SLACK_S
    assert close["code"] == 1012
    tombstone = world.tombstone(session)
    assert (tombstone["reason"], tombstone["leg"]) == ("unreachable", "app")
    assert world.gateway.metric("pulsegate_dead_peers_total", leg="app", cause="unreachable") == 1


def test_an_app_whose_cable_is_pulled_while_all_talk(world, gateway):
    """C2 with data in flight both ways, and what newcomers get meanwhile; the close code is as configured."""
    settings = SAME_BOUND_FOR_APPS | {"close.dead_app_code": "1013", "upstream.connect_timeout": "1s"}
    peers = world.start_peers(gateway, settings=settings)
    names = world.far_peers(6)
    peers.talk(names, 0.1)
    eventually(lambda: peers.history.count("to_client") > 50, "the talk is on")
    world.app_path.cut_cable()
    cut_at = time.monotonic()
    with pytest.raises(Exception, match="50[24]"):
        world.near_peer("newcomer")
    for name in names:
        code, at = peers.told(name, CLIENT, BOUND_S + SLACK_S)
        assert code == 1013
        assert at - cut_at <= BOUND_S + SLACK_S
        assert world.ended_as(name)["leg"] == "app"
    world.app_path.plug_in()
    for name in names:
        peers.told(name, APP, BOUND_S + SLACK_S)
    world.near_peer("after")
    world.check_history()
