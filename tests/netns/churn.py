"""Connections that are reset as soon as they reach one of three stages of the handshake, in a process of its own.

usage: churn.py HOST PORT PER_SECOND REQUEST; a line on stdin ends it, and it reports how many it has reset and in which time."""

import json
import socket
import sys
import threading
import time

host, port, per_second = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
request = sys.argv[4].encode()
STAGES = (b"", request[:30], request)
# How long those wait that wait for what comes: an answer is here sooner, and from a busy gateway none may come.
PATIENCE_S = (0.001, 0.001, 0.25)


def reset_one(number):
    stage = number % len(STAGES)
    one = socket.create_connection((host, port), 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.sendall(STAGES[stage])
    # Every other one of each stage.
    if number % 2:
        one.settimeout(PATIENCE_S[stage])
        try:
            one.recv(1)
        except OSError:
            pass
    one.close()


over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
begin, resets = time.monotonic(), 0
while not over.is_set():
    reset_one(resets)
    resets += 1
    # The pace is what is tested; who is behind makes up for it.
    time.sleep(max(0.0, begin + resets / per_second - time.monotonic()))
print(json.dumps({"event": "over", "resets": resets, "seconds": time.monotonic() - begin}), flush=True)
