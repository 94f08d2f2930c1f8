"""The words of a pod's life: what it is, what happens to it, what is to be done. `supervision` turns one into the other.

Types only. Events and actions come in pairs: each action says which events answer it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from msgspec import Struct

SIDECAR: Final = "istio-proxy"
"""Name of the sidecar among the containers of a pod."""

ProbeKind = Literal["startup", "readiness", "liveness"]
Restart = Literal["Always", "OnFailure", "Never"]


class Limits(Struct, frozen=True):
    """Of one probe, what decides."""

    success_threshold: int = 1
    failure_threshold: int = 3
    budget: float = 0.0
    """Startup probes: seconds from the start until the container is given up."""


class Rules(Struct, frozen=True):
    """One container of a pod."""

    name: str
    restart: Restart
    is_init: bool = False
    startup: Limits | None = None
    readiness: Limits | None = None
    liveness: Limits | None = None
    has_pre_stop: bool = False

    @property
    def is_companion(self) -> bool:
        """An init container that goes on (a native sidecar)."""
        return self.is_init and self.restart == "Always"


class Plan(Struct, frozen=True):
    """What the machine must know of a pod."""

    containers: tuple[Rules, ...]
    """Init containers first, in order."""
    has_proxy: bool
    grace: float = 30.0


class Run(StrEnum):
    """What a container does."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    """Asked to end; will be started again unless the pod terminates."""
    BACKOFF = "backoff"
    ENDED = "ended"


class Container(Struct, frozen=True):
    """One container as it is."""

    run: Run = Run.WAITING
    is_started: bool = False
    """Its startup probe, if it has one, succeeded."""
    is_ready: bool = False
    restarts: int = 0
    streak: int = 0
    """Failures since it last ran steadily."""
    since: float = 0.0
    """When it entered RUNNING or STOPPING."""
    again_at: float = 0.0
    code: int | None = None
    """How it ended last; negative: by that signal."""
    reason: str = ""
    good: int = 0
    bad: int = 0
    """Readiness results in a row."""
    sick: int = 0
    """Liveness failures in a row."""


class Stage(StrEnum):
    """Where a pod is in its life."""

    NEW = "New"
    PENDING = "Pending"
    INITIALIZING = "Init"
    RUNNING = "Running"
    SETTLING = "Terminating (settling)"
    STOPPING = "Terminating"
    DRAINING = "Terminating (draining)"
    LEAVING = "Terminating (leaving)"
    FINISHING = "Finishing"
    ENDED = "Ended"
    GONE = "Gone"


_TERMINATING: Final = frozenset({Stage.SETTLING, Stage.STOPPING, Stage.DRAINING, Stage.LEAVING, Stage.GONE})


class Pod(Struct, frozen=True):
    """One pod as it is."""

    stage: Stage = Stage.NEW
    containers: tuple[Container, ...] = ()
    proxy: Container = Container()
    is_failed: bool = False
    deadline: float | None = None
    reason: str = ""

    @property
    def is_terminating(self) -> bool:
        """Whether it has been deleted."""
        return self.stage in _TERMINATING


class Begin(Struct, frozen=True):
    """The pod shall be."""


class Networked(Struct, frozen=True):
    """Its network is there."""


class Refused(Struct, frozen=True):
    """A container could not be started; empty name: the pod's network."""

    name: str
    reason: str


class Started(Struct, frozen=True):
    """A container's program runs."""

    name: str


class Live(Struct, frozen=True):
    """The sidecar has its configuration."""


class Exited(Struct, frozen=True):
    """A container ended; a negative code is a signal."""

    name: str
    code: int


class Probed(Struct, frozen=True):
    """A probe came back."""

    name: str
    kind: ProbeKind
    is_well: bool
    words: str = ""


class Delete(Struct, frozen=True):
    """The pod shall not be any more."""


class Settled(Struct, frozen=True):
    """No proxy sends to it any more, or patience ended."""


class PreStopped(Struct, frozen=True):
    """A container's hook is done."""

    name: str


class Drained(Struct, frozen=True):
    """The sidecar has nothing left to do, or patience ended."""


class Tick(Struct, frozen=True):
    """Time passed."""


Event = Begin | Networked | Refused | Started | Live | Exited | Probed | Delete | Settled | PreStopped | Drained | Tick


class MakeNetwork(Struct, frozen=True):
    """Make the pod's network namespace; answer `Networked` or `Refused`."""


class Start(Struct, frozen=True):
    """Start a container; answer `Started` or `Refused`, for the sidecar `Live` later."""

    name: str


class Watch(Struct, frozen=True):
    """Begin to probe a container; answers are `Probed`."""

    name: str
    kinds: tuple[ProbeKind, ...]


class Unwatch(Struct, frozen=True):
    """Stop probing a container."""

    name: str


class Signal(Struct, frozen=True):
    """Send a signal to a container."""

    name: str
    number: int


class Settle(Struct, frozen=True):
    """Wait until no proxy sends to the pod; answer `Settled`."""


class PreStop(Struct, frozen=True):
    """Run a container's hook; answer `PreStopped`."""

    name: str


class CloseListeners(Struct, frozen=True):
    """Let the sidecar tell its peers to go, while it still serves."""


class Drain(Struct, frozen=True):
    """Wait until the sidecar is idle; answer `Drained`."""


class Leave(Struct, frozen=True):
    """Take the pod's network away; nothing runs in it any more."""


Action = MakeNetwork | Start | Watch | Unwatch | Signal | Settle | PreStop | CloseListeners | Drain | Leave
