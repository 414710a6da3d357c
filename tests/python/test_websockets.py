"""Python `websockets` as client and as app, with everything it negotiates by default."""

import asyncio
import os
import random
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import PerMessageDeflate

from kit.wait import run

_MIB = 1 << 20


async def _echo(connection):
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def _app(handler=_echo, **options):
    """Yields the address of an app, and the connections it has seen."""
    seen = []

    async def handle(connection):
        seen.append(connection)
        await handler(connection)

    async with serve(handle, "127.0.0.1", 0, **options) as server:
        yield "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], seen


def test_text_and_binary_come_back_as_they_went(gateway):
    async def scenario():
        async with _app() as (upstream, _), connect(gateway(upstream).url()) as client:
            for message in ("héllo 👋", "", os.urandom(70_000), "x" * 65_535, "y" * 65_536, "z" * 126, b""):
                await client.send(message)
                assert await client.recv() == message

    run(scenario())


def test_each_side_sees_the_close_of_the_other(gateway):
    async def leave(connection):
        if await connection.recv() == "you first":
            await connection.close(4001, "the app is done")
        await connection.wait_closed()

    async def scenario():
        async with _app(leave) as (upstream, seen):
            url = gateway(upstream).url()
            async with connect(url) as client:
                await client.send("you first")
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert (client.close_code, client.close_reason) == (4001, "the app is done")
            async with connect(url) as client:
                await client.send("me first")
                await client.close(3001, "the client is done")
                await seen[1].wait_closed()
                assert (seen[1].close_code, seen[1].close_reason) == (3001, "the client is done")

    run(scenario())


def test_permessage_deflate_passes_end_to_end(gateway):
    async def scenario():
        async with _app() as (upstream, seen):
            running = gateway(upstream)
            async with connect(running.url()) as client:
                for end in (client, seen[0]):
                    assert [type(extension) for extension in end.protocol.extensions] == [PerMessageDeflate]
                message = "the same again and again; " * 40_000
                for _ in range(2):
                    await client.send(message)
                    assert await client.recv() == message
                legs = (await asyncio.to_thread(running.session))["legs"]
        for leg in legs.values():
            assert leg["messages"] == 2
            assert 0 < leg["bytes"] < len(message) / 20, "the gateway passed the compressed bytes"

    run(scenario())


def test_nothing_is_compressed_that_was_not_negotiated(gateway):
    async def scenario():
        async with _app(compression=None) as (upstream, seen):
            async with connect(gateway(upstream).url()) as client:
                await client.send("plain")
                assert await client.recv() == "plain"
                assert client.protocol.extensions == seen[0].protocol.extensions == []

    run(scenario())


def test_the_subprotocol_that_the_app_chose_reaches_the_client(gateway):
    async def scenario():
        async with _app(subprotocols=["chat.v2", "chat.v1"]) as (upstream, _):
            running = gateway(upstream)
            async with connect(running.url(), subprotocols=["chat.v0", "chat.v1", "chat.v2"]) as client:
                assert client.subprotocol == "chat.v2"
                assert (await asyncio.to_thread(running.session))["subprotocol"] == "chat.v2"

    run(scenario())


def test_the_request_reaches_the_app_as_it_was(gateway):
    async def scenario():
        async with _app() as (upstream, seen):
            running = gateway(upstream)
            headers = {"Authorization": "Bearer secret", "Cookie": "a=1; b=2", "X-Own": "mine", "Pulsegate-Session": "forged"}
            url = running.url("/room/1?ticket=t%20t&x=")
            async with connect(url, additional_headers=headers, origin="https://shop.example") as client:
                await client.send("hello")
                await client.recv()
                request = seen[0].request
                session = (await asyncio.to_thread(running.session))["id"]
        assert request.path == "/room/1?ticket=t%20t&x="
        for name in ("Authorization", "Cookie", "X-Own"):
            assert request.headers[name] == headers[name]
        assert request.headers["Origin"] == "https://shop.example"
        assert request.headers.get_all("Pulsegate-Session") == [session], "the client can't forge it"
        assert request.headers["Pulsegate-Mode"] == "plain"
        assert request.headers["X-Forwarded-For"] == "127.0.0.1"
        assert request.headers["X-Forwarded-Proto"] == "http"
        assert request.headers["X-Request-Id"]
        log = "\n".join(running.process.lines)
        assert "secret" not in log and "ticket" not in log

    run(scenario())


def test_a_refusal_by_the_app_reaches_the_client(gateway):
    def refuse(connection, request):
        response = connection.respond(401, "who are you?\n")
        response.headers["X-Why"] = "no ticket"
        return response

    async def scenario():
        async with _app(process_request=refuse) as (upstream, _):
            with pytest.raises(InvalidStatus) as refused:
                await connect(gateway(upstream).url())
            assert refused.value.response.status_code == 401
            assert refused.value.response.headers["X-Why"] == "no ticket"
            assert refused.value.response.body == b"who are you?\n"

    run(scenario())


@pytest.mark.parametrize("fragmented", [False, True], ids=["one frame", "fragments"])
def test_64_mib_pass_both_ways_in_bounded_memory(gateway, fragmented):
    big = random.Random(64).randbytes(64 * _MIB)

    async def scenario():
        unbounded = {"max_size": None, "compression": None}
        async with _app(**unbounded) as (upstream, _):
            running = gateway(upstream)
            async with connect(running.url(), **unbounded) as client:
                await client.send("warm")
                await client.recv()
                before = running.memory_peak_bytes()
                pieces = (big[at : at + _MIB] for at in range(0, len(big), _MIB))
                await client.send(pieces if fragmented else big)
                assert await client.recv() == big
                grown = running.memory_peak_bytes() - before
        assert grown < 16 * _MIB, f"{grown / _MIB:.1f} MiB more for one message"

    run(scenario())


def test_a_reader_that_pauses_bounds_the_gateway_too(gateway):
    """128 MiB pushed at a client that does not read: back-pressure, not memory."""
    pushed = 0

    async def push(connection):
        nonlocal pushed
        while True:
            await connection.send(bytes(_MIB))
            pushed += 1

    async def scenario():
        async with _app(push, compression=None) as (upstream, _):
            running = gateway(upstream)
            before = running.memory_peak_bytes()
            async with connect(running.url(), compression=None, max_queue=1, close_timeout=0.5) as client:
                await client.recv()
                seen = -1
                while seen != pushed:
                    # The wait is the thing under test: the app must come to a halt.
                    seen = pushed
                    await asyncio.sleep(0.5)
                assert pushed < 64, f"the app could push {pushed} MiB at nobody"
                assert running.memory_peak_bytes() - before < 16 * _MIB
                for _ in range(100):
                    assert len(await client.recv()) == _MIB, "and reading goes on where it stopped"

    run(scenario())
