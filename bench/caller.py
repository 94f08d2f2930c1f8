"""Runs inside a pod's network: one GET on a new connection per destination, one after the other; their milliseconds as JSON.

    python caller.py ADDRESS:PORT=HOST ...

Alone on purpose: no module of the bench is imported where only the standard library's place is known.
"""

from __future__ import annotations

import json
import socket
import sys
import time

PATIENCE_S = 20.0


def call(address: str, port: int, host: str) -> tuple[float, str]:
    """Milliseconds from before the connection until the end of the answer, and its status."""
    began = time.perf_counter()
    with socket.create_connection((address, port), PATIENCE_S) as connection:
        connection.settimeout(PATIENCE_S)
        connection.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    status = answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/") else "reset"
    return (time.perf_counter() - began) * 1000, status


def main() -> None:
    """One line of JSON."""
    found = []
    for word in sys.argv[1:]:
        place, _, host = word.partition("=")
        address, _, port = place.rpartition(":")
        found.append(call(address, int(port), host))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
