"""When memory that nobody looks at any more is let go: after many edits, after somebody left, and when nothing happens.

    tidying.loaded()        # once, before the first client
    tidying.edited()        # after every edit
    tidying.look()          # every second or so

Knows no reason of its own: what may go is the engine's and serving's, what the system gets back is `allocator`'s.
"""

import gc
from time import monotonic

from tulle.app.allocator import trim
from tulle.engine import Database
from tulle.serve.pushing import Pushing

COLLECT_EVERY = 256
"""Edits between two collections of what nobody looks at any more."""
COLLECT_GROWTH = 1.1
"""An edit or two leave next to nothing behind."""
COLLECT_S = 10.0
"""Least time between collections that nothing but time asks for."""
REST_EVERY = 64
"""Edits after which a rest is worth its work."""
REST_S = 5.0
"""Without an edit: a rest."""


class Tidying:
    """The memory of one control plane."""

    def __init__(self, db: Database, pushing: Pushing) -> None:
        self._db = db
        self._pushing = pushing
        self._uncollected = 0
        self._unrested = 0
        self._kept_nodes = 0
        self._edited_at = self._collected_at = self._rested_at = monotonic()

    def loaded(self) -> None:
        """What was computed before anybody asked waits for those who will."""
        self._kept_nodes = self._db.node_count

    def edited(self) -> None:
        """One more edit was pushed."""
        self._edited_at = monotonic()
        self._unrested += 1
        self._uncollected += 1
        if self._uncollected >= COLLECT_EVERY:
            self._collect()

    def look(self) -> None:
        """Let go of what is worth it now."""
        now = monotonic()
        is_quiet = self._unrested >= REST_EVERY and now > self._edited_at + REST_S
        if is_quiet or (self._pushing.has_left and now > self._rested_at + COLLECT_S):
            self._rest()
        elif self._db.node_count > self._kept_nodes * COLLECT_GROWTH and now > self._collected_at + COLLECT_S:
            self._collect()

    def _rest(self) -> None:
        """Nobody edits, or some left: what many clients would have shared of the last edits and starts is held for nobody."""
        self._unrested = 0
        self._pushing.rest()
        self._collect()
        gc.collect()  # ended streams are cycles, and Python looks for those too rarely here
        trim()
        self._rested_at = monotonic()

    def _collect(self) -> None:
        self._uncollected = 0
        self._db.collect()
        self._collected_at = monotonic()
        self._kept_nodes = self._db.node_count
