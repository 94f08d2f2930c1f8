"""Which namespaces are in use: Istio's discoverySelectors."""

import msgspec
import pytest

from tulle.sources.cluster_namespaces import LabelSelector, selected_by


def selector(**spec: object) -> LabelSelector:
    return msgspec.convert(spec, LabelSelector)


def expression(operator: str, *values: str) -> LabelSelector:
    return selector(matchExpressions=[{"key": "env", "operator": operator, "values": list(values)}])


@pytest.mark.parametrize(
    ("one", "prod", "test", "none"),
    [
        (selector(matchLabels={"env": "prod"}), True, False, False),
        (expression("In", "prod", "test"), True, True, False),
        (expression("NotIn", "prod"), False, True, True),
        (expression("Exists"), True, True, False),
        (expression("DoesNotExist"), False, False, True),
        (selector(), True, True, True),
    ],
)
def test_a_selector_fits_as_in_kubernetes(one: LabelSelector, *, prod: bool, test: bool, none: bool) -> None:
    assert [one.fits({"env": "prod"}), one.fits({"env": "test"}), one.fits({})] == [prod, test, none]


def test_any_selector_is_enough_and_all_of_its_parts_are_needed() -> None:
    both = selector(matchLabels={"team": "a"}, matchExpressions=[{"key": "env", "operator": "Exists"}])
    is_selected = selected_by([both, selector(matchLabels={"mesh": "on"})])
    assert is_selected is not None
    assert is_selected("x", {"team": "a", "env": ""})
    assert is_selected("x", {"mesh": "on"})
    assert not is_selected("x", {"team": "a"})


def test_some_namespaces_always_count_and_without_selectors_all_do() -> None:
    is_selected = selected_by([selector(matchLabels={"mesh": "on"})], always=frozenset(("istio-system",)))
    assert is_selected is not None
    assert is_selected("istio-system", {})
    assert not is_selected("other", {})
    assert selected_by([]) is None


def test_a_word_that_is_no_operator_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        expression("Like", "prod")
