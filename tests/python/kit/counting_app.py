"""An app in its own process that numbers what it sends and tells what arrives, one JSON object a line.

usage: counting_app.py HOST; a connection's name is in its URL, `?name=ada`. Orders on stdin, one JSON object a line with
`name` and `do`: talk (`pace_ms`), hush, say (`count`, `padding`). /neighbour is an echo."""

import asyncio
import contextlib
import json
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


def report(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Line:
    """One connection, and what is said on it. Numbers go on from one connection of a name to the next."""

    said = {}

    def __init__(self, name, session, connection):
        self.name, self.session, self.connection = name, session, connection
        self.tasks = set()

    async def say(self, padding=0):
        number = self.said[self.name] = self.said.get(self.name, 0) + 1
        report("sent", name=self.name, number=number)
        await self.connection.send(f"{self.name} to_client {number}" + "." * padding)

    async def listen(self):
        async for text in self.connection:
            text = text if isinstance(text, str) else f"binary {text!r}"
            report("arrived", name=self.name, session=self.session, text=text)

    async def keep_talking(self, pace_s):
        while self.name in talking and lines[self.name] is self:
            await self.say()
            await asyncio.sleep(pace_s)
        if self.name not in talking:
            report("hushed", name=self.name)

    async def say_often(self, count, padding):
        for _ in range(count):
            await self.say(padding)

    def start(self, coroutine):
        async def work():
            with contextlib.suppress(ConnectionClosed):
                await coroutine

        task = asyncio.create_task(work())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def obey(self, order):
        match order["do"]:
            case "talk":
                talking[self.name] = order["pace_ms"] / 1000
                self.start(self.keep_talking(talking[self.name]))
            case "hush" if not talking.pop(self.name, None):
                report("hushed", name=self.name)
            case "say":
                self.start(self.say_often(order["count"], order["padding"]))


lines = {}
# Whoever talks goes on in its next session; seconds between two messages.
talking = {}


async def handle(connection):
    path = urlsplit(connection.request.path)
    if path.path == "/neighbour":
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                await connection.send(text)
        return
    name = parse_qs(path.query)["name"][0]
    session = connection.request.headers["Pulsegate-Session"]
    line = lines[name] = Line(name, session, connection)
    report("opened", name=name, session=session)
    if name in talking:
        line.start(line.keep_talking(talking[name]))
    with contextlib.suppress(ConnectionClosed):
        await line.listen()
    await connection.wait_closed()
    report("closed", name=name, session=session, code=connection.close_code, reason=connection.close_reason)


async def obey():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while text := await reader.readline():
        order = json.loads(text)
        lines[order["name"]].obey(order)


async def main():
    # It judges nobody: the gateway's verdict is what is tested.
    async with serve(handle, sys.argv[1], 0, ping_interval=None, compression=None, close_timeout=1) as server:
        report("listening", port=server.sockets[0].getsockname()[1])
        await obey()


asyncio.run(main())
