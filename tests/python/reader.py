"""Unmodified clients that come back whenever their connection is gone, and tell what they have read.

usage: reader.py websockets|aiohttp URL…; a line per message: its URL's query, its first word, its length. Ends with its
stdin."""

import asyncio
import contextlib
import os
import sys
from urllib.parse import parse_qs, urlsplit

PAUSE = 0.1


def report(who, text):
    os.write(1, f"{who} {text.split(' ', 1)[0]} {len(text)}\n".encode())


async def read_websockets(url, who):
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    with contextlib.suppress(WebSocketException, OSError, EOFError, TimeoutError):
        async with connect(url, compression=None, ping_interval=None) as client:
            async for text in client:
                report(who, text)


async def read_aiohttp(url, who):
    import aiohttp

    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as client:
            async for message in client:
                if message.type is aiohttp.WSMsgType.TEXT:
                    report(who, message.data)


async def live(read, url):
    who = parse_qs(urlsplit(url).query)["who"][0]
    while True:
        await read(url, who)
        await asyncio.sleep(PAUSE)


async def main(library, urls):
    read = {"websockets": read_websockets, "aiohttp": read_aiohttp}[library]
    clients = [asyncio.create_task(live(read, url)) for url in urls]
    await asyncio.to_thread(sys.stdin.read)
    for client in clients:
        client.cancel()
    os._exit(0)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
