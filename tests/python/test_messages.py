"""Messages over the control API to unmodified clients: what is claimed is what the client has."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from kit.gateway import binary
from kit.wait import eventually, run


async def _quiet(connection):
    await connection.wait_closed()


async def _send(running, session, text, *arguments):
    """`pulsegate sessions send`, as a person would; exit code and what it says."""
    command = [binary(), "sessions", "send", "--api", f"http://{running.control}", "-o", "json", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, [*command, session, text], capture_output=True, text=True, timeout=20
    )
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def test_a_message_is_delivered_to_a_client_that_reads_and_told_truly_of_one_that_does_not(gateway):
    async def scenario():
        async with serve(_quiet, "127.0.0.1", 0) as server:
            running = gateway("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])
            async with connect(running.url()) as client:
                session = running.session()["id"]
                code, told, _ = await _send(running, session, "hello", "--wait", "10s")
                assert (code, told["status"], told["level"]) == (0, "delivered", "received")
                assert await client.recv() == "hello"
                code, told, said = await _send(running, session, "x", "--level", "handled")
                assert code == 1 and "can't confirm that" in said, said
            code, _, said = await _send(running, session, "late", "--wait", "1s")
            assert code == 1 and "ended" in said, said

    run(scenario())


def test_what_the_app_pushes_is_confirmed_without_a_change_to_anybody(gateway):
    async def push(connection):
        for number in range(100):
            await connection.send(f"message {number}")
        await connection.wait_closed()

    async def scenario():
        async with serve(push, "127.0.0.1", 0) as server:
            running = gateway("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])
            async with connect(running.url()) as client:
                for number in range(100):
                    assert await client.recv() == f"message {number}"

                def confirmed():
                    delivery = running.session()["delivery"]
                    return delivery["received"] == 100 and delivery["unacked_messages"] == 0

                await asyncio.to_thread(eventually, confirmed, "all are confirmed")

    run(scenario())


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_example_is_told_which_of_its_messages_arrived(gateway, process):
    example = Path(__file__).parents[2] / "examples" / "receipts.py"
    port = _free_port()
    running = gateway(f"http://127.0.0.1:{port}")
    command = ["env", f"PULSEGATE_API=http://{running.control}", sys.executable, str(example), str(port)]
    app = process("receipts.py", command)
    eventually(lambda: any("listening" in line for line in app.lines), "the example listens")

    async def scenario():
        async with connect(running.url()) as client:
            assert "Pulsegate-Receipts" not in client.response.headers, "that was meant for the gateway"
            for number in range(1, 11):
                assert await client.recv() == f"message {number}"
            everything = "10 of 10 sent are received"
            await asyncio.to_thread(eventually, lambda: everything in app.lines, everything)

    run(scenario())
