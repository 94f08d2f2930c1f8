"""How a sample of Istio's standard metrics is written inside Envoy, and how it is read: one tag instead of two dozen.

Envoy formats every tag of every metric anew for each request: 24 tags on four metrics cost more than parsing the request
(docs/decisions/0011). So a series bears one tag with everything in it, and Istio's names and labels are made of it when
somebody asks: by a script in the proxy for Prometheus, by `expanded` for ours. Pure, and without the schema, because
supervisors load it. Which values there are is `observing`'s to know; the peer's word is judged here.

    reporter|protocol|code|flags|grpc|principal|service|own|other

`reporter` is s or d; `principal` is the other side's; `service` is `security;host;name;namespace`; `own` is what the workload
tells of itself (`telling`): `principal;workload;namespace;app;version;canonical;revision;cluster`. `other` stands last because a peer
wrote it: at the source the endpoint's `workload;…;cluster`, at the destination what the peer tells of itself, which
counts if it begins with the principal that its certificate proved.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

SCOPE: Final = "tulle"
TAG: Final = "m"
OWN: Final = ("workload", "namespace", "app", "version", "canonical", "revision", "cluster")
"""What a workload tells of itself after its principal."""
_LABELS: Final = (
    *("workload", "workload_namespace", "app", "version"),
    *("canonical_service", "canonical_revision", "cluster"),
)
"""Istio's labels after `source_` or `destination_`, in the order of `OWN`."""
_SERVICE: Final = (
    "connection_security_policy",
    *(f"destination_service{word}" for word in ("", "_name", "_namespace")),
)
_COLUMNS: Final = 9
_RAW: Final = f"envoy_{SCOPE}_istio_"
_SAMPLE: Final = re.compile(_RAW + r"(\w+)\{" + TAG + r'="([^"]*)"')


def told(values: Mapping[str, str]) -> str:
    """`OWN` of a workload or endpoint as one value."""
    return ";".join(values.get(word) or "unknown" for word in OWN)


def column(reporter: str, protocol: str, exchange: tuple[str, str, str], principal: str, *rest: str) -> str:
    """The format of the tag; `exchange` is code, flags and gRPC status, `rest` service, own and other."""
    return "|".join((reporter[0], protocol, *exchange, principal, *rest))


def expanded(text: str) -> str:
    """Prometheus' text of a proxy's admin interface, with Istio's metrics as Istio names and labels them. O(text)."""
    if _RAW not in text:
        return text
    if "\\" in text:  # a value with quotes is no label of ours; what is left of it cannot end one
        text = re.sub(r"\\.", "_", text)
    text = _SAMPLE.sub(lambda match: f"istio_{match[1]}{{{_labelled(match[2])}", text)
    return text.replace(f"# TYPE {_RAW}", "# TYPE istio_")


def labels(value: str) -> dict[str, str]:
    """Istio's labels of a series."""
    columns = value.split("|", _COLUMNS - 1)
    columns += [""] * (_COLUMNS - len(columns))
    reporter, protocol, code, flags, status, principal, service, own, other = columns
    principal = principal or "unknown"
    mine, its = own.split(";"), other.split(";")
    myself = mine[0] or "unknown"
    if reporter == "s":
        sides = {"source": mine[1:], "destination": its}
        own_principal = "unknown" if principal == "unknown" else myself
        principals = {"source": own_principal, "destination": principal}
    else:
        sides = {"source": its[1:] if its[0] == principal else [], "destination": mine[1:]}
        own_principal = myself if service.startswith("mutual_tls;") else "unknown"
        principals = {"source": principal, "destination": own_principal}
    found = {"reporter": "source" if reporter == "s" else "destination"}
    for side, values in sides.items():
        found |= _named(tuple(f"{side}_{label}" for label in _LABELS), values)
        found[f"{side}_principal"] = principals[side]
    found |= _named(_SERVICE, service.split(";"))
    found |= {"request_protocol": protocol, "response_flags": flags or "-"}
    if protocol != "tcp":
        found |= {"response_code": code, "grpc_response_status": status}
    return found


def _named(names: tuple[str, ...], values: list[str]) -> dict[str, str]:
    given = [*values, *[""] * len(names)]
    return {name: given[place] or "unknown" for place, name in enumerate(names)}


@lru_cache(maxsize=4096)
def _labelled(value: str) -> str:
    return ",".join(f'{name}="{text}"' for name, text in labels(value).items())


def _quoted(words: tuple[str, ...]) -> str:
    return ",".join(f'"{word}"' for word in words)


SCRIPT: Final = f"""
local LABELS = {{{_quoted(_LABELS)}}}
local SERVICE = {{{_quoted(_SERVICE)}}}
local function split(text, mark, most)
  local found, from = {{}}, 1
  while #found < most - 1 do
    local at = text:find(mark, from, true)
    if not at then break end
    found[#found + 1] = text:sub(from, at - 1)
    from = at + 1
  end
  found[#found + 1] = text:sub(from)
  return found
end
local function known(text)
  if text == nil or text == "" then return "unknown" end
  return text
end
local function labelled(value)
  local columns = split(value, "|", {_COLUMNS})
  local made = {{}}
  local function put(name, text) made[#made + 1] = name .. '="' .. text .. '"' end
  local function side(name, values, first, principal)
    for place, label in ipairs(LABELS) do put(name .. "_" .. label, known(values[place + first])) end
    put(name .. "_principal", principal)
  end
  local mine, its = split(columns[8] or "", ";", 99), split(columns[9] or "", ";", 99)
  local principal, myself, service = known(columns[6]), known(mine[1]), split(columns[7] or "", ";", 99)
  if columns[1] == "s" then
    put("reporter", "source")
    side("source", mine, 1, principal == "unknown" and principal or myself)
    side("destination", its, 0, principal)
  else
    put("reporter", "destination")
    side("source", its[1] == principal and its or {{}}, 1, principal)
    side("destination", mine, 1, service[1] == "mutual_tls" and myself or "unknown")
  end
  for place, name in ipairs(SERVICE) do put(name, known(service[place])) end
  put("request_protocol", columns[2] or "")
  put("response_flags", (columns[4] or "") == "" and "-" or columns[4])
  if columns[2] ~= "tcp" then
    put("response_code", columns[3] or "")
    put("grpc_response_status", columns[5] or "")
  end
  return table.concat(made, ",")
end
function envoy_on_response(handle)
  handle:headers():remove("content-length")
  local cached, rest = {{}}, ""
  for chunk in handle:bodyChunks() do
    local text = rest .. chunk:getBytes(0, chunk:length())
    local last = text:match(".*()\\n") or 0
    rest, text = text:sub(last + 1), text:sub(1, last)
    if text:find("\\\\", 1, true) then text = text:gsub("\\\\.", "_") end
    text = text:gsub('{_RAW}([%w_]+){{{TAG}="([^"]*)"', function(name, value)
      cached[value] = cached[value] or labelled(value)
      return "istio_" .. name .. "{{" .. cached[value]
    end)
    text = text:gsub("# TYPE {_RAW}", "# TYPE istio_")
    chunk:setBytes(text)
  end
end
"""
"""The same in the proxy: a Lua filter on the answers of the admin interface, chunk by chunk as they come."""
