"""A verdict falls due while the gateway itself is stopped: on waking, the peer gets the time back that we lost (C13)."""

import time

import pytest

from kit.machine import stop, wake
from kit.wait import eventually
from world import BOUND_S, SLACK_S, VERDICT_AFTER_S

# Later than the verdict was due by more than the longest chance there is, which is one `verdict_after`.
ASLEEP_S = 2 * VERDICT_AFTER_S


def cut_line(world, _):
    world.client_path.drop()


def heal_line(world, _):
    world.client_path.heal()


def stop_client(_, client):
    stop(client)


def wake_client(_, client):
    wake(client)


@pytest.mark.parametrize(
    ("harm", "help_up"), [(cut_line, heal_line), (stop_client, wake_client)], ids=["its line is cut", "it is stopped"])
def test_an_answer_that_comes_only_after_our_waking_counts(world, gateway, chat, harm, help_up):
    """Nothing of the suspect waits in the socket when the gateway wakes: only the doubt about our own timer saves it."""
    world.start(gateway, chat)
    client, session = world.far_client("python websockets")
    near, _ = world.near_client()

    def state():
        return world.gateway.ask(f"/v1/sessions/{session}")[1].get("state")

    def metric(name, **labels):
        return world.gateway.metric(f"pulsegate_{name}_total", leg="client", **labels)

    harm(world, client)
    eventually(lambda: state() == "suspect", "the client is suspect", BOUND_S)
    stop(world.gateway.process)
    time.sleep(ASLEEP_S)
    wake(world.gateway.process)
    eventually(
        lambda: metric("verdicts_withheld", doubt="late_timer") == 1, "the verdict was due and is put off", SLACK_S)
    help_up(world, client)
    eventually(
        lambda: metric("verdicts_withheld_resolved", doubt="late_timer", outcome="spared") == 1,
        "it is heard in the time that it got back", VERDICT_AFTER_S)
    eventually(lambda: state() == "live", "it counts as living again")
    world.still_talks(client, "you slept, not I")
    world.still_talks(near, "nor I")
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
    assert world.gateway.metric("pulsegate_false_evictions_total") == 0
