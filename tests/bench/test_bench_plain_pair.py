"""The pair everything is compared with is a configuration Envoy takes, with certificates that fit."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from bench import pieces, plain_pair, ways

PLACES = {"port": 18000, "peer": "127.0.0.1", "peer_port": 18001, "backend": 18002, "alpn": "h2"}


@pytest.mark.envoy
@pytest.mark.parametrize("side", ["client", "server", "client-tcp", "server-tcp", "client-tunnel", "server-tunnel"])
@pytest.mark.parametrize("protocol", sorted({one.protocol for one in ways.TRAFFIC.values()}))
def test_envoy_takes_both_sides(tmp_path: Path, side: str, protocol: str) -> None:
    certs = plain_pair.certificates(tmp_path / "certs")
    admin = tmp_path / "a.sock"
    words = {"admin": admin, "certs": certs, "protocol": protocol, "upstream": protocol, **PLACES}
    path = plain_pair.configuration(side, tmp_path / "x.yaml", **words)
    assert "@port@" not in path.read_text()
    assert plain_pair.is_valid(ways.envoy(), path) == ""
    path.write_text(path.read_text().replace("filter_chains", "filter_chain"))
    assert "filter_chain" in plain_pair.is_valid(ways.envoy(), path)


def test_both_leaves_are_signed_by_the_root(tmp_path: Path) -> None:
    certs = plain_pair.certificates(tmp_path / "certs")
    root = x509.load_pem_x509_certificate((certs / "ca.pem").read_bytes())
    for side in ("client", "server"):
        leaf = x509.load_pem_x509_certificate((certs / f"{side}.pem").read_bytes())
        leaf.verify_directly_issued_by(root)
        assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
        assert side in str(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def test_a_step_has_the_steps_before_it(tmp_path: Path) -> None:
    manager = {
        "stat_prefix": "theirs",
        "generate_request_id": False,
        "http_filters": [{"name": "some"}, {"name": "envoy.filters.http.router"}],
        "access_log": [{"name": "envoy.access_loggers.stats"}, {"name": "envoy.access_loggers.file"}],
    }
    given = pieces.Pieces(
        {"client": manager, "server": manager},
        [{"header": {"key": "x"}}],
        {"client": {"of": "cluster"}},
        {"of": "place"},
        {"stats_config": {}},
    )
    found = {}
    for step in pieces.STEPS:
        words = {"admin": tmp_path / "a", "certs": tmp_path, "upstream": "http2_protocol_options", **PLACES}
        path = plain_pair.configuration("client", tmp_path / f"{step}.yaml", **words)
        pieces.put_in(given, "client", step, path)
        text = path.read_text()
        found[step] = [
            word in text
            for word in ('"generate_request_id": false', '"some"', "loggers.stats", "loggers.file", "stats_config")
        ]
        assert "theirs" not in text
    assert found == {
        "settings": [True, False, False, False, False],
        "peer": [True, True, False, False, False],
        "metrics": [True, True, True, False, False],
        "log": [True, True, True, True, False],
        "bootstrap": [True, True, True, True, True],
    }
