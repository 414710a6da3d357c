"""Most clients vanish at once: that may be our own network, so each verdict waits once, for one `verdict_after` (C1)."""

import platform
import time

import pytest

from kit.history import APP, CLIENT
from kit.wait import eventually
from world import BOUND_S, SLACK_S, VERDICT_AFTER_S

# At least ten, and more than half of all: what a mass is (`crates/heartbeat/src/doubt.rs`).
FAR, NEAR = 12, 4

bounded_gaps = pytest.mark.skipif(
    tuple(map(int, platform.release().split(".")[:2])) < (6, 15),
    reason="before Linux 6.15 a kernel's own gap after such an outage can outlast the chance that is given",
)


def withheld(world):
    """How many verdicts were put off for the mass of missing clients."""
    return world.gateway.metric("pulsegate_verdicts_withheld_total", leg="client", doubt="mass_suspicion")


def resolved(world, outcome):
    """What became of the withheld; on a busy machine a late timer may have had the last word."""
    return world.gateway.metric("pulsegate_verdicts_withheld_resolved_total", leg="client", outcome=outcome)


def both_groups(world, gateway):
    peers = world.start_peers(gateway)
    near = [world.near_peer(f"near-{number}") for number in range(NEAR)]
    return peers, near, world.far_peers(FAR)


def test_a_mass_that_is_really_gone_is_told_one_verdict_later(world, gateway):
    peers, near, far = both_groups(world, gateway)
    world.client_path.drop()
    cut_at = time.monotonic()
    times = []
    for name in far:
        code, at = peers.told(name, APP, BOUND_S + VERDICT_AFTER_S + SLACK_S)
        assert code == 4408
        times.append(at - cut_at)
    print(f"told after {min(times):.2f} to {max(times):.2f} s")
    # Without the doubt the last of them would be gone by the bound.
    assert BOUND_S < min(times) and max(times) <= BOUND_S + VERDICT_AFTER_S + SLACK_S
    assert withheld(world) == FAR, "each verdict waits, and once"
    for name in far:
        tombstone = world.ended_as(name)
        assert (tombstone["leg"], tombstone["reason"]) == ("client", "unreachable")
        assert "withheld" in tombstone["verdict"]
    assert (resolved(world, "dead"), resolved(world, "spared")) == (FAR, 0)
    assert world.dead_clients("unreachable") == FAR
    assert sorted(world.listed()) == sorted(map(peers.history.session, near)), "nobody else"


@bounded_gaps
def test_a_mass_that_comes_back_is_spared(world, gateway):
    """The path heals when the verdict on each was due and has been put off: without the doubt all would be dead."""
    peers, near, far = both_groups(world, gateway)
    world.client_path.drop()
    cut_at = time.monotonic()
    eventually(lambda: withheld(world) == FAR, "every verdict was due and is put off", BOUND_S + SLACK_S)
    world.client_path.heal()
    print(f"healed after {time.monotonic() - cut_at:.2f} s")
    eventually(lambda: resolved(world, "spared") == FAR, "all are heard again", VERDICT_AFTER_S + SLACK_S)
    peers.both_say([*near, *far])
    world.check_history()
    peers.history.check_nobody_ended()
    assert resolved(world, "dead") == 0
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
    assert withheld(world) == FAR, "each verdict waited once"
