"""Packets are lost at random (C5), on either leg; and the control run, without any fault."""

import pytest

from kit.wait import eventually

PACE_S = 0.1
# So many messages take about ten seconds on a clean line, and longer on a bad one.
MESSAGES = 500
# Long enough for the worst repeats of TCP on a line that loses a third.
TALK_MAX_S = 40.0
CLIENTS = 6


def talk(world, count):
    """Six far clients talk until so many messages went through both ways, or nobody is left."""
    peers = world.peers
    names = world.far_peers(CLIENTS)
    near = world.near_peer()
    return names, near, lambda: (
        peers.history.count("to_client") >= count
        or all(peers.history.end(name, "client") for name in names)
    )


def test_the_control_run_evicts_nobody(world, gateway):
    """No fault at all: nobody is suspected, nothing is lost."""
    peers = world.start_peers(gateway)
    names, near, done = talk(world, MESSAGES)
    peers.talk([*names, near], PACE_S)
    eventually(done, "the talk is over", TALK_MAX_S)
    world.check_history()
    peers.history.check_nobody_ended()
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
    assert world.gateway.metric("pulsegate_verdicts_withheld_total") == 0
    assert world.packets_sent_again() < MESSAGES / 20


@pytest.mark.parametrize("leg", ["client", "app"])
def test_a_tenth_lost_evicts_nobody_and_loses_nothing(world, gateway, leg):
    """C5, 10 % each way. Profile balanced: TCP repeats a packet that was lost four times running after 3 s, which is
    more than profile fast allows a peer."""
    peers = world.start_peers(gateway, "--profile", "balanced")
    names, near, done = talk(world, MESSAGES)
    world.path_of(leg).lose(10)
    peers.talk([*names, near], PACE_S)
    eventually(done, "the talk is over", TALK_MAX_S)
    # What was lost is still being repeated: the line must carry that too.
    world.check_history()
    peers.history.check_nobody_ended()
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
    assert world.packets_sent_again() > MESSAGES / 20, "the line was bad"


def await_the_reset_ones(world, names):
    """The reset of a peer that was given up goes out once and may be lost as anything else on that line. The next
    packet of the peer brings another, so a silent one never learns of it, and one that repeats itself does so with
    TCP's back-off."""
    listed = world.listed()
    gone = [name for name in names if world.peers.history.session(name) not in listed]
    world.peers.both_say(gone)
    for name in gone:
        for side in ("client", "app"):
            world.peers.told(name, side, TALK_MAX_S)


@pytest.mark.parametrize("leg", ["client", "app"])
def test_a_third_lost_may_evict_and_breaks_no_promise(world, gateway, leg):
    """C5, 30 % each way: who is evicted is told so, on both sides; the others lose nothing."""
    peers = world.start_peers(gateway)
    names, near, done = talk(world, MESSAGES)
    world.path_of(leg).lose(30)
    peers.talk([*names, near], PACE_S)
    eventually(done, "the talk is over", TALK_MAX_S)
    peers.hush()
    world.path_of(leg).heal()
    # Everybody's app leg is on the bad line, if it is that one.
    exposed = names if leg == "client" else [*names, near]
    await_the_reset_ones(world, exposed)
    world.check_history()
    evicted = [name for name in exposed if peers.history.end(name, "client")]
    for name in evicted:
        # A peer that we gave up hears so, or finds its connection reset.
        codes = {side: peers.history.end(name, side)[0] for side in ("client", "app")}
        tombstone = world.ended_as(name)
        assert tombstone["reason"] in ("unreachable", "frozen", "write_stalled"), tombstone
        assert tombstone["leg"] == leg
        if leg == "client":
            assert codes["app"] == 4408, (codes, tombstone)
        else:
            assert codes["client"] == (1012 if tombstone["reason"] == "unreachable" else 1013), (codes, tombstone)
    assert world.gateway.metric("pulsegate_dead_peers_total") == len(evicted)
    print(f"{len(evicted)} of {len(exposed)} evicted, {world.packets_sent_again()} packets sent again")
    assert world.packets_sent_again() > MESSAGES / 20, "the line was bad"
    if leg == "client":
        assert peers.history.end(near, "client") is None
