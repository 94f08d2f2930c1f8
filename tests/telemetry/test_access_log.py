"""Log lines in words. The lines are a real Envoy's, shortened to the fields that speak."""

import json

import pytest

from tulle.telemetry import access_log
from tulle.telemetry.access_log import Verdict

DENIED = {
    "reporter": "destination",
    "start_time": "2026-11-21T12:01:03.123Z",
    "method": "GET",
    "path": "/details/0",
    "authority": "details:9080",
    "response_code": 403,
    "response_flags": "-",
    "response_code_details": "rbac_access_denied_matched_policy[none]",
    "duration": 1,
    "downstream_peer": "spiffe://cluster.local/ns/default/sa/stranger",
    "verdict": "denied",
    "policy": None,
}
SEEN_BY_CLIENT = {
    **DENIED,
    "reporter": "source",
    "response_code_details": "via_upstream",
    "verdict": None,
    "upstream_cluster": "outbound|9080||details.default.svc.cluster.local",
    "upstream_host": "10.88.0.5:9080",
}
STRICT = {
    "reporter": "listener",
    "start_time": "2026-11-21T12:01:03.123Z",
    "response_flags": "NR",
    "response_code_details": "filter_chain_not_found",
    "downstream_remote_address": "10.88.0.9:40112",
    "downstream_local_address": "10.88.0.5:9080",
}
FOREIGN = {
    **STRICT,
    "response_code_details": None,
    "response_flags": "-",
    "downstream_transport_failure_reason": "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:"
    "verify_cert_failed:_SAN_matcher,_certificate_SANs_are_[spiffe://evil.org/ns/a/sa/client]:TLS_error_end",
}


def entry(fields: dict[str, object]) -> access_log.Entry:
    found = access_log.entry(json.dumps(fields))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            DENIED,
            (
                "← GET details:9080/details/0 403 1ms DENIED (no ALLOW policy matched)",
                "from mTLS cluster.local/ns/default/sa/stranger",
            ),
        ),
        (
            SEEN_BY_CLIENT,
            (
                "→ GET details:9080/details/0 403 1ms",
                "to outbound|9080||details.default.svc.cluster.local 10.88.0.5:9080",
            ),
        ),
        (
            STRICT,
            (
                "! TCP 10.88.0.5:9080 NR 0ms 0B in 0B out from 10.88.0.9:40112",
                "— plaintext, or another protocol, to a port that takes mesh mTLS only",
            ),
        ),
        (
            FOREIGN,
            (
                "! TCP 10.88.0.5:9080 0ms 0B in 0B out from 10.88.0.9:40112",
                "— the client's certificate was refused: it says spiffe://evil.org/ns/a/sa/client, which is not of this mesh",
            ),
        ),
    ],
)
def test_lines_in_words(fields: dict[str, object], words: tuple[str, str]) -> None:
    assert access_log.rendered(entry(fields)) == " ".join(("12:01:03.123", *words))


def test_the_rule_that_decided_is_named() -> None:
    policy = "rbac_access_denied_matched_policy[ns[default]-policy[no-secrets]-rule[2]]"
    found = entry({**DENIED, "response_code_details": policy})
    assert access_log.verdict(found) is Verdict.DENIED
    assert access_log.rule(found) == access_log.Rule("default", "no-secrets", 2)
    over_tcp = entry({"reporter": "destination", "connection_termination_details": policy})
    assert "DENIED (policy default/no-secrets rule 2)" in access_log.rendered(over_tcp)


def test_a_denial_is_said_by_the_side_that_made_it() -> None:
    assert access_log.verdict(entry(SEEN_BY_CLIENT)) is Verdict.NONE


def test_flags_are_words() -> None:
    found = entry({**SEEN_BY_CLIENT, "response_code": 503, "response_flags": "UF,URX"})
    assert access_log.reasons(found) == (
        "no connection to the upstream",
        "retried or connected as often as allowed, without success",
    )


@pytest.mark.parametrize("line", ["", "{", "[1]", "[2026-11-21][info] text", '{"reporter": 3}', '{"other": 1}'])
def test_other_lines_are_no_entries(line: str) -> None:
    assert access_log.entry(line) is None
