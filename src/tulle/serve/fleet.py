"""Which proxy holds which version, as data: pods with a proxy, connected streams, what each has acknowledged and refused.

Knows no gRPC and computes no configuration: `pushing.py` tells it what everybody should hold, `client.py` what was said.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from time import monotonic, time

from msgspec import Struct

from tulle.compile.views import View
from tulle.model.origin import Origin
from tulle.model.problems import NOWHERE, Problem, problem
from tulle.serve.client import Client, Ending, Refusal
from tulle.serve.seats import Seat
from tulle.xds.events import Acked, Rejected, Send
from tulle.xds.names import PUSH_ORDER, TypeUrl

SILENT_AFTER_S = 20.0
"""A client that owes an answer this long holds nothing back any more, and is reported."""
Origins = Callable[[View, str, str], tuple[Origin, ...]]
"""Objects and fields behind a resource of a view: (view, type URL, name)."""


Learn = Callable[[Client, tuple[str, ...]], None]


class Standing(StrEnum):
    """How a proxy stands with one resource type (istioctl's words)."""

    SYNCED = "SYNCED"
    STALE = "STALE"
    """Sent, or to be sent, and not acknowledged yet."""
    NOT_SENT = "NOT SENT"
    """It has not asked for this type."""
    NACKED = "NACKED"
    """It refuses something that is still the newest."""


class Status(Struct, frozen=True):
    """One proxy: a pod's connected stream, a pod without one, or a client without a pod."""

    id: str
    stream: int
    """0: not connected."""
    seat: Seat | None
    identity: str
    transport: str
    view: View | None
    connected_at: float
    standings: Mapping[TypeUrl, Standing]
    target: int
    """Version of what it should hold."""
    synced: int
    """Version up to which it has acknowledged; -1: none."""
    refusals: tuple[Refusal, ...]


class Ears:
    """What others want to hear from the fleet; replaced by wiring, silent by default."""

    def joined(self, client: Client) -> None:
        """A stream began."""

    def left(self, client: Client) -> None:
        """A stream is over."""

    def acked(self, client: Client, acked: Acked) -> None:
        """A response was applied."""

    def rejected(self, client: Client, rejected: Rejected) -> None:
        """A response was refused."""

    def sent(self, client: Client, sent: Send) -> None:
        """A response goes out."""

    def converged(self, seconds: float) -> None:
        """One client acknowledged a push after so long."""

    def wants(self, client: Client, names: tuple[str, ...]) -> None:
        """An on-demand proxy asks for names."""

    def asked_for_secrets(self, client: Client) -> None:
        """A client without identity wants secrets."""


class _Wait:
    def __init__(self, clients: Iterable[Client]) -> None:
        self.missing = {client for client in clients if not client.is_synced}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.settle(None)

    def settle(self, client: Client | None) -> None:
        if client is not None:
            self.missing.discard(client)
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class Fleet:
    """Every proxy there is, or should be."""

    def __init__(self, origins: Origins) -> None:
        self.seats: dict[str, Seat] = {}
        self.clients: dict[int, Client] = {}
        self.ears: tuple[Ears, ...] = ()
        self.learn: Learn = _nothing_learned
        """Who gives on-demand proxies what they ask for."""
        self.secretless: set[str] = set()
        """Ids of clients that asked for secrets without an identity."""
        self._of_seat: dict[str, dict[int, Client]] = {}
        self._waits: set[_Wait] = set()
        self._origins = origins

    # --- who is there ------------------------------------------------------------------------------------------------

    def add(self, client: Client) -> None:
        """A stream began."""
        self.clients[client.serial] = client
        if client.seat is not None:
            self._of_seat.setdefault(client.seat.uid, {})[client.serial] = client
        for ear in self.ears:
            ear.joined(client)

    def remove(self, client: Client) -> None:
        """A stream ended: nobody waits for it any more."""
        self.clients.pop(client.serial, None)
        if client.seat is not None:
            streams = self._of_seat.get(client.seat.uid, {})
            streams.pop(client.serial, None)
            if not streams:
                self._of_seat.pop(client.seat.uid, None)
        if client.id in self.secretless and self.find(client.id) is None:
            self.secretless.discard(client.id)
        for wait in tuple(self._waits):
            wait.settle(client)
        for ear in self.ears:
            ear.left(client)

    def of_seat(self, uid: str) -> tuple[Client, ...]:
        """The streams of a pod: two while its sidecar is being replaced."""
        return tuple(self._of_seat.get(uid, {}).values())

    def find(self, name: str) -> Client | None:
        """The newest stream of that id (`pod.namespace`, or `namespace/pod`)."""
        namespace, slash, pod = name.partition("/")
        wanted = f"{pod}.{namespace}" if slash else name
        found = [client for client in self.clients.values() if client.id == wanted]
        return max(found, key=lambda client: client.serial, default=None)

    # --- how they stand ----------------------------------------------------------------------------------------------

    def statuses(self) -> tuple[Status, ...]:
        """Every proxy, sorted by id. O(resources held): for people, not for pushes."""
        found = [self._status(client) for client in self.clients.values()]
        found += [_absent(seat) for uid, seat in self.seats.items() if uid not in self._of_seat]
        return tuple(sorted(found, key=lambda status: (status.id, status.stream)))

    def problems(self) -> tuple[Problem, ...]:
        """Refusals, silent proxies and secrets asked for without identity, as they are now."""
        found = [made for client in self.clients.values() for made in self.refused_by(client)]
        now = monotonic()
        for client in self.clients.values():
            silent = client.silent_for(now)
            if silent > SILENT_AFTER_S:
                types = ", ".join(sorted(short(url) for url in client.conversation.waits_for))
                found.append(problem("TUL0806", NOWHERE, proxy=client.id, types=types, seconds=int(silent)))
        found += [problem("TUL0803", NOWHERE, proxy=name) for name in sorted(self.secretless)]
        return tuple(found)

    def refused_by(self, client: Client) -> tuple[Problem, ...]:
        """What one client refuses, each at the nearest object behind it."""
        return tuple(self.refusal_problem(client, refusal) for refusal in self.refusals_of(client))

    def refusals_of(self, client: Client) -> tuple[Refusal, ...]:
        """Refusals of versions that are still the newest: of others nothing is known to be wrong."""
        rejected = client.conversation.rejected
        return tuple(
            refusal
            for (url, name), refusal in client.refusals.items()
            if rejected.get(url, {}).get(name) == refusal.version  # type: ignore[call-overload]
        )

    def refusal_problem(self, client: Client, refusal: Refusal) -> Problem:
        """A refusal as a problem of the object it comes from."""
        origins = self._origins(client.shown.view, refusal.type_url, refusal.name)
        return problem(
            "TUL0801",
            origins[0] if origins else NOWHERE,
            proxy=client.id,
            type=short(refusal.type_url),
            resource=refusal.name,
            detail=refusal.detail[:500],
        )

    def _status(self, client: Client) -> Status:
        return Status(
            client.id,
            client.serial,
            client.seat,
            str(client.identity) if client.identity else "",
            client.transport,
            client.shown.view,
            client.connected_at,
            _standings(client),
            client.snapshot.version,
            client.conversation.synced_version,
            self.refusals_of(client),
        )

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def settled(self, clients: Iterable[Client], timeout_s: float) -> frozenset[Client]:
        """Wait until all of them hold their newest snapshot or are gone; returns those that did not in time."""
        wait = _Wait(clients)
        self._waits.add(wait)
        try:
            await asyncio.wait((wait.done,), timeout=timeout_s)
        finally:
            self._waits.discard(wait)
        return frozenset(wait.missing)

    def tick(self) -> None:
        """Call now and then: who owes an answer for long holds nothing else back, whose token or certificate has ended goes."""
        now, today = monotonic(), time()
        for client in tuple(self.clients.values()):
            if client.silent_for(now) > SILENT_AFTER_S:
                client.give_up_waiting()
            if client.expires_at is not None and client.expires_at <= today:
                client.end(Ending("UNAUTHENTICATED", "its token or certificate has ended; connect with the new one"))

    # --- what clients say (client.Listener) --------------------------------------------------------------------------

    def acked(self, client: Client, acked: Acked) -> None:
        """Pass on."""
        for ear in self.ears:
            ear.acked(client, acked)

    def rejected(self, client: Client, rejected: Rejected) -> None:
        """Pass on."""
        for ear in self.ears:
            ear.rejected(client, rejected)

    def sent(self, client: Client, sent: Send) -> None:
        """Pass on."""
        for ear in self.ears:
            ear.sent(client, sent)

    def progressed(self, client: Client, seconds: tuple[float, ...]) -> None:
        """Whoever waits for this client looks again."""
        for taken in seconds:
            for ear in self.ears:
                ear.converged(taken)
        if self._waits and client.is_synced:
            for wait in tuple(self._waits):
                wait.settle(client)

    def wants(self, client: Client, names: tuple[str, ...]) -> None:
        """Pass on; who learns comes first."""
        self.learn(client, names)
        for ear in self.ears:
            ear.wants(client, names)

    def asked_for_secrets(self, client: Client) -> None:
        """Remember whom the problem is about."""
        if client.id not in self.secretless:
            self.secretless.add(client.id)
            for ear in self.ears:
                ear.asked_for_secrets(client)


def _nothing_learned(_client: Client, _names: tuple[str, ...]) -> None:
    pass


def short(type_url: str) -> str:
    """`CDS` for Cluster's URL; others by their message's name."""
    try:
        return TypeUrl(type_url).name
    except ValueError:
        return type_url.rpartition(".")[2]


def _absent(seat: Seat) -> Status:
    return Status(seat.id, 0, seat, "", "", None, 0.0, dict.fromkeys(PUSH_ORDER, Standing.NOT_SENT), 0, -1, ())


def _standings(client: Client) -> dict[TypeUrl, Standing]:
    held, rejected = client.conversation.held, client.conversation.rejected
    waiting = client.conversation.waits_for
    found = {}
    for url in PUSH_ORDER:
        if url not in held:
            found[url] = Standing.NOT_SENT
        elif rejected.get(url):
            found[url] = Standing.NACKED
        else:
            shelf = client.snapshot.shelf(url)
            agrees = all(name in shelf and shelf[name].version == version for name, version in held[url].items())
            is_whole = url not in (TypeUrl.CDS, TypeUrl.LDS) or len(held[url]) == len(shelf)
            found[url] = Standing.SYNCED if agrees and is_whole and url not in waiting else Standing.STALE
    return found
