"""What each workload is known to call, for on-demand sidecars: learned from what is asked, given first to the next proxy. Pure.

    learning.learn(who, names, is_known, now=..., held=...)     # a proxy of `who` asked, or says it holds these
    learning.names(who)                                         # what every proxy of `who` is pushed

A name stays for as long as a connected proxy has asked for it (Envoy takes no "it is gone" for an answer), and then until it
is old or the room is needed. What a name stands for, and whether it may be seen, is `compile`'s; keeping it is `learned`'s.
"""

from collections.abc import Callable, Iterable, Mapping

from tulle.compile.keyed import parse

MOST_NAMES = 2_000
"""Of one workload. Who calls more is served everything (`discovery: full`)."""
MOST_UNKNOWN = 256
"""Of these, addresses at which there is nothing: what a scan may use up."""
KEPT_S = 14 * 24 * 3600.0
"""How long a name is given to new proxies without having been asked for."""

_PROVEN = "spiffe://"
"""Begins the name of a workload with an identity."""

Kept = Mapping[str, Mapping[str, float]]
"""Workload -> name -> when it was last asked for, Unix seconds."""


def sound(kept: Kept, now: float) -> Kept:
    """What of a memory that was written down may be used: names that proxies ask for, of proven workloads, not too many.

    Whoever wrote it may have been of another release, or damaged it.
    """
    found = {}
    for who, names in kept.items():
        times = {name: min(at, now) for name, at in names.items() if parse(name)}
        newest = sorted(times, key=lambda name: times[name], reverse=True)[:MOST_NAMES]
        if newest and who.startswith(_PROVEN):
            found[who] = {name: times[name] for name in newest}
    return found


class Learning:
    """Names by workload. Reading costs nothing; every change is a new set."""

    def __init__(self, kept: Kept | None = None) -> None:
        self._seen: dict[str, dict[str, float]] = {who: dict(names) for who, names in (kept or {}).items()}
        self._sets: dict[str, frozenset[str]] = {who: frozenset(names) for who, names in self._seen.items()}
        self._unknown: dict[str, dict[str, None]] = {}
        """Names that stood for nothing when they were learned."""
        self._judged_at: dict[str, float] = {}
        """When these were last looked at again: once a second, however many more are asked for."""
        self._passing: set[str] = set()
        """Workloads that nobody proved to be: served, never written down."""
        self.is_changed = False
        """Something is not written down yet; whoever writes it puts this back."""
        self.crowded: set[str] = set()
        """Workloads that asked for more names than there is room for, since somebody put this back."""

    def __len__(self) -> int:
        return len(self._seen)

    def names(self, who: str) -> frozenset[str]:
        """What a workload is known to call."""
        return self._sets.get(who, frozenset())

    def kept(self) -> Kept:
        """Everything, as it is to be written down."""
        return {who: dict(names) for who, names in sorted(self._seen.items()) if names and who not in self._passing}

    def learn(
        self,
        who: str,
        names: Iterable[str],
        is_known: Callable[[str], bool],
        *,
        now: float,
        held: Callable[[], frozenset[str]],
        lasts: bool = True,
    ) -> bool:
        """Take names in; whether the set is another one now. `held` are those that proxies of `who` wait for or have asked for.

        Unless it `lasts`, it is forgotten with the last proxy of `who`.
        """
        if not lasts:
            self._passing.add(who)
        seen = self._seen.setdefault(who, {})
        before = len(seen)
        fresh = [name for name in names if name not in seen]
        for name in names:
            if name in seen:
                self.is_changed |= lasts and now > seen[name] + 1.0
                seen[name] = now
        asked_for = None
        for name in fresh:
            is_unknown = not is_known(name)
            if is_unknown and not self._has_room_for_unknown(who, seen, is_known, now):
                self.crowded.add(who)
                continue
            if len(seen) >= MOST_NAMES:
                asked_for = held() if asked_for is None else asked_for
                if not self._make_room(seen, asked_for):
                    self.crowded.add(who)
                    continue
            seen[name] = now
            if is_unknown:
                self._unknown.setdefault(who, {})[name] = None
        if not seen:
            del self._seen[who]
        return self._settle(who) if len(seen) != before or fresh else False

    def adopt(self, kept: Kept) -> tuple[str, ...]:
        """Take in what another replica wrote down, as `sound` leaves it; whose sets are larger now. It need not be written again."""
        changed = []
        is_changed = self.is_changed
        for who, names in kept.items():
            seen = self._seen.setdefault(who, {})
            newest = sorted(names, key=lambda name: names[name], reverse=True)
            for name in newest:
                if name in seen:
                    seen[name] = max(seen[name], names[name])
                elif len(seen) < MOST_NAMES:
                    seen[name] = names[name]
            if not seen:
                del self._seen[who]
            if self._settle(who):
                changed.append(who)
        self.is_changed = is_changed
        return tuple(changed)

    def forget_old(self, now: float, held: Callable[[str], frozenset[str]]) -> tuple[str, ...]:
        """Drop what nobody has asked for in KEPT_S and no proxy holds; whose sets became smaller."""
        changed = []
        for who in tuple(self._seen):
            seen = self._seen[who]
            old = [name for name, at in seen.items() if at < now - KEPT_S]
            if not old:
                continue
            in_use = held(who)
            for name in old:
                if name in in_use:
                    seen[name] = now
                else:
                    del seen[name]
            self.is_changed = True
            if not seen:
                del self._seen[who]
            if self._settle(who):
                changed.append(who)
        return tuple(changed)

    def forget(self, who: str) -> None:
        """Drop a workload that nobody can prove to be."""
        self._seen.pop(who, None)
        self._sets.pop(who, None)
        self._unknown.pop(who, None)
        self._judged_at.pop(who, None)
        self._passing.discard(who)
        self.crowded.discard(who)

    def _has_room_for_unknown(
        self, who: str, seen: Mapping[str, float], is_known: Callable[[str], bool], now: float
    ) -> bool:
        unknown = self._unknown.get(who, {})
        if len(unknown) >= MOST_UNKNOWN and now >= self._judged_at.get(who, 0.0) + 1.0:
            self._judged_at[who] = now
            unknown = {name: None for name in unknown if name in seen and not is_known(name)}
            self._unknown[who] = unknown
        return len(unknown) < MOST_UNKNOWN

    def _make_room(self, seen: dict[str, float], held: frozenset[str]) -> bool:
        oldest = min((name for name in seen if name not in held), key=lambda name: seen[name], default=None)
        if oldest is None:
            return False
        del seen[oldest]
        return True

    def _settle(self, who: str) -> bool:
        now = frozenset(self._seen.get(who, ()))
        if now == self.names(who):
            return False
        self.is_changed |= who not in self._passing
        if now:
            self._sets[who] = now
        else:
            self._sets.pop(who, None)
        return True
