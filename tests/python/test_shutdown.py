"""SIGTERM under load: every client is told, not all at once, and the process ends cleanly in time."""

import asyncio
import signal
import time
import urllib.error
import urllib.request

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from kit.wait import run

CLIENTS = 60
WINDOW_S = 2.0
DEADLINE_S = 6.0


async def _echo(connection):
    async for message in connection:
        await connection.send(message)


async def _load(url, opened):
    """Echoes until the connection ends; returns when that was and the code that came."""
    async with connect(url) as client:
        try:
            for number in range(1_000_000_000):
                await client.send(str(number))
                assert await client.recv() == str(number)
                if number == 0:
                    opened.release()
        except ConnectionClosed:
            return time.monotonic(), client.close_code


def test_sigterm_under_load(gateway):
    app_codes = []

    async def app(connection):
        try:
            await _echo(connection)
        finally:
            await connection.wait_closed()
            app_codes.append(connection.close_code)

    async def scenario():
        async with serve(app, "127.0.0.1", 0) as server:
            running = gateway(
                "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1],
                settings={"drain.window": f"{WINDOW_S:.0f}s", "drain.deadline": f"{DEADLINE_S:.0f}s"},
            )
            opened = asyncio.Semaphore(0)
            clients = [asyncio.create_task(_load(running.url(), opened)) for _ in range(CLIENTS)]
            for _ in clients:
                await opened.acquire()
            told = time.monotonic()
            running.stopped = True
            running.process.signal(signal.SIGTERM)
            ends = await asyncio.gather(*clients)
            status = await asyncio.to_thread(running.process.wait, DEADLINE_S + 2)
            took = time.monotonic() - told
        return running, [at - told for at, _ in ends], [code for _, code in ends], status, took

    running, times, codes, status, took = run(scenario())
    assert status == 0
    assert took < DEADLINE_S
    assert set(codes) == {1012}
    assert app_codes == [1012] * CLIENTS
    assert max(times) <= WINDOW_S + 1
    quarters = [sum(1 for at in times if at // (WINDOW_S / 4) == quarter) for quarter in range(4)]
    assert all(count >= CLIENTS / 12 for count in quarters), f"spread over the window: {quarters}"
    assert len(set(round(at, 2) for at in times)) > CLIENTS / 4, "with jitter, not in steps"
    reasons = [line for line in running.process.reports if line["fields"].get("reason") == "drained"]
    assert len(reasons) == CLIENTS


def test_readiness_goes_first_and_nobody_new_gets_in(gateway, chat):
    app = chat()
    running = gateway(app.url, settings={"drain.window": "5s", "drain.deadline": "8s"})

    async def scenario():
        held = [await connect(running.url()) for _ in range(10)]
        assert urllib.request.urlopen(f"http://{running.ops}/readyz", timeout=5).status == 200
        running.stopped = True
        running.process.signal(signal.SIGTERM)
        closes = [asyncio.create_task(client.wait_closed()) for client in held]
        await asyncio.wait(closes, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(urllib.error.HTTPError) as unready:
            await asyncio.to_thread(urllib.request.urlopen, f"http://{running.ops}/readyz", None, 5)
        assert unready.value.code == 503
        with pytest.raises((OSError, InvalidHandshake)) as refused:
            await connect(running.url())
        assert not isinstance(refused.value, TimeoutError), "a refusal, not silence"
        assert not all(close.done() for close in closes), "and the others are still being served"
        assert await asyncio.to_thread(running.process.wait, 10) == 0
        await asyncio.gather(*closes)

    run(scenario())


def test_an_idle_gateway_ends_at_once(gateway, chat):
    running = gateway(chat().url, settings={"drain.window": "10s", "drain.deadline": "20s"})
    told = time.monotonic()
    running.stop()
    assert time.monotonic() - told < 2, "nobody is connected: there is nothing to wait for"

def test_a_second_signal_cuts_the_window_short_and_still_says_goodbye(gateway, chat):
    app = chat()
    running = gateway(app.url, settings={"drain.window": "60s", "drain.deadline": "60s"})

    async def scenario():
        held = [await connect(running.url()) for _ in range(50)]
        running.stopped = True
        running.process.signal(signal.SIGTERM)
        await asyncio.to_thread(
            running.process.report, lambda line: line["fields"]["message"] == "draining", "draining"
        )
        told = time.monotonic()
        running.process.signal(signal.SIGTERM)
        await asyncio.gather(*(client.wait_closed() for client in held))
        status = await asyncio.to_thread(running.process.wait, 10)
        return status, time.monotonic() - told, [client.close_code for client in held]

    status, took, codes = run(scenario())
    assert (status, set(codes)) == (0, {1012})
    assert took < 5
