"""When leafs are renewed and how one root follows another, as a pure step: `step(state, event) -> (state, actions)`.

Rule 1: no peer is shown a leaf of a root that some live proxy does not trust yet: A+B is acknowledged by all before B signs.
Rule 2: no root leaves the bundle while a leaf of it may be in use, nor before connections made with one have aged out.
Rule 3: everything a restart needs is in the stored roots; leafs are forgotten and asked for again.

Knows no keys, files, streams or clock. The words are in `moves.py`, the doing in `office.py`.
"""

import hashlib
from collections.abc import Mapping
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from tulle.identity.moves import (
    Action,
    ArmTimer,
    BundleAcked,
    CreateRoot,
    DropRoot,
    Event,
    IssueLeaf,
    LeafAcked,
    LeafFailed,
    LeafGone,
    LeafIssued,
    LeafStatus,
    LeafWanted,
    Phase,
    PublishBundle,
    Refuse,
    RootCreated,
    RootState,
    RootStatus,
    RotateRootRequested,
    SwitchSigner,
    Tick,
    Timing,
)
from tulle.identity.spiffe import SpiffeId


class Holding(Struct, frozen=True):
    """What one holder has, or may still have."""

    identity: SpiffeId
    is_asked: bool
    """An `IssueLeaf` is under way."""
    due_at: float
    """When the next leaf is to be issued; meaningless while one is asked for."""
    newest: LeafStatus | None = None
    older: tuple[tuple[str, float], ...] = ()
    """(root, latest expiry) of leafs sent before that may be in use still, as the newest is not acknowledged."""


class State(Struct, frozen=True):
    """Everything the rotation knows. Made by `begin`; `holders` is replaced, never changed."""

    timing: Timing
    roots: tuple[RootStatus, ...]
    """One ACTIVE; at most one PENDING or RETIRED beside it (more RETIRED with a plug-in CA)."""
    holders: Mapping[str, Holding]
    is_creating: bool
    acked: frozenset[str]
    """The bundle everyone acknowledged last, in this process."""
    clean_since: float | None
    """REPLACING: since when no leaf of the old root is about."""
    timer_at: float


Stepped = tuple[State, list[Action]]


def begin(roots: tuple[RootStatus, ...], timing: Timing, now: float) -> Stepped:
    """The state at start, from the stored roots, wherever a former process stopped. Raises ValueError for no ACTIVE root."""
    if sum(root.state is RootState.ACTIVE for root in roots) != 1:
        raise ValueError("exactly one root must be active")
    state = State(timing, roots, {}, False, frozenset(), None, timer_at=now)
    return state, [PublishBundle(_bundle(state)), ArmTimer(now)]


def step(state: State, event: Event) -> Stepped:
    """One event. Cost: O(holders) for a copy of the table; a look at every holder only on Tick and at the switch."""
    match event:
        case Tick():
            state, actions = _renewals(state, event.now)
            return _continued(state, actions, event.now, may_arm_later=True)
        case LeafWanted():
            return _continued(*_wanted(state, event), event.now)
        case LeafIssued() | LeafFailed() | LeafAcked() | LeafGone():
            state = _told(state, event)
            holding = state.holders.get(event.holder)
            due_at = holding.due_at if holding and not holding.is_asked else float("inf")
            return _continued(state, [], event.now, due_at=due_at)
        case RotateRootRequested():
            return _continued(*_requested(state), event.now)
        case RootCreated():
            return _continued(*_created(state, event), event.now)
        case BundleAcked():
            return _continued(replace(state, acked=event.roots), [], event.now)
        case _:
            assert_never(event)


def phase(state: State) -> Phase:
    """Where the rotation of the root is."""
    if _one(state, RootState.PENDING):
        return Phase.DISTRIBUTING
    if state.timing.rotates_roots and _one(state, RootState.RETIRED):
        return Phase.REPLACING
    return Phase.CREATING if state.is_creating else Phase.STEADY


def leaf_statuses(state: State) -> tuple[LeafStatus, ...]:
    """The newest leaf of every holder that has one, for metrics."""
    return tuple(holding.newest for holding in state.holders.values() if holding.newest)


def holders_of(state: State, root: str, now: float) -> tuple[str, ...]:
    """Holders that may still use an unexpired leaf of this root: whom the rotation waits for."""
    return tuple(name for name, holding in state.holders.items() if _may_use(holding, root, now))


def renewal_share(identity: SpiffeId, serial: str, timing: Timing) -> float:
    """The share of its life at which a leaf is renewed: even over [renew_from, renew_to], the same for the same leaf."""
    digest = hashlib.sha256(f"{identity}|{serial}".encode()).digest()
    return timing.renew_from + (timing.renew_to - timing.renew_from) * int.from_bytes(digest[:8]) / 2**64


def _bundle(state: State) -> tuple[str, ...]:
    """The signer's root first; the order of the rest is that of their making."""
    active = _active(state).fingerprint
    return (active, *(root.fingerprint for root in state.roots if root.fingerprint != active))


def _active(state: State) -> RootStatus:
    return next(root for root in state.roots if root.state is RootState.ACTIVE)


def _one(state: State, wanted: RootState) -> RootStatus | None:
    return next((root for root in state.roots if root.state is wanted), None)


def _may_use(holding: Holding, root: str, now: float) -> bool:
    newest = holding.newest
    if newest and newest.root == root and newest.expires_at > now:
        return True
    return any(older == root and expires_at > now for older, expires_at in holding.older)


def _wanted(state: State, event: LeafWanted) -> Stepped:
    known = state.holders.get(event.holder)
    if known and known.identity == event.identity:
        return state, []
    # Another identity under the same name: the old leaf may be in use until the new one is acknowledged. So may one that
    # a former process signed with the retired root.
    older = _outlived(known, event.now) if known else _inherited(state, event.now)
    holding = Holding(event.identity, True, event.now, older=older)
    return _with(state, event.holder, holding), [IssueLeaf(event.holder, event.identity)]


def _told(state: State, event: LeafIssued | LeafFailed | LeafAcked | LeafGone) -> State:
    holding = state.holders.get(event.holder)
    if holding is None:
        return state  # Late news of a holder that is gone.
    match event:
        case LeafGone():
            return replace(state, holders={name: one for name, one in state.holders.items() if name != event.holder})
        case LeafFailed():
            due_at = event.now + state.timing.retry_s
            return _with(state, event.holder, replace(holding, is_asked=False, due_at=due_at))
        case LeafAcked():
            if not holding.newest or holding.newest.serial != event.serial:
                return state  # An older leaf's acknowledgement says nothing about the newest.
            newest = replace(holding.newest, is_acknowledged=True)
            return _with(state, event.holder, replace(holding, newest=newest, older=()))
        case LeafIssued():
            return _with(state, event.holder, _issued(state, holding, event))


def _issued(state: State, holding: Holding, event: LeafIssued) -> Holding:
    share = renewal_share(holding.identity, event.serial, state.timing)
    renew_at = event.now + share * (event.expires_at - event.now)
    if event.root != _active(state).fingerprint:
        renew_at = event.now  # Signed just before the switch: replaced at the next tick.
    newest = LeafStatus(
        event.holder, holding.identity, event.serial, event.root, event.now, event.expires_at, renew_at, False
    )
    return replace(holding, is_asked=False, due_at=renew_at, newest=newest, older=_outlived(holding, event.now))


def _outlived(holding: Holding, now: float) -> tuple[tuple[str, float], ...]:
    """What may be in use beside a newer leaf: one line per root, so it cannot grow with unacknowledged renewals."""
    latest = dict(holding.older)
    if holding.newest:
        latest[holding.newest.root] = max(holding.newest.expires_at, latest.get(holding.newest.root, 0.0))
    return tuple((root, expires_at) for root, expires_at in latest.items() if expires_at > now)


def _inherited(state: State, now: float) -> tuple[tuple[str, float], ...]:
    retired = (root for root in state.roots if root.state is RootState.RETIRED)
    return tuple((root.fingerprint, root.leafs_until) for root in retired if root.leafs_until > now)


def _with(state: State, holder: str, holding: Holding) -> State:
    return replace(state, holders={**state.holders, holder: holding})


def _renewals(state: State, now: float) -> Stepped:
    due = [name for name, holding in state.holders.items() if not holding.is_asked and _is_due(holding, now)]
    return _asked(state, due)


def _is_due(holding: Holding, now: float) -> bool:
    # A leaf from the future means that the clock was set back: its peers may not accept it yet.
    return holding.due_at <= now or (holding.newest is not None and holding.newest.issued_at > now)


def _asked(state: State, holders: list[str]) -> Stepped:
    if not holders:
        return state, []
    asked = {name: replace(state.holders[name], is_asked=True) for name in holders}
    actions: list[Action] = [IssueLeaf(name, state.holders[name].identity) for name in holders]
    return replace(state, holders={**state.holders, **asked}), actions


def _requested(state: State) -> Stepped:
    if not state.timing.rotates_roots:
        return state, [Refuse("TUL0512")]
    if phase(state) is not Phase.STEADY:
        return state, [Refuse("TUL0513", (("phase", phase(state).value),))]
    return replace(state, is_creating=True), [CreateRoot()]


def _created(state: State, event: RootCreated) -> Stepped:
    pending = RootStatus(event.fingerprint, RootState.PENDING, event.now, event.now, event.expires_at)
    state = replace(state, roots=(*state.roots, pending), is_creating=False, acked=frozenset())
    return state, [PublishBundle(_bundle(state))]


def _continued(
    state: State, actions: list[Action], now: float, *, due_at: float = float("inf"), may_arm_later: bool = False
) -> Stepped:
    """What follows from where things stand now; then the timer, which only a full look may move to a later time."""
    for follow in (_old_root_wanted, _switched, _dropped):
        state, more = follow(state, now)
        actions = [*actions, *more]
    at = _wake_at(state, now) if may_arm_later else min(due_at, _soonest_of_roots(state, now))
    if may_arm_later or at < state.timer_at:
        return replace(state, timer_at=at), [*actions, ArmTimer(at)]
    return state, actions


def _old_root_wanted(state: State, now: float) -> Stepped:
    active = _active(state)
    is_old = now >= _root_due_at(active, state.timing)
    if not is_old or not state.timing.rotates_roots or phase(state) is not Phase.STEADY:
        return state, []
    return replace(state, is_creating=True), [CreateRoot()]


def _root_due_at(root: RootStatus, timing: Timing) -> float:
    return root.expires_at - timing.root_renew_share * (root.expires_at - root.created_at)


def _switched(state: State, now: float) -> Stepped:
    pending = _one(state, RootState.PENDING)
    is_trusted = state.acked == frozenset(_bundle(state))
    if (
        not pending
        or not is_trusted
        or not state.timing.rotates_roots
        or now < pending.since + state.timing.bundle_settle_s
    ):
        return state, []
    old = _active(state)
    until = max((_latest(holding, old.fingerprint) for holding in state.holders.values()), default=now)
    moved = {
        old.fingerprint: replace(old, state=RootState.RETIRED, since=now, leafs_until=max(until, now)),
        pending.fingerprint: replace(pending, state=RootState.ACTIVE, since=now),
    }
    state = replace(state, roots=tuple(moved.get(root.fingerprint, root) for root in state.roots), clean_since=None)
    state, issues = _asked(state, [name for name, holding in state.holders.items() if not holding.is_asked])
    return state, [SwitchSigner(pending.fingerprint, max(until, now)), *issues]


def _latest(holding: Holding, root: str) -> float:
    return dict(_outlived(holding, 0.0)).get(root, 0.0)


def _dropped(state: State, now: float) -> Stepped:
    if phase(state) is not Phase.REPLACING:
        return state, []
    old = _one(state, RootState.RETIRED)
    assert old is not None
    if not _is_clean(state, old, now):
        return replace(state, clean_since=None), []
    if state.clean_since is None:
        state = replace(state, clean_since=now)
    assert state.clean_since is not None
    if now < state.clean_since + state.timing.connection_age_s:
        return state, []
    roots = tuple(root for root in state.roots if root is not old)
    state = replace(state, roots=roots, clean_since=None, acked=frozenset())
    return state, [PublishBundle(_bundle(state)), DropRoot(old.fingerprint)]


def _is_clean(state: State, old: RootStatus, now: float) -> bool:
    # After a restart the leafs of the former process are known only once every live proxy was heard from.
    is_complete = state.acked == frozenset(_bundle(state)) or now >= old.leafs_until
    return is_complete and not any(_may_use(holding, old.fingerprint, now) for holding in state.holders.values())


def _wake_at(state: State, now: float) -> float:
    renewals = (holding.due_at for holding in state.holders.values() if not holding.is_asked)
    return min(min(renewals, default=float("inf")), _soonest_of_roots(state, now))


def _soonest_of_roots(state: State, now: float) -> float:
    candidates = [now + state.timing.longest_sleep_s]
    pending = _one(state, RootState.PENDING)
    if pending and state.acked == frozenset(_bundle(state)):
        candidates.append(pending.since + state.timing.bundle_settle_s)
    if state.clean_since is not None:
        candidates.append(state.clean_since + state.timing.connection_age_s)
    return min(candidates)
