"""What replicas write of what they learned: the difference, name by name."""

from tulle.app.cluster.learned import REFRESHED_S, changed, name_of
from tulle.serve.learning import KEPT_S, Learning

NOW = 1_800_000_000.0
WHO = "spiffe://cluster.local/ns/shop/sa/web ReplicaSet/web-1"
A, B, C = "vip/10.96.0.1:80", "vip/10.96.0.2:80", "vip/10.96.0.3:80"


def test_only_what_is_new_is_written():
    assert changed({A: NOW}, {A: NOW + 60, B: NOW}, NOW) == {B: NOW}
    assert changed({A: NOW}, {A: NOW + REFRESHED_S + 1}, NOW) == {A: NOW + REFRESHED_S + 1}


def test_names_of_other_replicas_stay_until_they_are_old():
    recent, old = NOW - 60, NOW - KEPT_S - REFRESHED_S - 1
    assert changed({A: recent, B: old}, {}, NOW) == {B: None}
    assert changed({B: old}, {B: old}, NOW) == {}


def test_names_of_objects_are_names():
    assert name_of(WHO).startswith("shop.web-")
    assert name_of(WHO) != name_of(WHO + "x")
    assert len(name_of(f"spiffe://x/ns/{'n' * 63}/sa/{'s' * 253}")) <= 253
    assert name_of("") == name_of("")


def test_what_was_adopted_is_known_and_not_written_again():
    made = Learning({WHO: {A: NOW}})
    assert made.adopt({WHO: {A: NOW + 5, B: NOW}, "spiffe://other": {C: NOW}}) == (WHO, "spiffe://other")
    assert made.names(WHO) == {A, B}
    assert made.kept()[WHO] == {A: NOW + 5, B: NOW}
    assert not made.is_changed
    assert made.adopt({WHO: {B: NOW}}) == ()


def test_adopting_has_a_limit():
    many = {f"vip/10.{number >> 8}.{number & 255}.1:80": NOW + number for number in range(2500)}
    made = Learning()
    made.adopt({WHO: many})
    assert len(made.names(WHO)) == 2000
    assert min(made.kept()[WHO].values()) == NOW + 500
