"""Many at once: a herd that comes back together (C22), churn and idle floods (C23)."""

import asyncio
import os
import random
import socket
import threading
import time
from pathlib import Path as File

import pytest

from kit.history import APP, CLIENT
from kit.raw import upgrade
from kit.wait import eventually
from world import SLACK_S, Footprint, back_to

HERD = 150
ALL_BACK_S = 5.0
JITTER_S = 1.0
IDLE = 500
RESETS_PER_S = 300
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


class Flood:
    """Connections that are reset as soon as they reach one of three stages, in a thread."""

    def __init__(self, place, address):
        self.resets = 0
        self._stages = (b"", b"GET / HTTP/1.1\r\nHost:", upgrade("flood", "/?name=flood"))
        self._place, self._address = place, address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: place.inside(self._work), daemon=True)

    def _work(self):
        begin = time.monotonic()
        while not self._stop.is_set():
            one = socket.create_connection(self._address, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.sendall(self._stages[self.resets % len(self._stages)])
            if self.resets % 2:
                # Every other one waits for whatever comes, for a moment.
                one.settimeout(0.001)
                try:
                    one.recv(1)
                except OSError:
                    pass
            one.close()
            self.resets += 1
            # The pace is what is tested.
            time.sleep(max(0.0, begin + self.resets / RESETS_PER_S - time.monotonic()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def test_churn_and_an_idle_flood_harm_no_good_client(world, gateway):
    """C23: 500 connections that never say a word, and 300 resets a second in all stages of the handshake."""
    peers = world.start_peers(gateway, settings={"limits.header_timeout": "2s"})
    near = world.near_peer()
    peers.talk([near], 0.02)
    address = (world.client_path.here_address, int(world.far_url.rpartition(":")[2]))

    def idle():
        return [socket.create_connection(address, 5) for _ in range(IDLE)]

    start = Footprint(world.gateway)
    idlers = world.far.inside(idle)
    try:
        with Flood(world.far, address) as flood:
            begin = time.monotonic()
            for number in range(int(CHURN_S)):
                connected_at = time.monotonic()
                world.near_peer(f"newcomer-{number}")
                assert time.monotonic() - connected_at <= GOOD_ECHO_MAX_S, "a newcomer is let in"
                eventually(lambda: time.monotonic() - begin > number + 1, "a second has passed")
        print(f"{flood.resets} resets in {CHURN_S} s, worst echo {peers.worst_echo_s(near):.3f} s")
        assert flood.resets >= RESETS_PER_S * CHURN_S / 2
    finally:
        for one in idlers:
            one.close()
    for number in range(int(CHURN_S)):
        peers.abort(f"newcomer-{number}")
        peers.told(f"newcomer-{number}", APP, SLACK_S)
    assert peers.worst_echo_s(near) <= GOOD_ECHO_MAX_S
    eventually(lambda: len(world.listed()) == 1, "only the good one is left")
    assert peers.history.end(near, CLIENT) is None
    # Buffers of 500 connections at once stay with the allocator; descriptors and sockets must not.
    back_to(start, world.gateway, SLACK_S, memory_factor=None)
