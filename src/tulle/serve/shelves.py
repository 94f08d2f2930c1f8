"""Views that somebody looks at, each computed once: its resources, their version, and the last good ones after a failure.

Knows the engine's roots, not who looks: streams are `fleet.py`'s. One `Shown` per distinct view, counted by its viewers; of
on-demand views one per set of names, too.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from tulle.compile import gateways
from tulle.compile.ondemand import Names, resources_held
from tulle.compile.views import View
from tulle.engine import Database, Root, query
from tulle.model.origin import Origin
from tulle.model.problems import NOWHERE, Problem, problem
from tulle.xds.names import TypeUrl

NO_NAMES: Names = frozenset()
_ALIKE_KEPT = 128
Types = Mapping[TypeUrl, Mapping[Any, Any]]


@query
def secret_names(db: Database, view: View) -> tuple[str, ...]:
    """Names of the Secret objects a view's listeners refer to; sidecars have none."""
    return gateways.gateway_secrets(db, view.gateway) if view.gateway else ()


def our_bug(what: object, error: Exception, origin: Origin = NOWHERE) -> Problem:
    """A failure of tulle itself, as a problem."""
    return problem("TUL0802", origin, what=what, error=f"{type(error).__name__}: {error}"[:500])


class Shown:
    """One view on show."""

    __slots__ = (
        "_alike",
        "_computed",
        "_resources",
        "_secrets",
        "bug",
        "names",
        "secrets",
        "types",
        "version",
        "view",
        "viewers",
    )

    def __init__(self, db: Database, view: View, names: Names, alike: "Alike") -> None:
        self.view = view
        self.names = names
        """What is known to be called; empty unless the view is on demand."""
        self._alike = alike
        self._computed: Types | None = None
        self.viewers = 0
        self.types: Types | None = None
        """None: it never could be computed, and nobody may be told that it is empty."""
        self.secrets: tuple[str, ...] = ()
        self.version = 0
        """The fleet's version at which it last changed."""
        self.bug: tuple[Problem, Exception] | None = None
        self._resources = db.root(resources_held, view, names)
        self._secrets = db.root(secret_names, view)

    def refresh(self) -> bool:
        """Ask again; whether anything changed. A failure keeps what was good and is left in `bug`."""
        try:
            computed, secrets = self._resources.value(), self._secrets.value()
        except Exception as error:  # noqa: BLE001 - one view's defect must not take the others down
            self.bug = (our_bug(f"the configuration of {named(self.view)}", error), error)
            return False
        self.bug = None
        if computed is self._computed and secrets == self.secrets:
            return False
        self._computed = computed
        types = {url: self._alike.one_of_equals(shelf) for url, shelf in computed.items()}
        is_new = self.types is None or types != self.types or secrets != self.secrets
        self.types, self.secrets = types, secrets
        return is_new

    def close(self) -> None:
        """Nobody looks any more."""
        self._resources.close()
        self._secrets.close()

    @property
    def roots(self) -> tuple[Root[Any], ...]:
        """What makes it dirty."""
        return (self._resources, self._secrets)


class Alike:
    """One mapping for all equal ones: views that hold the same are compared, drafted and packed once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[frozenset[int], Mapping[Any, Any]] = OrderedDict()

    def one_of_equals(self, shelf: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """The mapping that stands for those of the same entries (the same objects)."""
        entries = frozenset(map(id, shelf.values()))
        kept = self._kept.setdefault(entries, shelf)  # it holds the entries, so their ids stay theirs
        self._kept.move_to_end(entries)
        if len(self._kept) > _ALIKE_KEPT:
            self._kept.popitem(last=False)
        return kept


class Shelves:
    """All views on show."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._alike = Alike()
        self._shown: dict[tuple[View, Names], Shown] = {}
        self._by_root: dict[Root[Any], Shown] = {}

    def __len__(self) -> int:
        return len(self._shown)

    def all(self) -> tuple[Shown, ...]:
        """Every view on show."""
        return tuple(self._shown.values())

    def show(self, view: View, version: int, names: Names = NO_NAMES) -> Shown:
        """Start to look at a view; pair with `leave`. Computes it where nobody looked before."""
        names = names if view.outbound.is_on_demand else NO_NAMES
        shown = self._shown.get((view, names))
        if shown is None:
            shown = self._shown[view, names] = Shown(self._db, view, names, self._alike)
            self._by_root.update(dict.fromkeys(shown.roots, shown))
            shown.refresh()
            shown.version = version
        elif shown.types is None:
            shown.refresh()
        shown.viewers += 1
        return shown

    def leave(self, shown: Shown) -> None:
        """Stop looking."""
        shown.viewers -= 1
        if shown.viewers == 0:
            for root in shown.roots:
                del self._by_root[root]
            shown.close()
            del self._shown[shown.view, shown.names]

    def of_root(self, root: Root[Any]) -> Shown | None:
        """The view a dirty root belongs to."""
        return self._by_root.get(root)


def named(view: View) -> str:
    """A view as people call it."""
    role = "gateways" if view.gateway else "sidecars"
    return f"{role} of {view.outbound.namespace}"
