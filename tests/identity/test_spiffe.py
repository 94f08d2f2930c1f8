import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.identity.errors import InvalidSpiffeId, InvalidTrustDomain
from tulle.identity.spiffe import SpiffeId, check, spiffe_id

REVIEWS = SpiffeId("cluster.local", "bookinfo", "reviews")


def test_forms():
    assert str(REVIEWS) == "spiffe://cluster.local/ns/bookinfo/sa/reviews"
    assert REVIEWS.principal == "cluster.local/ns/bookinfo/sa/reviews"
    assert SpiffeId.parse(str(REVIEWS)) == REVIEWS == SpiffeId.parse_principal(REVIEWS.principal)
    assert spiffe_id("cluster.local", "bookinfo", "reviews") == REVIEWS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cluster.local/ns/x/sa/y",
        "https://cluster.local/ns/x/sa/y",
        "SPIFFE://cluster.local/ns/x/sa/y",
        "spiffe://cluster.local",
        "spiffe://cluster.local/ns/x/sa/y/",
        "spiffe://cluster.local//ns/x/sa/y",
        "spiffe://cluster.local/ns//sa/y",
        "spiffe://cluster.local/ns/../sa/y",
        "spiffe://cluster.local/ns/./sa/y",
        "spiffe://cluster.local/ns/x/sa/y?z",
        "spiffe://cluster.local/ns/x/sa/y#z",
        "spiffe://cluster.local/ns/x/sa/y%2Fz",
        "spiffe://cluster.local/ns/x/sa/é",
        "spiffe://cluster.local/ns/x/sa/y\n",
        "spiffe://cluster.local/sa/x/ns/y",
        "spiffe://cluster.local/ns/x/sa/" + "y" * 2048,
    ],
)
def test_refused(text: str):
    with pytest.raises(InvalidSpiffeId, match="TUL0501"):
        SpiffeId.parse(text)


@pytest.mark.parametrize(
    "domain", ["", "Cluster.local", "a@b", "host:8080", "[::1]", "a/b", "ü", "a\n", "a" * 256, "%41"]
)
def test_trust_domain_refused(domain: str):
    with pytest.raises(InvalidTrustDomain, match="TUL0502"):
        spiffe_id(domain, "x", "y")


def test_long_text_is_cut_in_the_error():
    with pytest.raises(InvalidSpiffeId) as caught:
        SpiffeId.parse("x" * 10_000)
    assert len(str(caught.value)) < 300


@given(st.text(), st.text(), st.text())
def test_whatever_is_accepted_reads_back_the_same(domain: str, namespace: str, account: str):
    name = SpiffeId(domain, namespace, account)
    try:
        check(name)
    except (InvalidSpiffeId, InvalidTrustDomain):
        return
    assert SpiffeId.parse(str(name)) == name


@given(
    st.from_regex(r"[a-z0-9._-]{1,30}", fullmatch=True),
    st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True),
    st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True),
)
def test_round_trip(domain: str, namespace: str, account: str):
    name = spiffe_id(domain, namespace, account)
    assert SpiffeId.parse(str(name)) == name
