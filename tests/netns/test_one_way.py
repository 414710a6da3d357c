"""The line is dead in one direction only (C3, C4), on either leg."""

import contextlib
import time

import pytest
from websockets.exceptions import ConnectionClosed

from kit.history import APP, CLIENT
from kit.wait import eventually
from world import BOUND_S, SAME_BOUND_FOR_APPS, SLACK_S, assert_dead_client

# One look at the kernel a second after a write starts the clock of what is in flight.
LOOK_S = 1.0


def test_loss_from_the_client_only(world, gateway, chat):
    """C3: all that we send arrives, nothing comes back."""
    world.start(gateway, chat)
    _, session = world.far_client()
    near, _ = world.near_client()
    world.client_path.drop(outgoing=False)
    close, _ = world.app_close(BOUND_S + SLACK_S)
    assert close["code"] == 4408
    assert_dead_client(world, session, "unreachable")
    world.still_talks(near, "still here")


def test_loss_toward_the_client_only_while_it_sends(world, gateway, chat):
    """C4: what the client still gets through must not keep a connection on which nothing moves the other way."""
    world.start(gateway, chat)
    client, session = world.far_client()
    world.client_path.drop(incoming=False)
    start = time.monotonic()
    for number in range(200):
        # The client talks all the time, as one in the middle of a game does.
        client.say(f"anybody? {number}")
        if number % 10 == 0 and world.gateway.ask(f"/v1/sessions/{session}")[0] == 410:
            break
        time.sleep(0.05)
    close = world.app.event("close", 0.5)
    assert close["seen_at"] - start <= BOUND_S + SLACK_S
    assert close["code"] == 4408


def test_loss_from_the_app_only(world, gateway):
    """C3 on the app leg: all that we send arrives there, nothing comes back."""
    peers = world.start_peers(gateway, settings=SAME_BOUND_FOR_APPS)
    names = world.far_peers(3)
    world.app_path.drop(outgoing=False)
    cut_at = time.monotonic()
    for name in names:
        code, at = peers.told(name, CLIENT, BOUND_S + SLACK_S)
        assert (code, world.ended_as(name)["reason"]) == (1012, "unreachable")
        assert at - cut_at <= BOUND_S + SLACK_S
    world.app_path.heal()
    for name in names:
        peers.told(name, APP, BOUND_S + SLACK_S)
    world.check_history()


def test_loss_toward_the_app_only_while_it_pushes(world, gateway):
    """C4 on the app leg: the app goes on pushing and gets nothing, not even our acknowledgements."""
    peers = world.start_peers(gateway, settings=SAME_BOUND_FOR_APPS)
    [name] = world.far_peers(1)
    world.app_path.drop(incoming=False)
    cut_at = time.monotonic()
    end = cut_at + BOUND_S + SLACK_S
    while peers.history.end(name, CLIENT) is None and time.monotonic() < end:
        peers.say(name, APP)
        time.sleep(0.05)
    code, at = peers.told(name, CLIENT, 0.1)
    assert code == 1012
    assert at - cut_at <= BOUND_S + SLACK_S
    assert world.ended_as(name)["leg"] == "app"


@pytest.mark.parametrize("leg", ["client", "app"])
def test_big_packets_vanish_while_the_peer_goes_on_sending(world, gateway, leg):
    """C4 in its worst form, a path MTU black hole: small packets pass, so the peer is heard and its kernel acknowledges
    what it had; but the bytes behind a lost big packet never arrive."""
    peers = world.start_peers(gateway, settings=SAME_BOUND_FOR_APPS)
    [name] = world.far_peers(1)
    world.path_of(leg).lose_big_packets()
    cut_at = time.monotonic()
    this_side, other_side = (CLIENT, APP) if leg == "client" else (APP, CLIENT)
    peers.say(name, other_side, padding=10_000)
    bound = BOUND_S + LOOK_S + SLACK_S
    while peers.history.end(name, other_side) is None and time.monotonic() < cut_at + bound:
        peers.say(name, this_side)
        time.sleep(0.05)
    code, at = peers.told(name, other_side, 0.5)
    assert code == (4408 if leg == "client" else 1013)
    assert at - cut_at <= bound
    tombstone = world.ended_as(name)
    assert (tombstone["leg"], tombstone["reason"]) == (leg, "write_stalled")
    # Its socket is watched for a while. What it goes on sending is no sign of a hasty verdict: it takes no byte.
    with contextlib.suppress(ConnectionClosed):
        while time.monotonic() < at + bound:
            peers.say(name, this_side)
            time.sleep(0.05)
    peers.told(name, this_side, SLACK_S)
    assert world.gateway.metric("pulsegate_false_evictions_total") == 0
