"""Asking `programs/requester.py`, wherever it runs: in a pod, in a namespace of its own, on the host."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass
class Outcome:
    """What a batch or a load of requests came to."""

    counts: Counter[str]
    """By `<status> <version>` or by what failed."""
    answers: list[dict[str, Any]]
    failures: list[str]
    slowest: float
    seconds: float
    last_kept: dict[str, float]
    """Seconds after the beginning when this outcome was last seen on a kept connection."""

    @property
    def total(self) -> int:
        """How many there were."""
        return self.counts.total()

    @property
    def first(self) -> dict[str, Any]:
        """The first answer: status, headers, body."""
        assert self.answers, dict(self.counts)
        return self.answers[0]

    def only(self, *expected: str) -> bool:
        """Whether nothing but these happened, at least once in all."""
        return bool(self.total) and set(self.counts) <= set(expected)

    def share(self, outcome: str) -> float:
        """Part of all, in percent."""
        return 100.0 * self.counts[outcome] / self.total


@dataclass
class Load:
    """A load while it runs; `outcome` when it has ended."""

    outcome: Outcome | None = None
    answer: dict[str, Any] = field(default_factory=dict)


def _outcome(answer: dict[str, Any]) -> Outcome:
    named = {one.name: answer[one.name] for one in fields(Outcome)}
    return Outcome(**{**named, "counts": Counter(named["counts"])})


class Client:
    """One requester. `host` and `port` say where to connect, `authority` what to ask for there."""

    def __init__(self, control: Path) -> None:
        self.control = control

    def wait(self, seconds: float = 30.0) -> "Client":
        """Until it listens."""
        deadline = time.monotonic() + seconds
        while not self.control.exists():
            assert time.monotonic() < deadline, f"{self.control} did not appear"
            time.sleep(0.05)
        return self

    def ask(self, do: str, timeout: float = 120.0, **job: Any) -> dict[str, Any]:
        """One job to its end."""
        with self._begun(do, job, timeout) as asked:
            return _read(asked)

    def http(self, host: str, port: int = 80, path: str = "/", n: int = 1, **job: Any) -> Outcome:
        """`n` requests (`concurrency`, `fresh`, `authority`, `headers`, `tls`, `sni`, `method`, `body`, `body_bytes`, `keep`, `patience`)."""
        return _outcome(self.ask("http", host=host, port=port, path=path, n=n, **job))

    def until(self, expected: str, host: str, port: int = 80, seconds: float = 10.0, **job: Any) -> Outcome:
        """Repeat one request until it has this outcome."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.http(host, port, **job)
            if found.only(expected):
                return found
            assert time.monotonic() < deadline, f"{host}:{port} {dict(found.counts)} instead of {expected}"
            time.sleep(0.1)

    def stream(self, host: str, port: int, **job: Any) -> dict[str, Any]:
        """One connection of lines (`lines`, `greets`, `tls`, `sni`, `address`, `timeout`)."""
        return self.ask("stream", host=host, port=port, **job)

    @contextmanager
    def load(self, host: str, port: int = 80, rate: float = 100.0, **job: Any) -> Iterator[Load]:
        """Constant load as long as the block lasts, half of it on new connections; then `.outcome` is there."""
        found = Load()
        with self._begun("load", {"host": host, "port": port, "rate": rate, **job}, 60.0) as asked:
            yield found
            asked.shutdown(socket.SHUT_WR)
            found.outcome = _outcome(_read(asked))

    @contextmanager
    def talk(self, host: str, port: int, **job: Any) -> Iterator[Load]:
        """One TCP connection that talks as long as the block lasts; then `.answer` is there."""
        found = Load()
        with self._begun("talk", {"host": host, "port": port, **job}, 60.0) as asked:
            yield found
            asked.shutdown(socket.SHUT_WR)
            found.answer = _read(asked)

    @contextmanager
    def _begun(self, do: str, job: dict[str, Any], timeout: float) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(timeout)
            asked.connect(str(self.control))
            asked.sendall(json.dumps({"do": do, **job}).encode() + b"\n")
            yield asked


def _read(asked: socket.socket) -> dict[str, Any]:
    with asked.makefile() as lines:
        answer: dict[str, Any] = json.loads(lines.readline())
    assert "broken" not in answer, answer["broken"]
    return answer
