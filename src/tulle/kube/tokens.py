"""Service account tokens as signed texts: what one says, and whether the cluster's keys signed it. Pure.

Source: RFC 7515 (compact serialization), RFC 7518 (RS256, ES256, ES384, ES512), RFC 7519; Kubernetes' private claim `kubernetes.io`.
"""

import base64
import binascii
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from msgspec import Struct

MAX_TOKEN = 16 * 1024
LEEWAY_S = 10.0
"""How far ahead the API's clock may be of ours."""
LEAST_RSA_BITS = 2048

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class TokenInvalidError(ValueError):
    """Not a token, or not one that counts. Never quotes it."""


class Named(Struct, frozen=True):
    """An object the token is bound to."""

    name: str
    uid: str = ""


class Bound(Struct, frozen=True):
    """The claim `kubernetes.io`."""

    namespace: str
    serviceaccount: Named
    pod: Named | None = None
    node: Named | None = None


class Claims(Struct, frozen=True):
    """What a token says."""

    exp: float
    iss: str = ""
    aud: list[str] | str = []
    nbf: float = 0.0
    bound: Bound | None = msgspec.field(name="kubernetes.io", default=None)


class _Header(Struct):
    alg: str
    kid: str = ""


class _Jwk(Struct):
    kty: str
    kid: str = ""
    use: str = "sig"
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""


class _Jwks(Struct):
    keys: list[_Jwk]


class KeySet(Struct, frozen=True):
    """Who signs, and with which keys."""

    issuer: str
    keys: Mapping[str, PublicKey]
    """By key id."""


_CURVES: Mapping[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_EC: Mapping[str, tuple[type[ec.EllipticCurve], hashes.HashAlgorithm, int]] = {
    "ES256": (ec.SECP256R1, hashes.SHA256(), 32),
    "ES384": (ec.SECP384R1, hashes.SHA384(), 48),
    "ES512": (ec.SECP521R1, hashes.SHA512(), 66),
}


def claims_of(token: str) -> Claims:
    """What a token says of itself; proves nothing. Raises TokenInvalidError."""
    return _parts(token)[1]


def keys_of(issuer: str, jwks: bytes) -> KeySet:
    """The keys of a JWK set; kinds that are not known are passed over. Raises TokenInvalidError where it is none."""
    try:
        found = msgspec.json.decode(jwks, type=_Jwks)
    except msgspec.MsgspecError as error:
        raise TokenInvalidError(f"not a key set: {error}") from None
    keys = {one.kid: key for one in found.keys if one.use == "sig" and (key := _key(one)) is not None}
    return KeySet(issuer, keys)


def verified(token: str, keys: KeySet, audience: str, now: float) -> Claims:
    """What a token says, once its signature, issuer, audience and time are in order. Raises TokenInvalidError."""
    header, claims, signed, signature = _parts(token)
    key = keys.keys.get(header.kid)
    if key is None:
        raise TokenInvalidError("no key of the cluster signed it")
    try:
        _check(header.alg, key, signed, signature)
    except InvalidSignature:
        raise TokenInvalidError("its signature is wrong") from None
    if claims.iss != keys.issuer:
        raise TokenInvalidError("another issuer made it")
    if audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
        raise TokenInvalidError("it is for another audience")
    if claims.exp <= now:
        raise TokenInvalidError("it has ended")
    if claims.nbf > now + LEEWAY_S:
        raise TokenInvalidError("it does not count yet")
    return claims


def _parts(token: str) -> tuple[_Header, Claims, bytes, bytes]:
    if len(token) > MAX_TOKEN or token.count(".") != 2 or not token.isascii():
        raise TokenInvalidError("it is no JSON web token")
    head, body, tail = token.split(".")
    try:
        header = msgspec.json.decode(_bytes(head), type=_Header)
        claims = msgspec.json.decode(_bytes(body), type=Claims)
        return header, claims, f"{head}.{body}".encode(), _bytes(tail)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise TokenInvalidError("it is no JSON web token") from None


def _check(algorithm: str, key: PublicKey, signed: bytes, signature: bytes) -> None:
    """Raises InvalidSignature. The key's kind decides what is accepted, never the token's word alone."""
    if isinstance(key, rsa.RSAPublicKey):
        if algorithm != "RS256":
            raise InvalidSignature
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        return
    curve, digest, size = _EC.get(algorithm, (None, hashes.SHA256(), 0))
    if curve is None or not isinstance(key.curve, curve) or len(signature) != 2 * size:
        raise InvalidSignature
    r, s = (int.from_bytes(part) for part in (signature[:size], signature[size:]))
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))


def _key(one: _Jwk) -> PublicKey | None:
    try:
        if one.kty == "RSA":
            found = rsa.RSAPublicNumbers(_number(one.e), _number(one.n)).public_key()
            return found if found.key_size >= LEAST_RSA_BITS else None
        if one.kty == "EC" and one.crv in _CURVES:
            return ec.EllipticCurvePublicNumbers(_number(one.x), _number(one.y), _CURVES[one.crv]()).public_key()
    except (ValueError, binascii.Error):
        return None
    return None


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text))


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
