"""A Python `websockets` client in its own process, so that a test can put it into another network.

usage: client.py URL; lines on stdin are sent as they are, the line "state" reports what the client believes."""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


def report(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


async def obey(client):
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().strip():
        if line == "state":
            report("state", state=client.state.name)
        else:
            await client.send(line)


async def main():
    async with connect(sys.argv[1]) as client:
        report("open")
        orders = asyncio.create_task(obey(client))
        try:
            while True:
                report("message", text=await client.recv())
        except ConnectionClosed:
            report("close", code=client.close_code, reason=client.close_reason)
        orders.cancel()


asyncio.run(main())
