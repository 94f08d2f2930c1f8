"""From edits to proxies: after each edit only what it touched is computed, once per view, and told to those who look at it.

Admits clients, moves them between views, and gives each its snapshot: the view's resources and the secrets of its identity.
Knows no files (edits come from outside), no gRPC and no clock but for measuring.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from time import monotonic, time
from typing import Any

from cryptography import x509
from msgspec import Struct

from tulle.compile.endpoints import forget_fragments
from tulle.compile.ondemand import is_known
from tulle.compile.onlookers import is_ordinary
from tulle.compile.scope import NOBODY, label_keys_in_use
from tulle.compile.views import OutboundView, View, view_of, whole_view_of
from tulle.dialects.inputs import settings
from tulle.dialects.kubernetes import workload
from tulle.engine import Database, Root
from tulle.identity.errors import IdentityError
from tulle.identity.spiffe import SpiffeId, spiffe_id
from tulle.model.problems import NOWHERE, Problem, problem
from tulle.serve.ads import CertificateDoor, Guest, NotAdmittedError, PodDoor, TokenDoor
from tulle.serve.client import Client, Ending
from tulle.serve.credentials import Credentials
from tulle.serve.fleet import Fleet
from tulle.serve.learning import MOST_NAMES, Kept, Learning
from tulle.serve.nodes import Claim, claim_of, claimed_view
from tulle.serve.seats import Seat, seats
from tulle.serve.shelves import Shelves, Shown, our_bug
from tulle.serve.vault import Entitled, Vault
from tulle.xds.conversation import Conversation
from tulle.xds.names import TypeUrl
from tulle.xds.snapshot import EMPTY, Comparisons, Snapshot
from tulle.xds.wire import ClientNode

MOST_CLIENTS = 20_000
FULL_EXPECTS = frozenset((TypeUrl.CDS, TypeUrl.LDS))
ON_DEMAND_EXPECTS = frozenset((TypeUrl.CDS, TypeUrl.LDS, TypeUrl.RDS, TypeUrl.VHDS))
"""What an on-demand proxy holds of clusters is in use by virtual hosts that it names later in its first requests."""
_SEATS = "which pods have a proxy"
OnBug = Callable[[Problem, Exception], None]


class Pushed(Struct, frozen=True):
    """What one edit did."""

    version: int
    before: int
    affected: tuple[Client, ...]
    seconds: float
    """Spent computing and queueing."""
    joined: tuple[Seat, ...] = ()
    parted: tuple[Seat, ...] = ()


class Pushing:
    """The loop from edits to streams; also `ads.Lobby` and `credentials.Delivery`."""

    def __init__(
        self,
        db: Database,
        fleet: Fleet,
        vault: Vault,
        credentials: Credentials,
        on_bug: OnBug,
        *,
        cluster: str,
        learning: Learning | None = None,
    ) -> None:
        self.version = 1
        """Grows with every change that reaches somebody."""
        self.fleet = fleet
        self.shelves = Shelves(db)
        self.bugs: dict[str, Problem] = {}
        """Failures of tulle that last, by where."""
        self.has_left = False
        """Streams ended since the last rest: there may be something to forget."""
        self._db = db
        self._vault = vault
        self._credentials = credentials
        self._on_bug = on_bug
        self._comparisons = Comparisons()
        self._serials = count(1)
        self._seats_root = db.root(seats, cluster)
        self._views: dict[Root[Any], Client] = {}
        self._of_client: dict[int, Root[Any]] = {}
        self.learning = learning or Learning()
        self._learners: dict[str, dict[int, Client]] = {}
        self._untaught: set[str] = set()
        """Whose newest names could not be computed."""
        fleet.learn = self._learn

    # --- edits -------------------------------------------------------------------------------------------------------

    def warm(self, cluster: str, *, is_on_demand: bool) -> None:
        """Compute what all ordinary clients share, before the first of them waits for it."""
        view = OutboundView(cluster, NOBODY, is_on_demand=is_on_demand)
        with suppress(Exception):  # whoever asks for it meets the error
            is_ordinary(self._db, view)
            label_keys_in_use(self._db, cluster)
        shown = self.shelves.show(View(view), self.version)
        self._note(shown)
        self.shelves.leave(shown)

    def after_edit(self, *, secrets_changed: bool = False) -> Pushed:
        """Compute what the last edits touched and tell whoever it concerns. One call per edit; never raises for users' input."""
        started, before = monotonic(), self.version
        dirty = self._db.take_dirty_roots()
        version = before + 1
        joined, parted = self._seated()
        affected: dict[int, Client] = {}
        for client in self._moved(dirty, version):
            affected[client.serial] = client
        refreshed = {shown for root in dirty if (shown := self.shelves.of_root(root)) is not None}
        changed = {shown for shown in refreshed if self._refreshed(shown, version)}
        for who in tuple(self._untaught):
            affected.update((client.serial, client) for client in self._retaught(who, version))
        for client in self.fleet.clients.values():
            if client.shown in changed or (secrets_changed and client.entitled is not None):
                affected[client.serial] = client
        told = self._tell(affected.values(), version)
        for client in told:
            client.changed_at = version
        return Pushed(self.version, before, told, monotonic() - started, joined, parted)

    def push_secrets(self, holders: Iterable[str] | None) -> None:
        """Leafs or the bundle changed."""
        if holders is None:
            clients: list[Client] = [client for client in self.fleet.clients.values() if client.entitled is not None]
        else:
            clients = [client for holder in holders for client in self.fleet.of_seat(holder)]
        self._tell(clients, self.version + 1)

    def rest(self) -> None:
        """Let go of what was kept for the next client in the state of the last one; call it when nothing happens."""
        self._comparisons.forget()
        forget_fragments()
        self.has_left = False

    def _tell(self, clients: Iterable[Client], version: int) -> tuple[Client, ...]:
        fresh = []
        for client in clients:
            snapshot = self._snapshot(client.shown, client.entitled, version, client.snapshot)
            if snapshot is not client.snapshot:
                fresh.append((client, snapshot))
        if fresh:
            self.version = version
        for client, snapshot in fresh:
            client.show(snapshot)
        return tuple(client for client, _ in fresh)

    def _snapshot(self, shown: Shown, who: Entitled | None, version: int, last: Snapshot | None) -> Snapshot:
        """What a client should hold now; `last` itself where that is the same."""
        assert shown.types is not None
        secrets = self._vault.shelf(who, shown.secrets, granted=shown.secrets) if who is not None else EMPTY
        if last is not None:
            held = last.shelf(TypeUrl.SDS)
            if secrets == held:
                secrets = held
            if secrets is held and all(last.shelf(url) is shelf for url, shelf in shown.types.items()):
                return last
        return Snapshot(version, {**shown.types, TypeUrl.SDS: secrets})

    def _seated(self) -> tuple[tuple[Seat, ...], tuple[Seat, ...]]:
        """Bring the seats up to date; who joined, who parted. A seat that changed did both."""
        if not self._seats_root.is_dirty:
            return (), ()
        try:
            now = {seat.uid: seat for seat in self._seats_root.value()}
        except Exception as error:  # noqa: BLE001 - those who have a seat are served on
            self._bug(_SEATS, our_bug(_SEATS, error), error)
            return (), ()
        self.bugs.pop(_SEATS, None)
        parted = tuple(seat for uid, seat in self.fleet.seats.items() if now.get(uid) != seat)
        joined = tuple(seat for uid, seat in now.items() if self.fleet.seats.get(uid) != seat)
        self.fleet.seats = now
        for seat in parted:
            for client in self.fleet.of_seat(seat.uid):
                client.end(Ending("UNAVAILABLE", "the workload is gone"))
            self._credentials.gone(seat.uid)
        return joined, parted

    def _moved(self, dirty: tuple[Root[Any], ...], version: int) -> list[Client]:
        """Clients whose pod's view is another one now, already looking at it."""
        found = []
        for root in dirty:
            client = self._views.get(root)
            if client is None:
                continue
            view = self._view_now(client, root)
            if view is None or view == client.shown.view:
                continue
            if self._turn(client, view, version):
                found.append(client)
        return found

    def _turn(self, client: Client, view: View, version: int) -> bool:
        """Let a client look at a view, with the names of its workload; whether that is good to look at."""
        shown = self.shelves.show(view, version, self.learning.names(client.learns_as))
        self._note(shown)
        if shown.types is None:
            self.shelves.leave(shown)  # what it has is better than nothing
            return False
        self.shelves.leave(client.shown)
        client.shown = shown
        return True

    # --- on-demand proxies -------------------------------------------------------------------------------------------

    def _learn(self, client: Client, names: tuple[str, ...]) -> None:
        """What a proxy asks for its workload is known to call from now on; every proxy of the workload gets it."""
        who, view = client.learns_as, client.shown.view.outbound
        is_new = self.learning.learn(
            who,
            names,
            lambda name: is_known(self._db, view, name),
            now=time(),
            held=lambda: self._held_by(who),
            lasts=client.identity is not None,
        )
        if is_new:
            self._taught(who)

    def adopt(self, kept: Kept) -> None:
        """What other replicas say that workloads call: as if their proxies had asked here."""
        for who in self.learning.adopt(kept):
            if who in self._learners:
                self._taught(who)

    def crowded(self) -> tuple[Problem, ...]:
        """Workloads that are connected and ask for more than they are given."""
        found = sorted(who for who in self.learning.crowded if who in self._learners)
        return tuple(problem("TUL0808", NOWHERE, workload=who) for who in found)

    def forget_old(self) -> None:
        """Drop what nobody has asked for in a long time, and give its room to what found none. Call it now and then."""
        for who in self.learning.forget_old(time(), self._held_by):
            self._taught(who)
        for who in tuple(self.learning.crowded):
            self._learn_left_over(who)

    def _learn_left_over(self, who: str) -> None:
        """What proxies wait for that there was no room for. A scan is not tried again: it is more than a workload may know."""
        self.learning.crowded.discard(who)
        learners = self._learners.get(who, {})
        left_over = self._held_by(who) - self.learning.names(who)
        if left_over and len(left_over) <= MOST_NAMES:
            self._learn(next(iter(learners.values())), tuple(sorted(left_over)))
        elif left_over:
            self.learning.crowded.add(who)

    def _taught(self, who: str) -> None:
        version = self.version + 1
        self._tell(self._retaught(who, version), version)
        self.has_left = True  # the sets before this one are of no use any more

    def _retaught(self, who: str, version: int) -> list[Client]:
        """The proxies of a workload that now look at everything it is known to call; all of them unless it fails to compute."""
        clients = [client for client in self._learners.get(who, {}).values() if client.shown.view.outbound.is_on_demand]
        turned = [client for client in clients if self._turn(client, client.shown.view, version)]
        if len(turned) == len(clients):
            self._untaught.discard(who)
        else:
            self._untaught.add(who)
        return turned

    def _held_by(self, who: str) -> frozenset[str]:
        return frozenset(name for client in self._learners.get(who, {}).values() for name in client.asked_names())

    def _view_now(self, client: Client, root: Root[Any]) -> View | None:
        where = f"the view of {client.id}"
        try:
            view: View | None = root.value()
        except Exception as error:  # noqa: BLE001 - one proxy's defect must not take the others down
            self._bug(where, our_bug(where, error), error)
            return None
        self.bugs.pop(where, None)
        return view

    def _refreshed(self, shown: Shown, version: int) -> bool:
        if shown.viewers == 0:
            return False
        is_new = shown.refresh()
        if is_new:
            shown.version = version
        self._note(shown)
        return is_new

    def _note(self, shown: Shown) -> None:
        where = repr(hash(shown.view))
        if shown.bug is None:
            self.bugs.pop(where, None)
        else:
            self._bug(where, *shown.bug)

    def _bug(self, where: str, found: Problem, error: Exception) -> None:
        if self.bugs.get(where) != found:
            self._on_bug(found, error)
        self.bugs[where] = found

    # --- streams (ads.Lobby) -----------------------------------------------------------------------------------------

    def admit(self, guest: Guest, node: ClientNode | None) -> Client:
        """A client for a new stream. Raises NotAdmittedError: unknown pod, wrong certificate, nothing good to show."""
        if len(self.fleet.clients) >= MOST_CLIENTS:
            raise NotAdmittedError(Ending("RESOURCE_EXHAUSTED", f"more than {MOST_CLIENTS} streams"))
        claim = claim_of(node, can_ask=guest.can_ask)
        seat = self._seat(guest, claim)
        return self._admitted(guest, claim, seat) if seat else self._welcomed(claim)

    def left(self, client: Client) -> None:
        """Its stream is over."""
        self.has_left = True
        self.fleet.remove(client)
        learners = self._learners.get(client.learns_as, {})
        learners.pop(client.serial, None)
        if not learners:
            self._learners.pop(client.learns_as, None)
            if client.identity is None:
                self.learning.forget(client.learns_as)
        root = self._of_client.pop(client.serial, None)
        if root is not None:
            del self._views[root]
            root.close()
        self.shelves.leave(client.shown)

    def _seat(self, guest: Guest, claim: Claim) -> Seat | None:
        match guest.door:
            case PodDoor(uid):
                seat = self.fleet.seats.get(uid)
                if seat is None:
                    raise _not_admitted("NOT_FOUND", "TUL0807", peer=guest.peer)
                return seat
            case CertificateDoor():
                return self._certified(guest, claim)
            case TokenDoor():
                return self._of_token(guest)
            case _:
                return None

    def _of_token(self, guest: Guest) -> Seat:
        """The pod the token is bound to, if our own watch knows it as the token does. A pod may be newer than our watch."""
        proven = guest.proven
        seat = self.fleet.seats.get(proven.uid) if proven is not None else None
        if proven is None or seat is None:
            raise _not_admitted(
                "NOT_FOUND", "TUL0807", peer=f"{proven.pod}.{proven.namespace}" if proven else guest.peer
            )
        known = (seat.workload.name, seat.workload.namespace, seat.service_account)
        if known != (proven.pod, proven.namespace, proven.service_account):
            peer = f"{proven.pod}.{proven.namespace}, service account {proven.service_account},"
            raise _not_admitted("PERMISSION_DENIED", "TUL0804", peer=peer, claimed=seat.id)
        return seat

    def _certified(self, guest: Guest, claim: Claim) -> Seat:
        """The pod the node id names, if the certificate is of its namespace and service account."""
        said = f"{claim.name}.{claim.namespace}"
        domain = settings_now(self._db).trust_domain
        for uri in guest.uris:
            try:
                identity = SpiffeId.parse(uri)
            except IdentityError:
                continue
            for seat in self.fleet.seats.values():
                proven = (seat.workload.namespace, seat.service_account) == (
                    identity.namespace,
                    identity.service_account,
                )
                if proven and identity.trust_domain == domain and seat.id == said:
                    return seat
        peer = ", ".join(guest.uris) or guest.peer
        raise _not_admitted("PERMISSION_DENIED", "TUL0804", peer=peer, claimed=said)

    def _admitted(self, guest: Guest, claim: Claim, seat: Seat) -> Client:
        identity = spiffe_id(settings_now(self._db).trust_domain, seat.workload.namespace, seat.service_account)
        root = self._db.root(view_of if guest.can_ask else whole_view_of, seat.workload)
        learns_as = f"{identity} {self._owner_of(seat)}"
        shown = self._looked_at(root, seat.id, learns_as)
        self._credentials.want(seat.uid, identity)
        who = Entitled(seat.uid, seat.workload.namespace, seat.is_gateway)
        transport = "unix" if isinstance(guest.door, PodDoor) else "tls"
        client = self._client(claim, shown, transport, learns_as, seat=seat, identity=identity, who=who)
        client.expires_at = expires_at(guest.certificate) if guest.certificate else None
        if guest.proven is not None:
            client.expires_at = guest.proven.expires_at
        self._views[root] = client
        self._of_client[client.serial] = root
        self.fleet.add(client)
        return client

    def _owner_of(self, seat: Seat) -> str:
        found = workload(self._db, seat.workload)
        return found.owner if found else seat.workload.name

    def _looked_at(self, root: Root[Any], name: str, learns_as: str) -> Shown:
        """The view of a new client, on show; raises NotAdmittedError where there is nothing good."""
        try:
            view = root.value()
            if view is None:
                raise _not_admitted("NOT_FOUND", "TUL0807", peer=name)
            shown = self.shelves.show(view, self.version, self.learning.names(learns_as))
        except NotAdmittedError:
            root.close()
            raise
        except Exception as error:
            root.close()
            self._bug(f"the view of {name}", our_bug(f"the view of {name}", error), error)
            raise NotAdmittedError(Ending("UNAVAILABLE", "its configuration could not be computed")) from error
        return self._only_good(shown, root)

    def _only_good(self, shown: Shown, root: Root[Any] | None) -> Shown:
        self._note(shown)
        if shown.types is None:  # an empty answer would take a running proxy's configuration away
            self.shelves.leave(shown)
            if root is not None:
                root.close()
            raise NotAdmittedError(Ending("UNAVAILABLE", "its configuration could not be computed"))
        return shown

    def _welcomed(self, claim: Claim) -> Client:
        """A client without identity: configuration by its word, secrets never."""
        view = claimed_view(self._db, claim)
        who = f"claimed {claim.namespace}/{claim.name}" if claim.name else f"stream {next(self._serials)}"
        shown = self._only_good(self.shelves.show(view, self.version, self.learning.names(who)), None)
        client = self._client(claim, shown, "plaintext", who, seat=None, identity=None, who=None)
        root = self._db.root(claimed_view, claim)
        root.value()
        self._views[root] = client
        self._of_client[client.serial] = root
        self.fleet.add(client)
        return client

    def _client(
        self,
        claim: Claim,
        shown: Shown,
        transport: str,
        learns_as: str,
        *,
        seat: Seat | None,
        identity: SpiffeId | None,
        who: Entitled | None,
    ) -> Client:
        snapshot = self._snapshot(shown, who, self.version, None)
        expects = ON_DEMAND_EXPECTS if shown.view.outbound.is_on_demand else FULL_EXPECTS
        conversation = (
            Conversation(snapshot, secrets=self._vault.reader(who), comparisons=self._comparisons, expects=expects)
            if who is not None
            else Conversation(snapshot, comparisons=self._comparisons, expects=expects)
        )
        client = Client(
            next(self._serials),
            conversation,
            self.fleet,
            transport=transport,
            claim=claim,
            seat=seat,
            identity=identity,
            entitled=who,
            learns_as=learns_as,
            shown=shown,
            snapshot=snapshot,
        )
        self._learners.setdefault(learns_as, {})[client.serial] = client
        return client


def settings_now(db: Database) -> Any:
    """The mesh's settings, outside of any query."""
    return settings(db)


def _not_admitted(status: str, code: str, **arguments: object) -> NotAdmittedError:
    found = problem(code, NOWHERE, **arguments)
    return NotAdmittedError(Ending(status, f"{found.code} {found.text}"))


def expires_at(certificate_pem: bytes) -> float:
    """When a client certificate ends, Unix seconds; now for one that cannot be read."""
    try:
        return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc.timestamp()
    except ValueError:
        return time()
