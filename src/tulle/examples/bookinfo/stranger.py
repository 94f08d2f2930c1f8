"""stranger: has an identity, and no permission. Asks each of TARGETS every INTERVAL seconds and prints what it gets.

In a mesh with `security.yaml` every line says 403; without it, every line shows what was lying open.
"""

import os
import signal
import sys
import threading
from itertools import count

from .bot import split
from .client import Client, Reply
from .pod import here, number

TARGETS = "http://ratings:9080/ratings/0 http://details:9080/details/0"


def verdict(reply: Reply) -> str:
    """What an answer means to somebody who should not get one."""
    said = " ".join(reply.body.decode("utf-8", "replace").split())[:80]
    if reply.status == 403:
        return f"DENIED 403 {said}"
    if 200 <= reply.status < 300:
        return f"LET IN {reply.status} {said}"
    return f"FAILED {reply.status or ''} {said}"


def main() -> int:
    """Run until SIGTERM."""
    pod = here("stranger")
    stopping = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopping.set())
    targets = os.environ.get("TARGETS", TARGETS).split()
    clients = {target: (Client(split(target)[0]), split(target)[1]) for target in targets}
    interval = max(0.05, number("INTERVAL", 2))
    for turn in count(1):
        for target, (client, path) in clients.items():
            pod.say(f"#{turn} GET {target} -> {verdict(client.get(path))}")
        if stopping.wait(interval):
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
