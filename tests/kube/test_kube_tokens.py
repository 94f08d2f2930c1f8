"""Signatures, issuers, audiences and times of tokens, with keys made here."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tulle.kube.tokens import TokenInvalidError, claims_of, keys_of, verified

ISSUER = "https://kubernetes.default.svc.cluster.local"
NOW = 1_000_000.0
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
BOUND = {
    "namespace": "shop",
    "serviceaccount": {"name": "cart", "uid": "sa-1"},
    "pod": {"name": "cart-0", "uid": "p-1"},
    "node": {"name": "n1", "uid": "n-1"},
}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": ["tulle"],
    "exp": NOW + 600,
    "nbf": NOW - 1,
    "kubernetes.io": BOUND,
    "sub": "system:serviceaccount:shop:cart",
}


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def number(value: int, size: int) -> str:
    return encoded(value.to_bytes(size))


def jwks() -> bytes:
    of_rsa, of_ec = RSA.public_key().public_numbers(), EC.public_key().public_numbers()
    keys = [
        {"kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": number(of_rsa.n, 256), "e": number(of_rsa.e, 3)},
        {"kty": "EC", "kid": "e", "crv": "P-256", "x": number(of_ec.x, 32), "y": number(of_ec.y, 32)},
        {"kty": "OKP", "kid": "unknown kind", "crv": "Ed25519", "x": "AA"},
    ]
    return json.dumps({"keys": keys}).encode()


def signed(claims: dict[str, Any], alg: str = "RS256", kid: str = "r") -> str:
    head = encoded(json.dumps({"alg": alg, "kid": kid}).encode())
    text = f"{head}.{encoded(json.dumps(claims).encode())}"
    if alg == "RS256":
        signature = RSA.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = decode_dss_signature(EC.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32) + s.to_bytes(32)
    return f"{text}.{encoded(signature)}"


KEYS = keys_of(ISSUER, jwks())


def test_both_kinds_of_keys_are_read_and_unknown_ones_passed_over() -> None:
    assert sorted(KEYS.keys) == ["e", "r"]


@pytest.mark.parametrize(("alg", "kid"), [("RS256", "r"), ("ES256", "e")])
def test_a_good_token_says_whose_pod_it_is(alg: str, kid: str) -> None:
    claims = verified(signed(CLAIMS, alg, kid), KEYS, "tulle", NOW)
    assert claims.bound is not None
    assert claims.bound.pod is not None
    assert (claims.bound.namespace, claims.bound.pod.name, claims.bound.pod.uid) == ("shop", "cart-0", "p-1")
    assert claims.exp == NOW + 600


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"aud": ["api"]}, "audience"),
        ({"aud": "tulle.example"}, "audience"),
        ({"iss": "https://elsewhere"}, "issuer"),
        ({"exp": NOW}, "ended"),
        ({"nbf": NOW + 60}, "not count yet"),
    ],
)
def test_a_well_signed_token_that_does_not_count(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenInvalidError, match=reason):
        verified(signed(CLAIMS | changed), KEYS, "tulle", NOW)


def test_a_changed_claim_breaks_the_signature() -> None:
    head, _, tail = signed(CLAIMS).split(".")
    forged = encoded(json.dumps(CLAIMS | {"kubernetes.io": {**BOUND, "namespace": "bank"}}).encode())
    with pytest.raises(TokenInvalidError, match="signature"):
        verified(f"{head}.{forged}.{tail}", KEYS, "tulle", NOW)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "kid": "r"},
        {"alg": "HS256", "kid": "r"},
        {"alg": "RS256", "kid": "e"},
        {"alg": "ES256", "kid": "r"},
    ],
)
def test_the_token_does_not_choose_how_it_is_checked(header: dict[str, str]) -> None:
    _, body, tail = signed(CLAIMS).split(".")
    with pytest.raises(TokenInvalidError, match="signature"):
        verified(f"{encoded(json.dumps(header).encode())}.{body}.{tail}", KEYS, "tulle", NOW)


def test_a_key_that_is_not_the_clusters() -> None:
    with pytest.raises(TokenInvalidError, match="no key"):
        verified(signed(CLAIMS, kid="mine"), KEYS, "tulle", NOW)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "....", "é.e.e", "x" * 20_000, "e30.e30.e30"])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(TokenInvalidError) as caught:
        claims_of(text)
    assert not text or text not in str(caught.value)


def test_a_weak_key_signs_nothing() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers()
    keys = json.dumps({"keys": [{"kty": "RSA", "kid": "w", "n": number(weak.n, 128), "e": "AQAB"}]}).encode()
    assert keys_of(ISSUER, keys).keys == {}
