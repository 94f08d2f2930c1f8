"""Which proxy a word means: a pod, `pod.namespace`, `deploy/name`, or the beginning of a pod's name.

Knows `/v1/proxies` and `/v1/workloads` of the admin API.
"""

from collections.abc import Mapping
from typing import Any

from tulle.cli.connection import Connection
from tulle.cli.output import refuse, say

Proxy = Mapping[str, Any]
"""serve/wire.py, Proxy."""


def proxy_named(connection: Connection, word: str, namespace: str | None) -> Proxy:
    """The connected proxy that a word means. Of replicas the first is taken, and said. Ends the command where none fits."""
    proxies = [one for one in connection.get("/v1/proxies")["proxies"] if namespace in (None, "", one["namespace"])]
    found = matching(connection, proxies, word)
    if not found:
        refuse(f"no pod with a proxy is called {word}", advice="`tulle get proxies` lists them.")
    connected = [one for one in found if one["stream"]]
    if not connected:
        refuse(f"the proxy of {found[0]['id']} is not connected", advice="See `tulle ps` and `tulle check`.")
    if len(connected) > 1:
        say(f"{word} means {len(connected)} pods; this is {connected[0]['id']}")
    return connected[0]


def matching(connection: Connection, proxies: list[Proxy], word: str) -> list[Proxy]:
    """The proxies a word means: exactly, else by owner, else by the beginning of their name."""
    kind, slash, name = word.rpartition("/")
    if slash and kind in ("pod", "po", "pods"):
        word, slash = name, ""
    if not slash:
        exact = [one for one in proxies if word in (one["id"], one["pod"], f"{one['namespace']}/{one['pod']}")]
        if exact:
            return exact
        return [one for one in proxies if one["pod"].startswith(f"{word}-")]
    owned = {
        (one["namespace"], one["name"]) for one in connection.get("/v1/workloads")["workloads"] if one["owner"] == name
    }
    return [one for one in proxies if (one["namespace"], one["pod"]) in owned]
