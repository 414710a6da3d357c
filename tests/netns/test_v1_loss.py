"""Clients of pulsegate.v1 on lines that lose packets at random (C5), on either leg; and the control run, without any fault."""

import pytest

from kit.history import APP, CLIENT
from kit.wait import eventually
from world import SLACK_S

CLIENTS = 4
PACE_S = 0.04
# In each direction of each client: about four seconds on a clean line.
MESSAGES = 100
# So many packets are sent again at least where each message has a chance of one in ten to be lost.
BAD_LINE = CLIENTS * MESSAGES // 20
# Long enough for the worst repeats of TCP on a line that loses a third.
TALK_MAX_S = 40.0
# When the line is good again: what was lost is repeated at the latest after TCP's longest wait in so short a time, and a
# client that was dialing waits for its next SYN (1, 3, 7 s).
SETTLED_MAX_S = 8.0 + SLACK_S


def talk(world):
    names = [*world.far_numbered(CLIENTS), world.near_numbered()]
    world.numbered.talk(names, PACE_S)
    return names


def test_the_control_run_detaches_nobody(world, gateway):
    """No fault at all: nobody is suspected, nothing is sent twice."""
    numbered = world.start_numbered(gateway)
    names = talk(world)
    numbered.until_both(names, MESSAGES, 20)
    numbered.check(world.gateway, names, 1 + SLACK_S)
    numbered.history.check_nobody_detached()
    for series in ("dead_peers", "suspects", "verdicts_withheld", "retransmits", "resumes"):
        assert world.gateway.metric(f"pulsegate_{series}_total") == 0, series
    assert world.gateway.metric("pulsegate_sessions_opened_total", mode="v1") == len(names)
    assert world.packets_sent_again() < BAD_LINE
    for name in names:
        numbered.tell(name, "close")
    for name in names:
        for side in (CLIENT, APP):
            code, _ = eventually(lambda: numbered.history.end(name, side), f"the {side} of {name} is told of the end")
            assert code == 1000
    eventually(lambda: not world.listed(), "no session is left", 1 + SLACK_S)


@pytest.mark.parametrize("leg", ["client", "app"])
def test_a_tenth_lost_detaches_nobody_and_loses_nothing(world, gateway, leg):
    """C5, 10 % each way. Profile balanced, as for plain clients: TCP repeats a packet that was lost four times running
    after 3 s, which is more than profile fast allows a peer."""
    numbered = world.start_numbered(gateway, "--profile", "balanced")
    names = talk(world)
    world.path_of(leg).lose(10)
    numbered.until_both(names, MESSAGES, TALK_MAX_S)
    # What was lost is still being repeated: the line must carry that too.
    numbered.check(world.gateway, names, SETTLED_MAX_S)
    numbered.history.check_nobody_detached()
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
    assert world.packets_sent_again() >= BAD_LINE


def test_a_third_lost_on_the_client_s_leg_loses_no_message(world, gateway):
    """C5, 30 % each way: connections may be lost, no message may."""
    numbered = world.start_numbered(gateway)
    names = talk(world)
    *far, near = names
    world.client_path.lose(30)
    numbered.until_both(names, MESSAGES, TALK_MAX_S)
    world.client_path.heal()
    numbered.check(world.gateway, names, SETTLED_MAX_S)
    history = numbered.history
    print("resumed:", [history.resumes(name) for name in names])
    assert [history.resets(name) for name in names] == [0] * len(names), "no session was lost"
    assert history.resumes(near) == 0, "the near one never noticed"
    assert world.gateway.metric("pulsegate_dead_peers_total", leg="app") == 0
    assert world.gateway.metric("pulsegate_sessions_opened_total", mode="v1") == len(names)
    assert world.packets_sent_again() >= BAD_LINE


def test_a_third_lost_on_the_app_s_leg_breaks_no_promise(world, gateway):
    """C5, 30 % each way: an app that is given up takes its session with it, and the client knows what may be lost."""
    numbered = world.start_numbered(gateway)
    names = talk(world)
    world.app_path.lose(30)
    numbered.until_both(names, MESSAGES, TALK_MAX_S)
    world.app_path.heal()
    numbered.check(world.gateway, names, SETTLED_MAX_S)
    resets = sum(numbered.history.resets(name) for name in names)
    assert world.gateway.metric("pulsegate_dead_peers_total", leg="app") == resets
    assert world.gateway.metric("pulsegate_dead_peers_total", leg="client") == 0
    assert world.packets_sent_again() >= BAD_LINE
