"""The schema is the binary's, private, and serialises deterministically; the generated types follow it."""

import datetime as dt
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseError

from tulle.xds import api, extract, names, schema
from tulle.xds.resource import Resource, SecretRef

ROOT = Path(__file__).parents[2]


def test_extraction_is_deterministic_and_current(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "x.xz", tmp_path / "b" / "x.xz"
    assert extract.write(first) == extract.write(second) > 500
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second, extract.ARTIFACT)}
    assert len(digests) == 1


def test_a_binary_without_the_api_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "envoy"
    binary.write_bytes(b"\x7fELF" + bytes(4096))
    with pytest.raises(extract.ExtractionError, match="holds no Envoy API"):
        extract.write(tmp_path / "out.xz", binary)


def test_every_name_of_the_vocabulary_exists() -> None:
    for name in (*api.MESSAGES, *api.ENUMS):
        assert getattr(api, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="add it to api"):
        _ = api.Sandwich  # type: ignore[attr-defined]


def test_the_pool_is_private() -> None:
    from google.protobuf import any_pb2, descriptor_pool

    assert schema.message("google.protobuf.Any") is not any_pb2.Any
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("envoy.config.cluster.v3.Cluster")


def test_maps_serialise_in_one_order() -> None:
    keys = [f"k{i}" for i in range(50)]
    forward = api.Metadata(filter_metadata={k: schema.struct({"v": k}) for k in keys})
    backward = api.Metadata(filter_metadata={k: schema.struct({"v": k}) for k in reversed(keys)})
    assert schema.to_bytes(forward) == schema.to_bytes(backward)
    assert schema.to_any_bytes(forward) == schema.to_bytes(schema.to_any(backward))


def test_any_and_json_go_both_ways() -> None:
    cluster = api.Cluster(
        name="c",
        type="EDS",
        connect_timeout=dt.timedelta(seconds=1.5),
        typed_extension_protocol_options={"router": schema.to_any(api.Router(suppress_envoy_headers=True))},
    )
    packed = schema.to_any_bytes(cluster)
    assert schema.from_any(packed) == cluster
    shown = schema.any_to_dict(packed)
    assert shown["@type"] == names.TypeUrl.CDS.value
    assert shown["typed_extension_protocol_options"]["router"]["suppress_envoy_headers"] is True
    assert shown["connect_timeout"] == "1.500s"
    del shown["@type"]
    assert schema.from_dict(api.MESSAGES["Cluster"], shown) == cluster


def test_misspelt_fields_and_values_are_refused() -> None:
    with pytest.raises(ParseError, match="nmae"):
        schema.from_dict(api.MESSAGES["Cluster"], {"nmae": "c"})
    with pytest.raises(ValueError, match="nmae"):
        api.Cluster(nmae="c")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="EDDS"):
        api.Cluster(type="EDDS")  # type: ignore[arg-type]


def test_a_resource_is_its_content() -> None:
    one, same = (Resource.of(api.Cluster(name="c", alt_stat_name="x"), "c") for _ in range(2))
    other = Resource.of(api.Cluster(name="c", alt_stat_name="y"), "c")
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert len(one.version) == 16
    assert "alt" not in repr(one)
    fragment = schema.to_bytes(api.Cluster(name="c")) + schema.to_bytes(api.Cluster(alt_stat_name="x"))
    assert Resource.glued(names.TypeUrl.CDS, "c", fragment) == one
    with pytest.raises(ValueError, match="Router"):
        Resource.of(api.Router(), "r")


def test_a_secret_reference_holds_no_key() -> None:
    reference = SecretRef(names.ResourceName("default"), "00ff")
    assert reference.version == "00ff"
    assert reference.type_url is names.TypeUrl.SDS


def test_names_are_istios() -> None:
    host = "reviews.default.svc.cluster.local"
    assert names.outbound(9080, host, "v1") == f"outbound|9080|v1|{host}"
    assert names.inbound(8080) == "inbound|8080||"
    assert names.sni(9080, host) == f"outbound_.9080_._.{host}"
    assert names.parse_cluster(names.outbound(9080, host, "v1")) == ("outbound", 9080, "v1", host)
    assert names.parse_cluster("BlackHoleCluster") is None
    assert names.parse_sni(names.sni(80, host, "v1")) == ("outbound", 80, "v1", host)
    assert names.parse_sni("example.com") is None
    assert [t.name for t in names.PUSH_ORDER] == ["SDS", "CDS", "EDS", "LDS", "RDS", "VHDS"]


def test_generated_types_are_current() -> None:
    checked = subprocess.run(
        [sys.executable, "tools/gen_api.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_generated_types_catch_mistakes(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from tulle.xds import api\n"
        'api.Cluster(name="c", type="EDS", lb_subset_config={})\n'
        "api.Cluster(nmae='c')\n"
        "api.Cluster(type='EDDS')\n"
        "api.Listener(filter_chains=[api.Cluster()])\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(wrong)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in found.stdout.splitlines() if "error:" in line]
    assert [line.split(":")[1] for line in lines] == ["3", "4", "5"], found.stdout + found.stderr
