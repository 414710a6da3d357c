"""WebSocket by hand: bytes that no library would send (RFC 6455 section 5.2)."""

import base64
import hashlib
import os
import socket
import struct
import threading
from dataclasses import dataclass

from .wait import WAIT_MAX_S

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_KEY_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Frame:
    """One frame as it came, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    reserved: int = 0
    masked: bool = False

    @property
    def close_code(self):
        assert self.opcode == CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else 1005


def frame(opcode, payload=b"", *, fin=True, reserved=0, masked=True, claimed=None):
    """A frame's bytes; `claimed` is a payload length that the head states instead of the true one."""
    length = len(payload) if claimed is None else claimed
    head = bytes([fin << 7 | reserved << 4 | opcode])
    mask_bit = masked << 7
    if length < 126:
        head += bytes([mask_bit | length])
    elif length < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + _masked(payload, mask)


def close_payload(code, reason=""):
    return struct.pack("!H", code) + reason.encode()


def _masked(payload, mask):
    if not payload:
        return b""
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(payload), "big")


class Stream:
    """A socket with a reader of heads and frames; every read has a bound."""

    def __init__(self, connection):
        self.socket = connection
        self._buffer = bytearray()
        self.socket.settimeout(WAIT_MAX_S)

    def _more(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise EOFError(f"the peer hung up; unread: {bytes(self._buffer[:80])!r}")
        self._buffer += piece

    def _take(self, count):
        while len(self._buffer) < count:
            self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def send(self, data):
        self.socket.sendall(data)

    def head(self):
        """Everything up to the empty line."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def rest(self):
        """Everything until the peer ends the stream."""
        try:
            while True:
                self._more()
        except (EOFError, ConnectionResetError):
            return bytes(self._buffer)

    def frame(self):
        """The next frame."""
        first, second = self._take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        masked = bool(second >> 7)
        mask = self._take(4) if masked else b""
        payload = self._take(length)
        payload = _masked(payload, mask) if masked else payload
        return Frame(first & 0xF, payload, bool(first >> 7), first >> 4 & 7, masked)

    def frame_of(self, opcode):
        """The next frame of this kind; the gateway's own pings in between are answered, as a peer must."""
        while True:
            got = self.frame()
            if got.opcode == opcode:
                return got
            if got.opcode == PING:
                self.send(frame(PONG, got.payload, masked=not got.masked))

    def hang_up(self, last_words=b""):
        """Says the last words, and no more; a peer that has already gone is no surprise."""
        try:
            self.send(last_words)
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.socket.close()


def upgrade(authority, path="/", extra=(), drop=(), method="GET", version="HTTP/1.1"):
    """An upgrade request; `extra` lines are added, standard fields named in `drop` are left out."""
    standard = {
        "Host": authority,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in standard.items() if name not in drop]
    return ("\r\n".join([*lines, *extra]) + "\r\n\r\n").encode("latin-1")


def accept_key(key):
    """RFC 6455 section 4.2.2."""
    return base64.b64encode(hashlib.sha1((key + _KEY_SUFFIX).encode()).digest()).decode()


def connect(address):
    """A TCP connection without any handshake."""
    return Stream(socket.create_connection(address, WAIT_MAX_S))


def open_client(gateway, path="/", extra=()):
    """A client whose handshake went well."""
    stream = connect(gateway.address)
    stream.send(upgrade(gateway.data, path, extra))
    head = stream.head()
    assert head.startswith("HTTP/1.1 101 "), head
    return stream


class RawApp:
    """An app that answers each connection with `behave(stream, head)` in a thread of its own."""

    def __init__(self, behave):
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._streams = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            stream = Stream(connection)
            self._streams.append(stream)
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream):
        try:
            head = stream.head()
            self._behave(stream, head)
        except (OSError, EOFError):
            pass

    def close(self):
        # accept() in another thread only wakes when the listener is shut down first.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in self._streams:
            stream.close()


def header(head, name):
    """A header's value, or an empty text."""
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name.lower():
            return value.strip()
    return ""


def accepted(head, extra=(), accept=None):
    """The 101 to a request."""
    accept = accept or accept_key(header(head, "sec-websocket-key"))
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return ("\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept}", *extra]) + "\r\n\r\n").encode()
