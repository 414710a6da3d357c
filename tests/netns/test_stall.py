"""The network stalls and comes back: whoever is alive must be heard in time."""

import platform
import time

import pytest

from kit.wait import eventually

STALL_S = 7.3
VERDICT_AFTER_S = 9
# The longest gap between two retransmissions of a session is a quarter of `verdict_after`. By itself the kernel
# would try 6.2 s after the first loss and then at 12.6 s, when the verdict has long fallen.
GAP_MAX_S = VERDICT_AFTER_S / 4
SLACK_S = 0.5

bounded_gaps = pytest.mark.skipif(
    tuple(map(int, platform.release().split(".")[:2])) < (6, 15), reason="TCP_RTO_MAX_MS came with Linux 6.15"
)


@bounded_gaps
def test_a_push_into_a_long_stall_arrives_soon_after_it(world, gateway, chat):
    world.start(gateway, chat, settings={"liveness.ping_interval": "20s", "liveness.verdict_after": f"{VERDICT_AFTER_S}s"})
    client, session = world.far_client()
    world.client_path.drop(incoming=False)
    start = time.monotonic()
    # The request gets through; its echo is the push that is lost, again and again.
    client.say("held up")
    time.sleep(STALL_S)
    world.client_path.heal()
    echo = client.report(lambda report: report.get("text") == "held up", "the echo", GAP_MAX_S + SLACK_S)
    assert echo["seen_at"] - start >= STALL_S, "there was a stall"
    eventually(lambda: world.gateway.ask(f"/v1/sessions/{session}")[1].get("state") == "live", "the session is live again")
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
