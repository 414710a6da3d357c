"""A middlebox forgets the idle flows of pulsegate.v1 clients (C33)."""

import time

from kit.wait import eventually
from world import SLACK_S

CLIENTS = 3


def test_pings_keep_a_flow_that_a_middlebox_would_forget(world, gateway):
    """It forgets after 2 s; we ping each second. Nobody says a word for three times as long."""
    numbered = world.start_numbered(gateway)
    world.client_path.forget(2)
    names = world.far_numbered(CLIENTS)
    # The wait is what is tested.
    time.sleep(6)
    numbered.tell_both(names, "say", count=1, padding=0)
    numbered.until_both(names, 1, 2)
    numbered.check(world.gateway, names, 1 + SLACK_S)
    numbered.history.check_nobody_detached()
    assert world.gateway.metric("pulsegate_suspects_total") == 0


def test_both_ends_notice_that_a_middlebox_forgot_them_and_the_session_goes_on(world, gateway):
    """It forgets after 1 s, and nothing is heard for 2 s. The client gives up after half as long again, one second at least,
    and a new flow brings it back; what was said on the lost one arrives once."""
    forgets_after, silence_max = 1, 2 + 1
    settings = {"liveness.ping_interval": "2s", "liveness.verdict_after": "2s"}
    numbered = world.start_numbered(gateway, settings=settings)
    world.client_path.forget(forgets_after)
    names = world.far_numbered(CLIENTS)
    begin = time.monotonic()
    # The first ping comes at a moment of its own: one that comes before the flow is forgotten is the last one heard.
    back_max = forgets_after + silence_max + SLACK_S
    eventually(lambda: all(numbered.history.resumes(name) for name in names), "all are back", back_max)
    took = time.monotonic() - begin
    print(f"back after {took:.1f} s")
    assert 2 <= took <= back_max
    detached = world.gateway.events("session.detached")
    # A resume over a line that only one side knows to be lost closes that line: nobody else had to notice.
    assert {event["reason"] for event in detached} <= {"unreachable"}
    # Whoever talks is not forgotten.
    numbered.talk(names, 0.1)
    numbered.until_both(names, 10, 10)
    world.client_path.heal()
    numbered.check(world.gateway, names, silence_max + SLACK_S)
    assert [numbered.history.resets(name) for name in names] == [0] * CLIENTS
    assert world.gateway.metric("pulsegate_sessions_opened_total", mode="v1") == CLIENTS
