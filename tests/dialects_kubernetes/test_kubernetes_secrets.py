"""Secrets: the engine's value has no bytes, the vault's value prints none."""

import base64
import copy
import pickle

import pytest

from tulle.dialects.kubernetes.secret import SecretUnreadableError, secret_digest, secret_material

KEY = "-----BEGIN PRIVATE KEY----- very secret"
RAW = {
    "type": "kubernetes.io/tls",
    "data": {"tls.key": base64.b64encode(KEY.encode()).decode()},
    "stringData": {"tls.crt": "cert"},
}


def test_the_engine_holds_names_and_a_digest():
    found = secret_digest(RAW)
    assert (found.type, found.keys) == ("kubernetes.io/tls", ("tls.crt", "tls.key"))
    assert found.digest == secret_material(RAW).digest
    for form in (KEY, RAW["data"]["tls.key"], "very"):
        assert form not in repr(found)


def test_the_material_has_the_bytes_and_never_prints_or_leaves():
    found = secret_material(RAW)
    assert found.entry("tls.key") == KEY.encode()
    assert found.entry("absent") is None
    for text in (str(found), f"{found}", repr([found]), repr({"vault": found})):
        assert "redacted" in text
        assert "very" not in text
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="does not leave"):
            leave(found)


def test_the_digest_changes_with_every_part():
    base = {"type": "Opaque", "stringData": {"a": "b", "c": ""}}
    others = [
        {"type": "Other", "stringData": {"a": "b", "c": ""}},
        {"type": "Opaque", "stringData": {"a": "bc", "": ""}},
        {"type": "Opaque", "stringData": {"a": "b"}},
        {"type": "Opaque", "stringData": {"a": "x", "c": ""}},
    ]
    assert len({secret_digest(raw).digest for raw in [base, *others]}) == 5


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"data": {"tls.key": "not base64!"}}, "data.tls.key"),
        ({"data": {"tls.key": 7}}, "data.tls.key"),
        ({"data": ["x"]}, "data"),
        ({"type": 5}, "type"),
        ({"stringData": {"a": True}}, "stringData.a"),
    ],
)
def test_errors_name_the_field_and_quote_nothing(raw, path):
    with pytest.raises(SecretUnreadableError) as caught:
        secret_material(raw)
    assert caught.value.path == path
    assert "not base64!" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
