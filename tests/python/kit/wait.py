"""Bounded waits on events: nothing in these tests sleeps to let something happen."""

import asyncio
import time

# Every wait that is not itself under test gives up after this.
WAIT_MAX_S = 10.0
_POLL_S = 0.02


def eventually(probe, what, limit=WAIT_MAX_S):
    """Asks `probe` again and again until it answers with something true."""
    end = time.monotonic() + limit
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(_POLL_S)


def run(coroutine, limit=60.0):
    """Runs a whole asynchronous test with one bound."""

    async def bounded():
        return await asyncio.wait_for(coroutine, limit)

    return asyncio.run(bounded())
