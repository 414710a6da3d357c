"""An app that is told which of its messages have arrived, behind pulsegate.

    pip install websockets
    python examples/receipts.py                                     # listens on port 3000
    pulsegate run --upstream http://127.0.0.1:3000
    python -m websockets ws://127.0.0.1:7080/                       # any client will do

One header in the 101 switches receipts on. The app counts what it sends from 1, per connection; `session.confirmed` says
how many of the first so many have come. What is not confirmed when `session.ended` comes may have arrived or not.
"""

import asyncio
import json
import os
import sys
import threading
import urllib.request

from websockets.asyncio.server import serve

API = os.environ.get("PULSEGATE_API", "http://127.0.0.1:7082")


def ask_for_receipts(_connection, _request, response):
    response.headers["Pulsegate-Receipts"] = "?1"
    return response


def follow(session, tell):
    """Calls `tell` with each event of the session, in a thread of its own, until the session has ended."""
    url = f"{API}/v1/events?session={session}&type=session.confirmed,session.ended&last_event_id=0-0"
    with urllib.request.urlopen(url) as feed:
        for line in feed:
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                tell(event)
                if event["type"] == "session.ended":
                    return


async def greet(connection):
    session = connection.request.headers["Pulsegate-Session"]
    sent = 0

    def tell(event):
        if event["type"] == "session.confirmed":
            print(f"{event['messages']} of {sent} sent are {event['level']}", flush=True)

    threading.Thread(target=follow, args=(session, tell), daemon=True).start()
    for number in range(1, 11):
        await connection.send(f"message {number}")
        sent = number
        await asyncio.sleep(0.2)
    await connection.wait_closed()


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    async with serve(greet, "127.0.0.1", port, process_response=ask_for_receipts) as server:
        print("listening on", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
