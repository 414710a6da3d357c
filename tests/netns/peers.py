"""Many clients and an app in this process, each in its place, that send numbered messages and write the history."""

import asyncio
import contextlib
import random
import socket
import threading
import time
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from kit.history import APP, CLIENT, TO_APP, TO_CLIENT, History
from kit.wait import WAIT_MAX_S, eventually

# None of these peers judges by itself, unless a test says so: the gateway's verdict is what is tested.
_CALM = {"ping_interval": None, "compression": None, "close_timeout": 1}
_FLOOD_MESSAGE = bytes(65_536)


class Peers:
    """One event loop in a thread; every method but the coroutines may be called from the test."""

    def __init__(self, own_pings=None):
        self.history = History()
        self._own_pings = own_pings or {}
        self._worst_echo = {}
        self._echo_due = {}
        self._talking = set()
        self._connections = {}
        self._app_connections = {}
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine, limit=WAIT_MAX_S):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(limit)

    def start(self, coroutine):
        """Runs it beside the test."""
        self._loop.call_soon_threadsafe(self._keep, coroutine)

    # --- the app ---------------------------------------------------------------------------------------------

    def app(self, place, address):
        """Listens in a place; it answers each message with its own next one. The path /flood gets bytes for ever."""
        port = self._listen_in(place, (address, 0))
        self._app_at = place, (address, port)
        return f"http://{address}:{port}"

    def _listen_in(self, place, address):
        listener = place.inside(lambda: socket.create_server(address, backlog=1024))
        self.run(self._serve(listener))
        return listener.getsockname()[1]

    def app_connections(self):
        """How many connections the app has open."""
        async def count():
            return len(self._server.connections)
        return self.run(count())

    def stop_app(self):
        """The app goes: nobody listens, and each of its connections is reset."""
        async def stop():
            self._server.close(close_connections=False)
            for one in self._app_connections.values():
                _reset(one)
            await self._server.wait_closed()
        self.run(stop())

    def start_app_again(self):
        """It comes back where it was."""
        self._listen_in(*self._app_at)

    async def _serve(self, listener):
        self._server = await serve(self._handle, sock=listener, **(_CALM | self._own_pings))

    async def _handle(self, connection):
        path = urlsplit(connection.request.path)
        name = parse_qs(path.query)["name"][0]
        self._app_connections[name] = connection
        self.history.opened(name, connection.request.headers["Pulsegate-Session"])
        try:
            if path.path == "/flood":
                while True:
                    await connection.send(_FLOOD_MESSAGE)
            async for text in connection:
                self.history.arrived(name, TO_APP, text)
                await connection.send(self.history.send(name, TO_CLIENT))
        except ConnectionClosed:
            pass
        finally:
            await connection.wait_closed()
            self.history.ended(name, APP, connection.close_code)

    # --- the clients -----------------------------------------------------------------------------------------

    def client(self, name, place, url, **options):
        """Connects; `name` is new. Returns when the gateway has let it in."""
        self.run(self.connect(name, place, url, **options))

    async def connect(self, name, place, url, path="/", **options):
        target = urlsplit(url)
        own = place.inside(socket.socket)
        own.setblocking(False)
        try:
            await self._loop.sock_connect(own, (target.hostname, target.port))
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wanted = _CALM | self._own_pings | options
            connection = await connect(f"{url}{path}?name={name}", sock=own, proxy=None, **wanted)
        except BaseException:
            own.close()
            raise
        self._connections[name] = connection
        self._keep(self._listen(name, connection))

    def _keep(self, coroutine):
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, name, connection):
        try:
            async for text in connection:
                if isinstance(text, str):
                    self.history.arrived(name, TO_CLIENT, text)
                    if due := self._echo_due.pop(name, None):
                        self._worst_echo[name] = max(self.worst_echo_s(name), time.monotonic() - due)
        except ConnectionClosed:
            pass
        self.history.ended(name, CLIENT, connection.close_code)

    def say(self, name, side=CLIENT, padding=0):
        """One side says one numbered message, unasked."""
        connections, direction = (self._connections, TO_APP) if side == CLIENT else (self._app_connections, TO_CLIENT)
        self.run(connections[name].send(self.history.send(name, direction, padding)))

    def both_say(self, names):
        """Both sides of each say one message, so that each end finds out whether its line still stands."""
        async def say(connection, name, direction):
            with contextlib.suppress(ConnectionClosed):
                await connection.send(self.history.send(name, direction))

        async def all_say():
            for name in names:
                await say(self._connections[name], name, TO_APP)
                await say(self._app_connections[name], name, TO_CLIENT)

        self.run(all_say())

    def talk(self, names, pace_s):
        """From now on each of these sends a message every `pace_s`, until `hush` or its end."""
        for name in names:
            self._talking.add(name)
            self._loop.call_soon_threadsafe(self._keep, self._talk(name, pace_s))

    async def _talk(self, name, pace_s):
        connection = self._connections[name]
        try:
            while name in self._talking:
                self._echo_due.setdefault(name, time.monotonic())
                await connection.send(self.history.send(name, TO_APP))
                await asyncio.sleep(pace_s * random.uniform(0.5, 1.5))
        except ConnectionClosed:
            pass
        finally:
            self._echo_due.pop(name, None)

    def hush(self):
        self._talking.clear()

    def worst_echo_s(self, name):
        """The longest that a talker ever waited for an answer."""
        return self._worst_echo.get(name, 0.0)

    def abort(self, name, side=CLIENT):
        """Ends a connection with a reset."""
        connection = (self._connections if side == CLIENT else self._app_connections)[name]
        self._loop.call_soon_threadsafe(_reset, connection)

    def begin_close(self, name, side=CLIENT):
        """Starts a closing handshake and does not wait for its end."""
        connection = (self._connections if side == CLIENT else self._app_connections)[name]
        self._loop.call_soon_threadsafe(lambda: self._keep(connection.close(4000, "bye")))

    def told(self, name, side, limit):
        """Waits until one side was told of the end: close code and monotonic time."""
        return eventually(lambda: self.history.end(name, side), f"the {side} of {name} is told of the end", limit)

    def close(self):
        async def stop():
            self._talking.clear()
            for one in [*self._connections.values(), *self._app_connections.values()]:
                one.transport.abort()
            self._server.close()
            left = [*self._tasks]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        self.run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_MAX_S)


def _reset(connection):
    """Ends a connection with a RST; one that is over already stays as it is."""
    own = connection.transport.get_extra_info("socket")
    if own.fileno() != -1:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.transport.abort()
