"""What an apply came to: who was concerned, who has it, who refused what and why. Also every problem, with its place.

Reading and pushing are done before; this waits and tells.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic, time

from tulle.app.world import UNKNOWN, World
from tulle.dialects.analysis import problems_of
from tulle.dialects.inputs import objects
from tulle.engine import Database
from tulle.model.problems import Problem
from tulle.serve import wire
from tulle.serve.client import Client
from tulle.serve.pushing import Pushed, Pushing
from tulle.serve.shelves import our_bug
from tulle.serve.showing import Showing, problem

REMEMBERED_S = 5.0
"""The watcher may have read a file before the apply that names it: so long its change still counts as the apply's."""
_LOOK_AGAIN_S = 0.02


class Applying:
    """Waiting for the fleet, and telling."""

    def __init__(self, db: Database, world: World, pushing: Pushing, showing: Showing) -> None:
        self._db = db
        self._world = world
        self._pushing = pushing
        self._showing = showing
        self._touched: dict[Path, tuple[int, float]] = {}

    def touched(self, paths: Iterable[Path], before: int) -> None:
        """These files changed; `before` is the version until then."""
        now = monotonic()
        self._touched = {path: one for path, one in self._touched.items() if one[1] > now - REMEMBERED_S}
        for path in paths:
            version, _ = self._touched.get(path, (before, now))
            self._touched[path] = (min(version, before), now)

    async def applied(
        self, paths: Sequence[Path], pushed: Pushed, started: float, timeout_s: float, since_revision: int | None = None
    ) -> wire.Applied:
        """Wait for everybody whom the change of these files concerns.

        Without `since_revision` what the watcher read just before counts too, if it was of these files.
        """
        fleet = self._pushing.fleet
        early = [self._touched.pop(path)[0] for path in (*paths, UNKNOWN) if path in self._touched]
        before = min([pushed.before, *early] if since_revision is None else [pushed.before, since_revision])
        since = time() - (monotonic() - started) - (REMEMBERED_S if before < pushed.before else 0.0)
        changed = (client for client in fleet.clients.values() if client.changed_at > before)
        concerned = sorted(changed, key=lambda client: (client.id, client.serial))
        late = await fleet.settled(concerned, max(0.0, timeout_s - (monotonic() - started)))
        refused = [made for client in concerned for made in self._showing.refused(client, since)]
        refusing = {made.proxy for made in refused}
        live = [client for client in concerned if client not in late and client.id not in refusing]
        connected = {client.seat.uid for client in fleet.clients.values() if client.seat}
        return wire.Applied(
            revision=self._pushing.version,
            milliseconds=round((monotonic() - started) * 1000),
            affected=len(concerned),
            live=len(live),
            refused=tuple(refused),
            waiting=tuple(sorted(client.id for client in late)),
            problems=self.problems({str(path) for path in paths} if paths else None),
            disconnected=tuple(sorted(seat.id for uid, seat in fleet.seats.items() if uid not in connected)),
        )

    async def settled(self, started: float, timeout_s: float, *, all_pods: bool) -> wire.Settled:
        """Wait until every connected proxy (or every pod's) holds everything."""
        fleet, end = self._pushing.fleet, started + timeout_s
        absent = self._absent() if all_pods else ()
        while absent and monotonic() < end:
            await asyncio.sleep(_LOOK_AGAIN_S)
            absent = self._absent()
        clients: list[Client] = list(fleet.clients.values())
        late = await fleet.settled(clients, max(0.0, end - monotonic()))
        return wire.Settled(
            revision=self._pushing.version,
            milliseconds=round((monotonic() - started) * 1000),
            proxies=len(clients),
            waiting=tuple(sorted({client.id for client in late} | set(absent))),
        )

    def problems(self, files: set[str] | None = None) -> tuple[wire.Problem, ...]:
        """Every problem; or those of texts and objects in some files."""
        found = [
            problem(one.problem, one.place)
            for one in self._world.reported
            if files is None or str(Path(one.place.file).resolve()) in files
        ]
        for made in self._of_objects():
            place = self._world.locate(made.origin)
            if files is None or (place is not None and str(Path(place.file).resolve()) in files):
                found.append(problem(made, place))
        if files is None:
            others = (*self._pushing.fleet.problems(), *self._pushing.crowded(), *self._pushing.bugs.values())
            found += [problem(made, self._world.locate(made.origin)) for made in others]
        return tuple(found)

    def _of_objects(self) -> Iterable[Problem]:
        for key in sorted(objects.snapshot(self._db)):
            try:
                yield from problems_of(self._db, key)
            except Exception as error:  # noqa: BLE001 - one object's analysis must not hide the others'
                yield our_bug(f"what is wrong with {key}", error)

    def _absent(self) -> tuple[str, ...]:
        fleet = self._pushing.fleet
        return tuple(seat.id for uid, seat in fleet.seats.items() if not fleet.of_seat(uid))
