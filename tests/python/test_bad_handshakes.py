"""Handshakes that must be refused: a clear answer, a counted reason, and no harm to anyone else."""

import json
import socket
import threading

import pytest

from kit import raw
from kit.good import ORIGIN, GoodClient
from kit.wait import eventually

REJECTED = "pulsegate_handshakes_rejected_total"


@pytest.fixture
def attacked(gateway, raw_app):
    """A gateway with an echoing app and a good client that is at it all the time."""
    clients = []

    def start(behave_badly=None, **settings):
        def behave(stream, head):
            if behave_badly and "GET /good " not in head:
                behave_badly(stream, head)
                return
            stream.send(raw.accepted(head))
            while (got := stream.frame()).opcode != raw.CLOSE:
                if got.opcode == raw.PING:
                    stream.send(raw.frame(raw.PONG, got.payload, masked=False))
                elif got.opcode != raw.PONG:
                    stream.send(raw.frame(got.opcode, got.payload, masked=False))

        running = gateway(raw_app(behave).url, settings=settings)
        clients.append(GoodClient(running))
        return running, clients[-1]

    yield start
    for client in clients:
        client.close()


def _send(stream, request):
    """Sends all of it; a refusal may come, and end the connection, before the last byte has left."""
    try:
        stream.send(request)
    except (BrokenPipeError, ConnectionResetError):
        pass


def _refused(gateway, request, status, reason):
    """Sends a request and returns the head of its refusal, which must be counted once, under this reason."""
    before = gateway.reasons(REJECTED)
    stream = raw.connect(gateway.address)
    sender = threading.Thread(target=_send, args=(stream, request), daemon=True)
    sender.start()
    head = stream.head()
    assert int(head.split()[1]) in ((status,) if isinstance(status, int) else status), head
    stream.close()
    sender.join(10)

    def grown():
        after = gateway.reasons(REJECTED)
        return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}

    # The client may have read its refusal before the connection has ended and is counted.
    eventually(grown, f"the refusal is counted as {reason}")
    assert grown() == {reason: 1}
    return head


HOST = "gateway.test"
KEY = "Sec-WebSocket-Key"
VERSION = "Sec-WebSocket-Version"
BAD_REQUESTS = {
    "not HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello over there\r\n\r\n", 400, "malformed_head"),
    "a header without a colon": (raw.upgrade(HOST, extra=["no colon here"]), 400, "malformed_head"),
    "a NUL in a header": (raw.upgrade(HOST, extra=["X-Bad: a\0b"]), 400, "malformed_head"),
    "a folded header": (raw.upgrade(HOST, extra=["X-Bad: a", " b"]), 400, "malformed_head"),
    "a space before the colon": (raw.upgrade(HOST, extra=["X-Bad : a"]), 400, "malformed_head"),
    "no Host": (raw.upgrade(HOST, drop=["Host"]), 400, "host"),
    "two Hosts": (raw.upgrade(HOST, extra=["Host: other.test"]), 400, "host"),
    "no key": (raw.upgrade(HOST, drop=[KEY]), 400, "key"),
    "two keys": (raw.upgrade(HOST, extra=[f"{KEY}: AAAAAAAAAAAAAAAAAAAAAA=="]), 400, "key"),
    "a short key": (raw.upgrade(HOST, drop=[KEY], extra=[f"{KEY}: AAAA"]), 400, "key"),
    "a key that is not base64": (raw.upgrade(HOST, drop=[KEY], extra=[f"{KEY}: !!!!!!!!!!!!!!!!!!!!!!=="]), 400, "key"),
    "an old version": (raw.upgrade(HOST, drop=[VERSION], extra=[f"{VERSION}: 8"]), 426, "websocket_version"),
    "no version": (raw.upgrade(HOST, drop=[VERSION]), 426, "websocket_version"),
    "no Connection": (raw.upgrade(HOST, drop=["Connection"]), 400, "connection"),
    "HTTP/1.0": (raw.upgrade(HOST, version="HTTP/1.0"), 400, "http_version"),
    "a POST": (raw.upgrade(HOST, method="POST"), 400, "method"),
    "a body": (raw.upgrade(HOST, extra=["Content-Length: 5"]) + b"hello", 400, "body"),
    "a chunked body": (raw.upgrade(HOST, extra=["Transfer-Encoding: chunked"]) + b"5\r\nhello\r\n0\r\n\r\n", 400, "body"),
    "both body lengths": (
        raw.upgrade(HOST, extra=["Content-Length: 5", "Transfer-Encoding: chunked"]) + b"0\r\n\r\n", 400, "body"),
    "an absolute target": (raw.upgrade(HOST, path="http://elsewhere.test/"), 400, "target"),
    "an authority as target": (raw.upgrade(HOST, path="elsewhere.test:80"), 400, "target"),
    "CONNECT": (raw.upgrade(HOST, path="elsewhere.test:80", method="CONNECT"), 400, "connect"),
    "a very long header": (raw.upgrade(HOST, extra=["X-Long: " + "x" * 300_000]), 431, "head_too_large"),
    "a very long target": (raw.upgrade(HOST, path="/" + "x" * 300_000), (414, 431), "head_too_large"),
    "a thousand headers": (raw.upgrade(HOST, extra=[f"X-{at}: x" for at in range(1_000)]), 431, "head_too_large"),
}


@pytest.mark.parametrize(("request_bytes", "status", "reason"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused(attacked, request_bytes, status, reason):
    running, good = attacked()
    head = _refused(running, request_bytes, status, reason)
    if status == 426:
        assert raw.header(head, "sec-websocket-version") == "13"
    good.check()
    assert len(running.sessions()) == 1, "only the good client has a session"


def test_a_head_that_never_ends_is_cut_in_time(attacked):
    running, good = attacked(**{"limits.header_timeout": "1s"})
    stream = raw.connect(running.address)
    stream.socket.settimeout(4)
    stream.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    answer = stream.rest()
    assert answer.startswith(b"HTTP/1.1 408 ")
    eventually(lambda: running.reasons(REJECTED)["head_timeout"] == 1, "the refusal is counted")
    good.check()


def test_a_head_that_trickles_is_cut_in_time(attacked):
    running, good = attacked(**{"limits.header_timeout": "1s"})
    stream = raw.connect(running.address)
    stopped = threading.Event()

    def trickle():
        # A byte at a time is the attack: every byte is progress, the head never ends.
        try:
            stream.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            while not stopped.wait(0.1):
                stream.send(b"x")
        except OSError:
            pass

    threading.Thread(target=trickle, daemon=True).start()
    stream.socket.settimeout(4)
    answer = stream.rest()
    stopped.set()
    assert answer.startswith(b"HTTP/1.1 408 ")
    eventually(lambda: running.reasons(REJECTED)["head_timeout"] == 1, "the refusal is counted")
    good.check()




BAD_APPS = {
    "a wrong accept key": lambda head: raw.accepted(head, accept="s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "no accept key": lambda head: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "an extension that nobody offered": lambda head: raw.accepted(
        head, ["Sec-WebSocket-Extensions: permessage-deflate"]),
    "a subprotocol that nobody offered": lambda head: raw.accepted(head, ["Sec-WebSocket-Protocol: chat"]),
    "no Upgrade header": lambda head: raw.accepted(head).replace(b"Upgrade: websocket\r\n", b""),
    "another protocol": lambda head: raw.accepted(head).replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "garbage": lambda head: b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an endless head": lambda head: b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 1_000_000,
}


@pytest.mark.parametrize("answer", BAD_APPS.values(), ids=BAD_APPS)
def test_an_app_that_answers_wrongly_is_a_502(attacked, answer):
    running, good = attacked(lambda stream, head: (stream.send(answer(head)), stream.rest()))
    head = _refused(running, raw.upgrade(running.data), 502, "app_invalid")
    assert raw.header(head, "content-type") == "application/problem+json"
    good.check()


def test_an_app_that_hangs_up_is_a_502(attacked):
    running, good = attacked(lambda stream, head: stream.close())
    _refused(running, raw.upgrade(running.data), 502, "app_unreachable")
    good.check()


def test_an_app_that_never_answers_is_a_504(attacked):
    running, good = attacked(lambda stream, head: stream.rest(), **{"upstream.handshake_timeout": "1s"})
    head = _refused(running, raw.upgrade(running.data), 504, "app_timeout")
    assert raw.header(head, "content-type") == "application/problem+json"
    good.check()


def test_no_app_at_all_is_a_502(gateway):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = gateway(f"http://127.0.0.1:{port}")
    head = _refused(running, raw.upgrade(running.data), 502, "app_unreachable")
    assert raw.header(head, "content-type") == "application/problem+json"


def test_one_session_too_many_is_a_503_with_retry_after(attacked):
    running, good = attacked(**{"limits.sessions_max": 2})
    second = raw.open_client(running)
    head = _refused(running, raw.upgrade(running.data), 503, "sessions_max")
    assert int(raw.header(head, "retry-after")) > 0
    second.close()
    good.check()


def test_a_foreign_origin_is_a_403(attacked):
    running, good = attacked(**{"origin.allow": f'["{ORIGIN}"]'})
    _refused(running, raw.upgrade(running.data, extra=["Origin: https://evil.example"]), 403, "origin")
    good.check()


def test_a_label_of_64_kib_is_cut_to_its_bound(attacked):
    running, good = attacked(**{
        "registry.labels": '{ user = "header:X-User" }', "limits.label_bytes_max": 100, "limits.header_bytes_max": 131_072,
    })
    client = raw.open_client(running, extra=["X-User: " + "é".encode().decode("latin-1") * 32_768])
    labels = running.session(lambda session: session["labels"].get("user"))["labels"]
    assert 0 < len(labels["user"].encode()) <= 100
    assert len(json.dumps(running.sessions())) < 8_192
    client.close()
    good.check()
