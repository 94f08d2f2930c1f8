"""bot: a reader who reloads. Asks TARGET_URL RATE times a second with seeded users and prints a line every REPORT_EVERY.

It asks on schedule, not after the last answer: a slow mesh shows as latency, not as fewer requests.
"""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter

from .client import Client
from .pod import Pod, here, number

USERS = ("", "", "", "", "", "alice", "bob", "carol", "dave", "jason")
_WORKERS = 8


class Tally:
    """What came back since the last report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._took: list[float] = []
        self._last_error = ""

    def add(self, outcome: str, version: str, took: float, error: str = "") -> None:
        """Count one request: its outcome (ok, degraded, failed), who wrote the reviews, seconds."""
        with self._lock:
            self._outcomes[outcome] += 1
            if version:
                self._versions[version] += 1
            self._took.append(took)
            self._last_error = error or self._last_error

    def report(self) -> str:
        """One line, and start over."""
        with self._lock:
            outcomes, versions, took, error = self._outcomes, self._versions, sorted(self._took), self._last_error
            self._outcomes, self._versions, self._took, self._last_error = Counter(), Counter(), [], ""
        if not took:
            return "0 requests"
        counts = ", ".join(f"{outcomes[kind]} {kind}" for kind in ("ok", "degraded", "failed"))
        seen = " ".join(f"{version}:{versions[version]}" for version in sorted(versions))
        middle, late = took[len(took) // 2] * 1000, took[len(took) * 99 // 100] * 1000
        line = f"{len(took)} requests: {counts}; reviews {seen or '-'}; p50 {middle:.0f} ms p99 {late:.0f} ms"
        return f"{line}; last error: {error}" if error else line


def ask(client: Client, path: str, user: str, tally: Tally) -> None:
    """One request, counted. Degraded: the page came, its stars did not."""
    began = time.monotonic()
    reply = client.get(path, (("end-user", user), ("user-agent", "bookinfo-bot")) if user else ())
    took = time.monotonic() - began
    version = reply.fields.get("x-reviews-version", "")
    if reply.status != 200:
        tally.add("failed", version, took, f"{reply.status} {reply.body[:80]!r}")
    elif missing := reply.fields.get("x-ratings-error"):
        tally.add("degraded", version, took, missing)
    else:
        tally.add("ok", version, took)


def run(pod: Pod, stopping: threading.Event) -> None:
    """Ask until `stopping`; one report per interval and one at the end."""
    target = os.environ.get("TARGET_URL", "http://productpage:9080/productpage")
    origin, path = split(target)
    rate, every = max(0.1, number("RATE", 10)), max(0.1, number("REPORT_EVERY", 5))
    client, tally = Client(origin), Tally()
    dice = random.Random(int(number("SEED", 1)))
    turns = threading.Semaphore(_WORKERS)
    pod.say(f"asking {target} {rate:g} times a second")

    def one(user: str) -> None:
        try:
            ask(client, path, user, tally)
        finally:
            turns.release()

    began, sent, reported = time.monotonic(), 0, time.monotonic()
    while not stopping.is_set():
        turns.acquire()
        threading.Thread(target=one, args=(dice.choice(USERS),), daemon=True).start()
        sent += 1
        now = time.monotonic()
        if now - reported >= every:
            pod.say(tally.report())
            reported = now
        began = max(began, now - (sent + rate) / rate)  # after a stall, at most a second's worth is caught up
        stopping.wait(max(0.0, began + sent / rate - now))
    for _ in range(_WORKERS):
        turns.acquire(timeout=0.2)
    pod.say(tally.report())


def split(url: str) -> tuple[str, str]:
    """`http://host:port/path` -> ("http://host:port", "/path")."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place}", f"/{path}" if slash else "/"


def main() -> int:
    """Run until SIGTERM."""
    stopping = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopping.set())
    run(here("bot"), stopping)
    return 0


if __name__ == "__main__":
    sys.exit(main())
