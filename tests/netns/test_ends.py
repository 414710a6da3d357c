"""Connections that end badly: resets, and closing handshakes whose last words are lost (C8)."""

import time

import pytest

from kit.history import APP, CLIENT
from kit.wait import eventually
from world import SLACK_S, Footprint, back_to

CLOSE_TIMEOUT_S = 1.0
SESSIONS = 20
# Nobody is declared dead in these tests: the end of a closing handshake has its own limit.
CALM = {
    "liveness.ping_interval": "30s", "liveness.verdict_after": "30s", "limits.close_timeout": f"{CLOSE_TIMEOUT_S:g}s",
}


def other(side):
    return APP if side == CLIENT else CLIENT


def begin(world, gateway, **settings):
    """Twenty sessions have come and gone, then the measure is taken, then come the twenty that the test is about."""
    peers = world.start_peers(gateway, settings=CALM | settings)
    for name in world.far_peers(SESSIONS, "warm-up"):
        peers.abort(name)
        peers.told(name, APP, SLACK_S)
    eventually(lambda: not world.listed(), "all have gone")
    start = Footprint(world.gateway)
    return peers, start, world.far_peers(SESSIONS)


@pytest.mark.parametrize("side", [CLIENT, APP])
def test_a_reset_ends_the_session_at_once(world, gateway, side):
    """C8 by a peer's RST: the other side is told within a second, no descriptor stays."""
    peers, start, names = begin(world, gateway)
    peers.talk(names, 0.1)
    eventually(lambda: peers.history.count("to_client") > SESSIONS, "the talk is on")
    reset_at = time.monotonic()
    for name in names:
        peers.abort(name, side)
    for name in names:
        code, at = peers.told(name, other(side), SLACK_S)
        assert code == (1006 if side == CLIENT else 1012), "a cut client is a cut toward the app, as without us"
        assert at - reset_at <= SLACK_S
        tombstone = world.ended_as(name)
        assert (tombstone["leg"], tombstone["reason"]) == (side, "reset")
    back_to(start, world.gateway, SLACK_S)
    world.check_history()


@pytest.mark.parametrize("leg", [CLIENT, APP])
def test_a_firewall_that_resets(world, gateway, leg):
    """C8 by nftables: the next packet of either end is answered with RST. Each end learns of it when it speaks."""
    peers, start, names = begin(world, gateway)
    world.path_of(leg).reset()
    reset_at = time.monotonic()
    peers.both_say(names)
    for name in names:
        for side in (CLIENT, APP):
            assert peers.told(name, side, 2 * SLACK_S)[1] - reset_at <= 2 * SLACK_S
        assert world.ended_as(name)["reason"] == "reset"
    back_to(start, world.gateway, SLACK_S)
    world.path_of(leg).heal()
    world.check_history()


@pytest.mark.parametrize("leg", [CLIENT, APP])
def test_a_close_that_is_never_answered(world, gateway, leg):
    """C8, slow close: one side says Close, the other one's answer and FIN never come. The handshake is bounded."""
    peers, start, names = begin(world, gateway)
    world.path_of(leg).drop()
    began_at = time.monotonic()
    for name in names:
        peers.begin_close(name, other(leg))
    for name in names:
        assert peers.told(name, other(leg), CLOSE_TIMEOUT_S + SLACK_S)[1] - began_at <= CLOSE_TIMEOUT_S + SLACK_S
        assert world.ended_as(name)["reason"] == "closed"
    back_to(start, world.gateway, CLOSE_TIMEOUT_S + SLACK_S, sockets=False)
    world.path_of(leg).heal()
    for name in names:
        peers.abort(name, leg)
    world.check_history()


@pytest.mark.parametrize("leg", [CLIENT, APP])
def test_a_fin_that_is_lost(world, gateway, leg):
    """C8: a Close arrives, and then the line is dead: neither our answer nor the FINs get through."""
    peers, start, names = begin(world, gateway)
    world.path_of(leg).drop(incoming=False)
    began_at = time.monotonic()
    for name in names:
        peers.begin_close(name, leg)
    for name in names:
        code, at = peers.told(name, other(leg), CLOSE_TIMEOUT_S + SLACK_S)
        assert code == 4000, "the words of the side that closed"
        assert at - began_at <= CLOSE_TIMEOUT_S + SLACK_S
        assert world.ended_as(name)["reason"] == "closed"
    back_to(start, world.gateway, CLOSE_TIMEOUT_S + SLACK_S, sockets=False)
    world.path_of(leg).heal()
    world.check_history()
