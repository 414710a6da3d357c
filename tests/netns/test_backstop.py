"""TCP_USER_TIMEOUT, the backstop behind all verdicts: the kernel gives up by itself while nobody of us can judge."""

import time

from kit.machine import stop, wake
from kit.wait import eventually
from world import SLACK_S

PING_INTERVAL_S, VERDICT_AFTER_S, IDLE_TIMEOUT_S = 0.5, 1.5, 2.0
BOUND_S = PING_INTERVAL_S + VERDICT_AFTER_S
# The longest limit of the client leg, and then some (`Limits::backstop`).
BACKSTOP_S = IDLE_TIMEOUT_S + BOUND_S + VERDICT_AFTER_S
# Left to itself the kernel tries for 14 s at least.
ASLEEP_S = BACKSTOP_S + 2.0


def test_the_kernel_gives_up_while_the_gateway_is_stopped(world, gateway, chat):
    """Its word is final: no doubt about late timers, no further wait."""
    world.start(gateway, chat, settings={
        f"liveness.{key}": f"{seconds * 1000:.0f}ms" for key, seconds in [
            ("ping_interval", PING_INTERVAL_S), ("verdict_after", VERDICT_AFTER_S), ("idle_timeout", IDLE_TIMEOUT_S)]})
    _, session = world.far_client()
    near, _ = world.near_client()
    world.client_path.drop()
    # A probe is out, so there is something that no kernel acknowledges.
    eventually(
        lambda: world.gateway.ask(f"/v1/sessions/{session}")[1].get("state") == "suspect", "the client is suspect", BOUND_S)
    stop(world.gateway.process)
    time.sleep(ASLEEP_S)
    wake(world.gateway.process)
    verdict = eventually(lambda: world.tombstone(session), "the session has ended", SLACK_S)["verdict"]
    print(verdict)
    assert verdict.endswith("evidence: our kernel gave up")
    assert world.dead_clients("unreachable") == 1
    assert world.gateway.metric("pulsegate_verdicts_withheld_total", leg="client") == 0
    world.still_talks(near, "my line is fine")
