"""A middlebox on the way forgets flows that are idle (C33), on either leg."""

import time

import pytest

from kit.history import APP, CLIENT
from world import SLACK_S


@pytest.mark.parametrize("leg", [CLIENT, APP])
def test_pings_keep_a_flow_that_a_middlebox_would_forget(world, gateway, leg):
    """C33: it forgets after 2 s; we ping each second. Nobody says a word for four times as long."""
    peers = world.start_peers(gateway)
    world.path_of(leg).forget(2)
    [name] = world.far_peers(1)
    # The wait is what is tested.
    time.sleep(8)
    peers.history.check_nobody_ended()
    peers.say(name)
    world.check_history()
    peers.history.check_nobody_ended()
    assert world.gateway.metric("pulsegate_suspects_total") == 0


@pytest.mark.parametrize("leg", [CLIENT, APP])
def test_both_ends_notice_that_a_middlebox_forgot_them(world, gateway, leg):
    """C33: it forgets after 1 s, and we ping each 2 s only: the gateway finds out in its bound, and so does a peer
    that pings as rarely."""
    silence_max = 2 + 2
    settings = {
        "liveness.ping_interval": "2s", "liveness.verdict_after": "2s", "liveness.app_frozen_after": "4s",
    }
    peers = world.start_peers(gateway, settings=settings, own_pings={"ping_interval": 2, "ping_timeout": 2})
    world.path_of(leg).forget(1)
    begin = time.monotonic()
    [name] = world.far_peers(1)
    forgotten, told = (CLIENT, APP) if leg == CLIENT else (APP, CLIENT)
    assert peers.told(name, told, silence_max + SLACK_S)[1] - begin <= silence_max + SLACK_S
    # The peer's library waits a second more for an answer to its Close.
    assert peers.told(name, forgotten, silence_max + 1 + SLACK_S)[1] - begin <= silence_max + 1 + SLACK_S
    tombstone = world.ended_as(name)
    assert (tombstone["leg"], tombstone["reason"]) == (leg, "unreachable")
    assert peers.history.end(name, told)[0] == (4408 if leg == CLIENT else 1012)
    world.path_of(leg).heal()
    world.check_history()
