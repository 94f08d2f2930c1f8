import pytest
from ca_parts import Playbook
from hypothesis import given
from hypothesis import strategies as st

from tulle.identity.moves import (
    ArmTimer,
    BundleAcked,
    CreateRoot,
    DropRoot,
    IssueLeaf,
    LeafAcked,
    LeafFailed,
    LeafGone,
    LeafIssued,
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
from tulle.identity.rotation import State, begin, holders_of, leaf_statuses, phase, renewal_share, step
from tulle.identity.spiffe import SpiffeId

REVIEWS = SpiffeId("cluster.local", "bookinfo", "reviews")
RATINGS = SpiffeId("cluster.local", "bookinfo", "ratings")
TIMING = Timing(leaf_ttl_s=100.0, bundle_settle_s=10.0, connection_age_s=50.0, longest_sleep_s=1000.0)
A = RootStatus("A", RootState.ACTIVE, since=0.0, created_at=0.0, expires_at=100_000.0)
B = RootStatus("B", RootState.PENDING, since=90.0, created_at=90.0, expires_at=100_090.0)
ONE, BOTH = frozenset("A"), frozenset("AB")


def begun(*roots: RootStatus, timing: Timing = TIMING, now: float = 0.0) -> Playbook:
    state, actions = begin(roots or (A,), timing, now)
    assert actions[-1] == ArmTimer(now)
    return Playbook(state)


def renew_at(serial: str, now: float, identity: SpiffeId = REVIEWS, ttl: float = 100.0) -> float:
    return now + ttl * renewal_share(identity, serial, TIMING)


def test_a_leaf_is_renewed_between_half_and_four_fifths_of_its_life():
    due = renew_at("01", 0.0)
    assert 50 <= due <= 80
    play = begun() >> LeafWanted("pod", REVIEWS, 0.0) << IssueLeaf("pod", REVIEWS)
    play >> Tick(0.0) << ArmTimer(1000.0)
    play >> LeafIssued("pod", "01", "A", 100.0, 0.0) << ArmTimer(due)
    play >> LeafWanted("pod", REVIEWS, 1.0)
    play >> Tick(due - 0.001) << ArmTimer(due)
    play >> Tick(due) << IssueLeaf("pod", REVIEWS) << ArmTimer(due + 1000)
    play >> Tick(due + 1) << ArmTimer(due + 1001)
    (
        play
        >> LeafIssued("pod", "02", "A", 200.0, due + 1)
        << ArmTimer(due + 1 + (200 - due - 1) * renewal_share(REVIEWS, "02", TIMING))
    )
    play.done()


def test_a_failed_leaf_is_asked_for_again_after_a_while():
    play = begun() >> Tick(0.0) << ArmTimer(1000.0)
    play >> LeafWanted("pod", REVIEWS, 1.0) << IssueLeaf("pod", REVIEWS)
    play >> LeafFailed("pod", 2.0) << ArmTimer(7.0)
    play >> Tick(6.9) << ArmTimer(7.0)
    play >> Tick(7.0) << IssueLeaf("pod", REVIEWS) << ArmTimer(1007.0)
    play.done()


def test_the_gone_are_forgotten():
    play = begun() >> Tick(0.0) << ArmTimer(1000.0)
    play >> LeafWanted("pod", REVIEWS, 0.0) << IssueLeaf("pod", REVIEWS)
    play >> LeafGone("pod", 1.0)
    play >> LeafIssued("pod", "01", "A", 100.0, 1.0)
    play >> LeafAcked("pod", "01", 1.0)
    play.done()
    assert play.state.holders == {}
    play >> LeafWanted("pod", RATINGS, 2.0) << IssueLeaf("pod", RATINGS)
    play.done()


def test_a_clock_set_back_renews():
    play = begun(now=500.0) >> LeafWanted("pod", REVIEWS, 500.0) << IssueLeaf("pod", REVIEWS)
    play >> LeafIssued("pod", "01", "A", 600.0, 500.0)
    play >> Tick(100.0) << IssueLeaf("pod", REVIEWS) << ArmTimer(1100.0)
    play.done()


def test_a_root_follows_another():
    play = begun() >> Tick(0.0) << ArmTimer(1000.0)
    for pod, identity, serial in (("r1", REVIEWS, "01"), ("r2", RATINGS, "02")):
        play.state = told(play.state, pod, identity, serial, "A", 85.0)
    play >> RotateRootRequested(90.0) << CreateRoot()
    assert phase(play.state) is Phase.CREATING
    play >> RotateRootRequested(90.0) << Refuse("TUL0513", (("phase", "creating"),))
    play >> RootCreated("B", 100_090.0, 90.0) << PublishBundle(("A", "B"))
    assert phase(play.state) is Phase.DISTRIBUTING
    # An acknowledgement of the old bundle, and one that comes too soon, move nothing but the timer.
    play >> BundleAcked(ONE, 91.0)
    play >> BundleAcked(BOTH, 92.0) << ArmTimer(100.0)
    play >> Tick(99.9) << ArmTimer(100.0)
    # The new root signs: everyone gets a new leaf at once.
    play >> Tick(100.0) << SwitchSigner("B", 185.0)
    play << IssueLeaf("r1", REVIEWS) << IssueLeaf("r2", RATINGS) << ArmTimer(1100.0)
    assert phase(play.state) is Phase.REPLACING
    assert holders_of(play.state, "A", 100.0) == ("r1", "r2")
    play.state = told(play.state, "r1", REVIEWS, "11", "B", 100.0)
    due = renew_at("12", 101.0, RATINGS, 99.0)
    play >> LeafIssued("r2", "12", "B", 200.0, 101.0) << ArmTimer(due)
    assert holders_of(play.state, "A", 101.0) == ("r2",), "issued is not in use yet"
    play >> LeafAcked("r2", "02", 102.0)
    assert holders_of(play.state, "A", 102.0) == ("r2",), "the old leaf's acknowledgement is late, not new"
    # The last leaf of the old root is gone; connections made with one may live for another 50 s.
    play >> LeafAcked("r2", "12", 103.0)
    play >> Tick(152.9) << IssueLeaf("r2", RATINGS) << ArmTimer(153.0)
    play >> Tick(153.0) << PublishBundle(("B",)) << DropRoot("A") << ArmTimer(renew_at("11", 100.0))
    assert phase(play.state) is Phase.STEADY
    assert [root.fingerprint for root in play.state.roots] == ["B"]
    play >> RotateRootRequested(154.0) << CreateRoot()
    play.done()


def told(state: State, pod: str, identity: SpiffeId, serial: str, root: str, now: float) -> State:
    for event in (
        LeafWanted(pod, identity, now),
        LeafIssued(pod, serial, root, now + 100, now),
        LeafAcked(pod, serial, now),
    ):
        state, _ = step(state, event)
    return state


def test_one_silent_proxy_holds_the_switch_forever():
    play = begun(A, B, now=90.0)
    for now in range(100, 5000, 7):
        play.state, actions = step(play.state, Tick(float(now)))
        assert not [action for action in actions if isinstance(action, SwitchSigner)]


def test_an_expired_leaf_holds_nothing():
    """A proxy that never acknowledges its new leaf delays the end only until its old one is worthless."""
    play = begun(A, B, now=90.0)
    play.state = told(play.state, "r1", REVIEWS, "01", "A", 90.0)
    play.state, _ = step(play.state, BundleAcked(BOTH, 100.0))
    assert phase(play.state) is Phase.REPLACING
    play.state, _ = step(play.state, LeafIssued("r1", "02", "B", 200.0, 101.0))
    assert holders_of(play.state, "A", 189.0) == ("r1",)
    play.state, _ = step(play.state, Tick(189.0))
    assert play.state.clean_since is None
    play.state, _ = step(play.state, Tick(190.0))
    assert play.state.clean_since == 190.0


def test_a_restart_while_distributing_asks_everyone_again():
    state, actions = begin((A, B), TIMING, 95.0)
    assert actions == [PublishBundle(("A", "B")), ArmTimer(95.0)]
    state, actions = step(state, Tick(200.0))
    assert not [action for action in actions if isinstance(action, SwitchSigner)]
    state, actions = step(state, BundleAcked(BOTH, 201.0))
    assert SwitchSigner("B", 201.0) in actions


def test_a_restart_while_replacing_knows_no_leafs_and_so_waits():
    old = RootStatus("A", RootState.RETIRED, 100.0, 0.0, 100_000.0, leafs_until=190.0)
    new = RootStatus("B", RootState.ACTIVE, 100.0, 90.0, 100_090.0)
    play = begun(old, new, now=110.0)
    play.state, _ = step(play.state, Tick(110.0))
    assert play.state.clean_since is None, "nobody was heard from yet"
    play.state, _ = step(play.state, LeafWanted("r1", REVIEWS, 111.0))
    play.state, _ = step(play.state, BundleAcked(BOTH, 112.0))
    assert play.state.clean_since is None, "its leaf may be of the former process"
    play.state, _ = step(play.state, LeafIssued("r1", "05", "B", 212.0, 112.0))
    play.state, _ = step(play.state, LeafAcked("r1", "05", 113.0))
    assert play.state.clean_since == 113.0
    # Without any acknowledgement, the last leaf's expiry does it.
    alone = begun(old, new, now=110.0)
    alone.state, _ = step(alone.state, Tick(190.0))
    assert alone.state.clean_since == 190.0


def test_a_leaf_signed_just_before_the_switch_is_replaced_at_the_next_tick():
    play = begun(A, B, now=90.0) >> LeafWanted("r1", REVIEWS, 95.0) << IssueLeaf("r1", REVIEWS)
    play >> BundleAcked(BOTH, 100.0) << SwitchSigner("B", 100.0)
    play >> LeafIssued("r1", "01", "A", 200.0, 100.0)
    play >> Tick(100.0) << IssueLeaf("r1", REVIEWS) << ArmTimer(1100.0)
    play.done()


def test_a_root_near_its_end_is_replaced_unasked():
    play = begun() >> Tick(79_999.0) << ArmTimer(80_999.0)
    play >> Tick(80_000.0) << CreateRoot() << ArmTimer(81_000.0)
    play >> Tick(80_001.0) << ArmTimer(81_001.0)
    play.done()


def test_a_plug_in_ca_is_not_rotated():
    timing = Timing(rotates_roots=False, longest_sleep_s=1000.0)
    other = RootStatus("C", RootState.RETIRED, 0.0, 0.0, 500.0)
    state, actions = begin((A, other), timing, 0.0)
    assert actions[0] == PublishBundle(("A", "C"))
    play = Playbook(state) >> Tick(99_000.0) << ArmTimer(100_000.0)
    play >> BundleAcked(frozenset("AC"), 99_000.0)
    play >> RotateRootRequested(99_000.0) << Refuse("TUL0512")
    play.done()
    assert phase(play.state) is Phase.STEADY


def test_exactly_one_root_must_be_active():
    for roots in ((), (B,), (A, A)):
        with pytest.raises(ValueError):
            begin(roots, TIMING, 0.0)


def test_leaf_statuses_for_metrics():
    play = begun()
    play.state = told(play.state, "r1", REVIEWS, "01", "A", 10.0)
    (leaf,) = leaf_statuses(play.state)
    assert (leaf.age_s(30.0), leaf.remaining_s(30.0), leaf.is_acknowledged) == (20.0, 80.0, True)


def test_jitter_is_even_and_of_the_leaf():
    shares = [renewal_share(REVIEWS, f"{serial:x}", TIMING) for serial in range(4000)]
    assert 0.5 <= min(shares) < 0.505
    assert 0.795 < max(shares) <= 0.8
    tenths = [sum(0.5 + 0.03 * n <= share < 0.53 + 0.03 * n for share in shares) for n in range(10)]
    assert min(tenths) > 300
    assert renewal_share(REVIEWS, "1", TIMING) == shares[1] != renewal_share(RATINGS, "1", TIMING)


def test_unacknowledged_renewals_do_not_grow():
    play = begun()
    play.state, _ = step(play.state, LeafWanted("pod", REVIEWS, 0.0))
    for turn in range(50):
        play.state, _ = step(play.state, LeafIssued("pod", f"{turn:x}", "A", 100.0 + turn, float(turn)))
    assert len(play.state.holders["pod"].older) == 1


class World:
    """A fleet that does what it is told, late and in any order; it checks the promises at every moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self.serial = 0
        self.signer = "A"
        self.state, actions = begin((A,), TIMING, 0.0)
        self.trusted: dict[str, set[str]] = {}
        self.used: dict[str, str] = {}
        self.used_until: dict[str, float] = {}
        self.bundle: set[str] = set()
        self.sent: list[tuple[str, str, str, float]] = []
        self.asked: list[IssueLeaf] = []
        self.names = iter("BCDEFGHIJKLMNOPQRSTUVWXYZ")
        self.do(actions)

    def tell(self, event) -> None:
        self.state, actions = step(self.state, event)
        self.do(actions)

    def do(self, actions) -> None:
        for action in actions:
            match action:
                case IssueLeaf():
                    self.asked.append(action)
                case PublishBundle():
                    self.bundle = set(action.roots)
                case CreateRoot():
                    name = next(self.names, None)
                    if name:
                        self.tell(RootCreated(name, self.now + 100_000.0, self.now))
                case SwitchSigner():
                    self.signer = action.root
                    assert all(action.root in roots for roots in self.trusted.values()), "rule 1"
                case DropRoot():
                    in_use = [
                        pod
                        for pod, root in self.used.items()
                        if root == action.root and self.used_until[pod] > self.now
                    ]
                    assert not in_use, "rule 2"

    def join(self, pod: str) -> None:
        if pod not in self.trusted:
            self.trusted[pod] = set(self.bundle)
            self.tell(LeafWanted(pod, REVIEWS, self.now))

    def leave(self, pod: str) -> None:
        if pod in self.trusted:
            for fleet in (self.trusted, self.used, self.used_until):
                fleet.pop(pod, None)
            self.asked = [ask for ask in self.asked if ask.holder != pod]
            self.sent = [one for one in self.sent if one[0] != pod]
            self.tell(LeafGone(pod, self.now))

    def sign(self) -> None:
        if self.asked:
            ask = self.asked.pop(0)
            self.serial += 1
            leaf = (ask.holder, f"{self.serial:x}", self.signer, self.now + 100.0)
            self.sent.append(leaf)
            self.tell(LeafIssued(*leaf, self.now))

    def deliver(self) -> None:
        if self.sent:
            pod, serial, root, expires_at = self.sent.pop(0)
            self.used[pod], self.used_until[pod] = root, expires_at
            self.tell(LeafAcked(pod, serial, self.now))

    def trust(self, pod: str) -> None:
        if pod in self.trusted:
            self.trusted[pod] = set(self.bundle)
        if self.trusted and all(roots == self.bundle for roots in self.trusted.values()):
            self.tell(BundleAcked(frozenset(self.bundle), self.now))

    def check(self) -> None:
        for pod, root in self.used.items():
            if self.used_until[pod] > self.now:
                assert all(root in roots for roots in self.trusted.values()), f"{pod} shows a leaf of {root}"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["join", "leave", "sign", "deliver", "trust", "wait", "rotate", "sign", "deliver", "trust"]
            ),
            st.integers(0, 3),
        ),
        max_size=120,
    )
)
def test_no_order_of_things_shows_a_leaf_that_is_not_trusted(story: list[tuple[str, int]]):
    world = World()
    for what, number in story:
        match what:
            case "join" | "leave" | "trust":
                getattr(world, what)(f"pod{number}")
            case "sign" | "deliver":
                getattr(world, what)()
            case "wait":
                world.now += 15.0 * (number + 1)
                world.tell(Tick(world.now))
            case "rotate":
                world.tell(RotateRootRequested(world.now))
        world.check()
    # Left alone, it comes to rest with everyone served by one root.
    for _ in range(60):
        while world.asked or world.sent:
            world.sign()
            world.deliver()
        for pod in list(world.trusted) or ["none"]:
            world.trust(pod)
        if not world.trusted:
            world.tell(BundleAcked(frozenset(world.bundle), world.now))
        world.now += 5.0
        world.tell(Tick(world.now))
        world.check()
    assert phase(world.state) is Phase.STEADY
    assert len(world.state.roots) == 1
