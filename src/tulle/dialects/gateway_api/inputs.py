"""What the dialect cannot know from objects: what became of a Gateway outside. Whoever runs gateways sets it, by the Gateway's key."""

from msgspec import Struct

from tulle.engine import Input
from tulle.model.keys import ObjectKey


class GatewayAddress(Struct, frozen=True):
    """One address of a Gateway."""

    type: str
    """`IPAddress` or `Hostname`."""
    value: str


class Deployed(Struct, frozen=True):
    """What is known of a Gateway's workloads."""

    addresses: tuple[GatewayAddress, ...] = ()
    is_programmed: bool = False
    """At least one proxy of it has acknowledged what the Gateway means now."""


deployed = Input[ObjectKey, Deployed]("gateway_deployed")
