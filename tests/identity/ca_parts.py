"""Parts for tests of the CA: a fixed moment, a ready authority, a TLS handshake in memory, a playbook of rotation."""

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from tulle.identity.authority import Authority, Bundle, Leaf, Root, Signer, new_root
from tulle.identity.moves import Action, Event
from tulle.identity.rotation import State, step

DOMAIN = "cluster.local"
NOW = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)
HOUR = timedelta(hours=1)


def authority_of(root: Root, domain: str = DOMAIN) -> Authority:
    return Authority(Signer.of_root(root), domain)


def fresh(domain: str = DOMAIN, now: datetime = NOW) -> tuple[Root, Authority, Bundle]:
    root = new_root(domain, now)
    return root, authority_of(root, domain), Bundle((root.certificate_pem,))


def handshake(
    server: Leaf, client: Leaf | None, server_trusts: Bundle, client_trusts: Bundle, server_name: str | None = None
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """A real TLS 1.3 handshake over memory; (names the client saw, names the server saw). Raises ssl.SSLError."""
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = server_name is not None
    for context, leaf, trusted in ((server_side, server, server_trusts), (client_side, client, client_trusts)):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=trusted.pem.decode())
        if leaf:
            with tempfile.TemporaryDirectory() as place:
                pair = Path(place, "pair.pem")
                pair.write_bytes(leaf.chain_pem + leaf.key_pem.reveal())
                context.load_cert_chain(pair)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client_side.wrap_bio(down, up, server_hostname=server_name)
    far = server_side.wrap_bio(up, down, server_side=True)
    waiting = [near.do_handshake, far.do_handshake]
    for _ in range(10):
        for turn in list(waiting):
            try:
                turn()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(turn)
        if not waiting:
            return names_seen(near), names_seen(far)
    raise AssertionError("the handshake does not end")


def names_seen(side: ssl.SSLObject) -> list[tuple[str, str]]:
    certificate = side.getpeercert()
    assert certificate
    return list(certificate["subjectAltName"])  # type: ignore[arg-type]


class Playbook:
    """`playbook >> event << action << action`: the next event, then exactly the actions it caused, in order."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._left: list[Action] = []
        self._said: list[str] = []

    def __rshift__(self, event: Event) -> Self:
        self.done()
        self.state, self._left = step(self.state, event)
        self._said.append(f">> {event}")
        return self

    def __lshift__(self, action: Action) -> Self:
        found = self._left.pop(0) if self._left else None
        self._said.append(f"<< {found}")
        assert found == action, "\n".join([*self._said, f"expected: {action}"])
        return self

    def done(self) -> None:
        assert not self._left, "\n".join([*self._said, *(f"unexpected: {action}" for action in self._left)])
