"""Who bears a token: the API's review of it, what is remembered of reviews, and the cluster's signing keys while the API is away.

Only tokens of our audience that are bound to a pod count; which pods live is the caller's knowledge. Decision 0013. No token is kept or
printed: what is remembered is under its SHA-256.
Source: authentication.k8s.io/v1 TokenReview; service account token claims (`kubernetes.io`); RFC 7515, 7517, 7518, 7519.
"""

import asyncio
import hashlib
from collections.abc import Callable
from time import time

import msgspec
from msgspec import Struct

from tulle.kube.access import Access
from tulle.kube.errors import KubeError, Refused, Unreachable
from tulle.kube.tokens import Claims, KeySet, TokenInvalidError, claims_of, keys_of, verified
from tulle.model.problems import NOWHERE, problem

FRESH_S = 60.0
"""A review this young is not asked for again."""
REFUSED_S = 10.0
"""So long a refused token is refused without asking."""
REMEMBERED = 20_000
"""Reviews kept at most; the ones that end first go first."""
KEYS_S = 300.0
"""How often the signing keys are read."""
ASKING = 16
"""Reviews under way at once."""
ASK_S = 5.0
"""How long a review may take: an API that is silent is away as much as one that is gone."""
AWAY_S = 2.0
"""So long after it was found away it is not asked: a thousand proxies that come back together are not let in one wait at a time."""
_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_USER = "system:serviceaccount:"
_AWAY_FROM = 500
_BUSY = 429


class Proven(Struct, frozen=True):
    """Who bears a token, as proven by the API or by its keys."""

    uid: str
    """Of the pod."""
    pod: str
    namespace: str
    service_account: str
    expires_at: float
    """Unix time at which the token ends."""
    node: str = ""
    """Empty where the API does not say it."""


class TokenRefused(KubeError):  # noqa: N818 - named like its entry in the catalogue
    """The token proves nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(problem("TUL1007", NOWHERE, reason=reason))
        self.reason = reason


class _User(Struct):
    username: str = ""
    extra: dict[str, list[str]] = {}


class _Status(Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)
    audiences: list[str] = []
    error: str = ""


class _Review(Struct):
    status: _Status


class _OpenId(Struct):
    issuer: str


class _Memory(Struct, frozen=True):
    proven: Proven
    reviewed_at: float


class Reviewer:
    """Reviews tokens. `run` keeps the signing keys fresh."""

    def __init__(
        self,
        access: Access,
        audience: str,
        is_alive: Callable[[str, str, str], bool],
        *,
        clock: Callable[[], float] = time,
    ) -> None:
        """`is_alive(namespace, pod, uid)`: whether the pod is in the last good watch."""
        self._access = access
        self._audience = audience
        self._is_alive = is_alive
        self._clock = clock
        self._remembered: dict[bytes, _Memory] = {}
        self._refused: dict[bytes, tuple[float, str]] = {}
        self._keys = KeySet("", {})
        self._asking = asyncio.Semaphore(ASKING)
        self._away_until = 0.0
        self.reviews = 0
        """Asked of the API."""
        self.fallbacks = 0
        """Answered from memory or by the keys because the API was away."""

    async def review(self, token: str) -> Proven:
        """Who bears the token. Raises TokenRefused; Unreachable where the API is away and nothing else proves it."""
        now = self._clock()
        try:
            claims = claims_of(token)
        except TokenInvalidError as error:
            raise TokenRefused(str(error)) from None
        if claims.exp <= now:
            raise TokenRefused("it has ended")
        digest = hashlib.sha256(token.encode()).digest()
        until, reason = self._refused.get(digest, (0.0, ""))
        if now < until:
            raise TokenRefused(reason)
        memory = self._remembered.get(digest)
        if memory is None or now > memory.reviewed_at + FRESH_S:
            memory = await self._asked(token, digest, claims, memory)
        proven = memory.proven
        if not self._is_alive(proven.namespace, proven.pod, proven.uid):
            raise TokenRefused("its pod is not there")
        return proven

    async def run(self) -> None:
        """Read the signing keys, again and again, until cancelled."""
        while True:
            try:
                await self.read_keys()
            except KubeError:
                await asyncio.sleep(KEYS_S / 10)  # the keys read last stand
                continue
            await asyncio.sleep(KEYS_S)

    async def read_keys(self) -> None:
        """Read the cluster's issuer and signing keys. Raises as `Access.send`."""
        issuer = await self._access.get("/.well-known/openid-configuration")
        keys = await self._access.send("GET", "/openid/v1/jwks", accept="application/jwk-set+json, application/json")
        try:
            self._keys = keys_of(msgspec.json.decode(issuer, type=_OpenId).issuer, keys.body)
        except (msgspec.MsgspecError, TokenInvalidError) as error:
            raise Refused("GET", "/openid/v1/jwks", 0, "Unreadable", str(error)) from None

    async def _asked(self, token: str, digest: bytes, claims: Claims, memory: _Memory | None) -> _Memory:
        now = self._clock()
        try:
            proven = self._judged(await self._in_turn(token), claims)
        except TokenRefused as refused:
            self._remembered.pop(digest, None)
            if len(self._refused) >= REMEMBERED:
                self._refused.clear()
            self._refused[digest] = (now + REFUSED_S, refused.reason)
            raise
        except Unreachable:
            return self._without_api(token, memory, now)
        except Refused as refused:
            if refused.status < _AWAY_FROM and refused.status != _BUSY:
                raise
            return self._without_api(token, memory, now)
        self._remembered[digest] = _Memory(proven, now)
        self._forget(now)
        return self._remembered[digest]

    async def _in_turn(self, token: str) -> _Status:
        """The API's word. Raises Refused, and Unreachable at once while it is away."""
        async with self._asking:
            if self._clock() < self._away_until:
                raise Unreachable(self._access.server, "nor did it a moment ago")
            try:
                async with asyncio.timeout(ASK_S):
                    return await self._ask(token)
            except TimeoutError:
                self._away_until = self._clock() + AWAY_S
                raise Unreachable(self._access.server, f"silent for {ASK_S:.0f} s") from None
            except Unreachable:
                self._away_until = self._clock() + AWAY_S
                raise

    async def _ask(self, token: str) -> _Status:
        self.reviews += 1
        wanted = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        answer = await self._access.send("POST", _REVIEWS, body=msgspec.json.encode(wanted))
        try:
            return msgspec.json.decode(answer.body, type=_Review).status
        except msgspec.MsgspecError as error:
            raise Refused("POST", _REVIEWS, _AWAY_FROM, "Unreadable", str(error)) from None

    def _judged(self, status: _Status, claims: Claims) -> Proven:
        if not status.authenticated:
            raise TokenRefused(status.error[:200] or "the API does not know it")
        if self._audience not in status.audiences:
            raise TokenRefused("it is for another audience")
        namespace, _, account = status.user.username.removeprefix(_USER).partition(":")
        pod, uid = (_single(status.user.extra, name) for name in (_POD_NAME, _POD_UID))
        if not (status.user.username.startswith(_USER) and namespace and account):
            raise TokenRefused("it is no service account's")
        if not (pod and uid):
            raise TokenRefused("it is bound to no pod")
        # The API verified the token, so the end it states is its end.
        return Proven(uid, pod, namespace, account, claims.exp, _single(status.user.extra, _NODE_NAME))

    def _without_api(self, token: str, memory: _Memory | None, now: float) -> _Memory:
        self.fallbacks += 1
        if memory is not None:
            return memory
        if not self._keys.keys:
            raise Unreachable(self._access.server, "and its signing keys were never read")
        try:
            claims = verified(token, self._keys, self._audience, now)
        except TokenInvalidError as error:
            raise TokenRefused(str(error)) from None
        bound = claims.bound
        if bound is None or bound.pod is None:
            raise TokenRefused("it is bound to no pod")
        node = bound.node.name if bound.node is not None else ""
        # Not remembered: the API is asked as soon as it is back.
        return _Memory(
            Proven(bound.pod.uid, bound.pod.name, bound.namespace, bound.serviceaccount.name, claims.exp, node), now
        )

    def _forget(self, now: float) -> None:
        if len(self._remembered) <= REMEMBERED:
            return
        living = sorted(self._remembered.items(), key=lambda one: -one[1].proven.expires_at)[: REMEMBERED * 9 // 10]
        self._remembered = {digest: memory for digest, memory in living if memory.proven.expires_at > now}


def _single(extra: dict[str, list[str]], name: str) -> str:
    values = extra.get(name, [])
    return values[0] if len(values) == 1 else ""
