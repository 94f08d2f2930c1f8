"""Answers on ports (`80`: IPv4; `80+6`: IPv6 as well): where the connection came out, and where it was meant to go."""

import selectors
import socket
import struct
import sys

SO_ORIGINAL_DST = 80


def meant(connection: socket.socket) -> str:
    """The target before a redirect; the connection's own where there was none."""
    try:
        raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    except OSError:
        return "{}:{}".format(*connection.getsockname()[:2])
    return f"{socket.inet_ntoa(raw[4:8])}:{struct.unpack('>H', raw[2:4])[0]}"


listening = selectors.DefaultSelector()
for word in sys.argv[1:]:
    number = int(word.removesuffix("+6"))
    listening.register(socket.create_server(("0.0.0.0", number), backlog=16), selectors.EVENT_READ, number)
    if word.endswith("+6"):
        server = socket.create_server(("::", number), family=socket.AF_INET6)
        listening.register(server, selectors.EVENT_READ, number)
print("ready", flush=True)
while True:
    for key, _ in listening.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(f"{key.data} {meant(connection)}".encode())
        connection.close()
