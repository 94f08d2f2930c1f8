"""Key material is in the vault and in what is sent, nowhere else: every memo, input and problem is searched for it."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from key_pairs import key_pair, secret
from serve_parts import pod, service, uid_of
from test_serve_parts_alone import world
from test_serve_protocol import gateway

from tulle.compile.views import view_of
from tulle.dialects.inputs import objects
from tulle.engine import Database
from tulle.model.keys import WorkloadKey
from tulle.serve.shelves import Shelves
from tulle.serve.vault import Entitled, Vault
from tulle.xds.resource import Resource

PAIR = key_pair("shop")
WANTED = (PAIR.telltale.encode(), base64.b64encode(PAIR.key.encode())[60:120])


def pieces(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Every text and every bytes inside a value."""
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive: ids of the dead are used again
    if isinstance(value, str):
        yield value.encode()
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, Resource):
        yield value.body
    elif isinstance(value, Mapping):
        for item in value.items():
            yield from pieces(item, seen)
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from pieces(item, seen)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from pieces(getattr(value, name), seen)
    elif hasattr(value, "__dict__"):
        yield from pieces(vars(value), seen)


def everything_in(db: Database) -> bytes:
    seen: dict[int, Any] = {}
    memos = [memo for found in db.graph.memos.values() for memo in found.values()]
    assert len(memos) > 30, "there is something to search"
    found = [piece for memo in memos for piece in pieces((memo.args, memo.value), seen)]
    return b"\n".join([*found, *pieces(objects.snapshot(db), seen)])


def test_no_memo_and_no_input_holds_a_key(tmp_path: Path) -> None:
    config = [
        service("web", "shop", ip="10.96.0.1"),
        secret("cert", "shop", PAIR),
        gateway("gw", "shop", "cert"),
    ]
    running = [pod("gw-1", "shop", "10.1.0.4", gateway=True, labels={"istio": "gw"})]
    made, db, _ = world(tmp_path, config, running)
    view = view_of(db, WorkloadKey("Kubernetes", "shop", "gw-1"))
    assert view is not None
    shown = Shelves(db).show(view, 1)
    assert shown.secrets == ("kubernetes://shop/cert",)
    held = everything_in(db)
    assert b"kubernetes://shop/cert" in held, "the search sees what is there"
    for wanted in WANTED:
        assert wanted not in held
    vault: Vault = made._vault
    who = Entitled(uid_of("gw-1", "shop"), "shop", is_gateway=True)
    ref = vault.shelf(who, shown.secrets)["kubernetes://shop/cert"]  # type: ignore[index]
    assert WANTED[0] in (vault.reader(who)(ref) or b""), "and it is what is served"
    told = "".join(str(found) for found in made.reported) + repr(vault) + repr(shown.types) + repr(ref)
    assert PAIR.telltale not in told
