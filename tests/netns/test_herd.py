"""Many at once: a herd that comes back together (C22), churn and idle floods (C23)."""

import asyncio
import os
import random
import socket
import sys
import time
from pathlib import Path as File

import pytest

from kit.history import APP, CLIENT
from kit.raw import upgrade
from kit.wait import eventually
from world import SLACK_S, TESTS, Footprint, back_to

HERD = 150
ALL_BACK_S = 5.0
JITTER_S = 1.0
IDLE = 500
RESETS_PER_S = 500
CHURN_S = 4.0
GOOD_ECHO_MAX_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(gateway):
    """What the gateway has used of the processors so far."""
    fields = File(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS_PER_S


@pytest.mark.parametrize("jitter_s", [0.0, JITTER_S], ids=["all at once", "with jitter"])
def test_a_herd_comes_back(world, gateway, jitter_s):
    """C22: 150 clients are cut in the same moment and come back; all in 5 s, nobody else notices."""
    peers = world.start_peers(gateway)
    near = world.near_peer()
    old = world.far_peers(HERD, "old")
    peers.talk([near], 0.02)
    world.client_path.reset()
    peers.both_say(old)
    for name in old:
        for side in (CLIENT, APP):
            peers.told(name, side, 2 * SLACK_S)
    assert len(world.listed()) == 1
    world.client_path.heal()
    cpu, begin = cpu_seconds(world.gateway), time.monotonic()

    async def come_back(name):
        await asyncio.sleep(random.uniform(0, jitter_s))
        await peers.connect(name, world.far, world.far_url, open_timeout=ALL_BACK_S)

    async def all_back():
        await asyncio.gather(*(come_back(f"new-{number}") for number in range(HERD)))

    peers.run(all_back(), ALL_BACK_S)
    took = time.monotonic() - begin
    print(f"{HERD} back in {took:.2f} s, {cpu_seconds(world.gateway) - cpu:.2f} s of processor")
    assert took <= ALL_BACK_S
    assert cpu_seconds(world.gateway) - cpu <= took
    peers.talk([f"new-{number}" for number in range(HERD)], 0.5)
    eventually(lambda: len(world.listed()) == HERD + 1, "all are listed")
    for name in old:
        tombstone = world.ended_as(name)
        assert (tombstone["leg"], tombstone["reason"]) == ("client", "reset")
    world.check_history()
    assert peers.history.open_names(CLIENT) == sorted([near, *(f"new-{number}" for number in range(HERD))])
    assert peers.worst_echo_s(near) <= GOOD_ECHO_MAX_S
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0


class Churn:
    """Connections that are reset at every stage of the handshake; a process of its own, so that the pace is kept."""

    def __init__(self, world, process, address):
        request = upgrade(address[0], "/?name=churn").decode()
        command = [sys.executable, str(TESTS / "netns" / "churn.py"), *map(str, address), str(RESETS_PER_S), request]
        self._process = process("churn", world.far.command(command))

    def end(self):
        """How many were reset, and in how many seconds."""
        self._process.say("enough")
        over = self._process.event("over")
        return over["resets"], over["seconds"]


def test_churn_and_an_idle_flood_harm_no_good_client(world, gateway, process):
    """C23: 500 connections that never say a word, and 500 resets a second in all stages of the handshake."""
    peers = world.start_peers(gateway, settings={"limits.header_timeout": "2s"})
    metric = world.gateway.metric
    near = world.near_peer()
    peers.talk([near], 0.02)
    address = (world.client_path.here_address, int(world.far_url.rpartition(":")[2]))

    def idle():
        return [socket.create_connection(address, 5) for _ in range(IDLE)]

    start = Footprint(world.gateway)
    idlers = world.far.inside(idle)
    try:
        churn = Churn(world, process, address)
        begin = time.monotonic()
        for number in range(int(CHURN_S)):
            connected_at = time.monotonic()
            world.near_peer(f"newcomer-{number}")
            assert time.monotonic() - connected_at <= GOOD_ECHO_MAX_S, "a newcomer is let in"
            eventually(lambda: time.monotonic() - begin > number + 1, "a second has passed")
        resets, seconds = churn.end()
    finally:
        for one in idlers:
            one.close()
    for number in range(int(CHURN_S)):
        peers.abort(f"newcomer-{number}")
        peers.told(f"newcomer-{number}", APP, SLACK_S)
    eventually(lambda: len(world.listed()) == 1, "only the good one is left")
    opened = metric("pulsegate_sessions_opened_total")
    print(f"{resets} resets in {seconds:.1f} s, {opened:.0f} sessions, worst echo {peers.worst_echo_s(near):.3f} s")
    assert peers.worst_echo_s(near) <= GOOD_ECHO_MAX_S
    assert peers.history.end(near, CLIENT) is None
    # There was such a flood, it reached the gateway (some may be gone before accept), and part of it got a session.
    assert resets >= 0.9 * RESETS_PER_S * seconds
    assert metric("pulsegate_connections_accepted_total") >= 0.9 * (resets + IDLE)
    assert opened > resets / 10
    # Nothing of it is left, on either side of the gateway.
    assert metric("pulsegate_sessions_ended_total") == opened - 1
    assert metric("pulsegate_sessions") == 1
    eventually(lambda: metric("pulsegate_connections") == 1, "only the good one's connection is left")
    eventually(lambda: peers.app_connections() == 1, "the app holds only the good one's", SLACK_S)
    # Buffers of 500 connections at once stay with the allocator; descriptors and sockets must not.
    back_to(start, world.gateway, SLACK_S, memory_factor=None)
