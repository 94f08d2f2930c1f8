"""Which packets of a pod go to its sidecar, which leave, which die: the fabric's nftables rules.

Istio's iptables rules (istio-init) in a network namespace of one pod, plus a filter that leaves no way around the
sidecar by UDP, ICMP or IPv6. Pure: fills a `nft.Batch`, which `pods` commits.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Final

from tulle.local.fabric import nft
from tulle.local.fabric.wire import BRIDGE, Capture, Network, Vip

OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006
OWN_PORTS: Final = (15006, 15008, 15020, 15021, 15090)
"""Ports of the sidecar that peers may reach directly."""
SIDECAR_MARK: Final = 1337

_TABLE: Final = "tulle"
_VIPS: Final = "tulle_vips"
_LEAVING: Final = nft.Hook("nat", nft.OUTPUT, -100, nft.ACCEPT)
_AFTER_CAPTURE: Final = nft.Hook("nat", nft.OUTPUT, -99, nft.ACCEPT)
"""Of two chains with one priority the younger runs first: the VIPs would take what belongs to the sidecar."""
_ARRIVING: Final = nft.Hook("nat", nft.PREROUTING, -100, nft.ACCEPT)
_SIDECAR_SOURCE: Final = IPv4Network("127.0.0.6/32")
_LOOPBACK: Final = IPv4Network("127.0.0.0/8")


def pod_rules(network: Network, capture: Capture) -> nft.Batch:
    """All rules of a new pod, VIPs excepted."""
    batch = nft.Batch()
    batch.table(nft.IPV4, _TABLE)
    if capture.outbound:
        _outbound(batch, capture)
    if capture.inbound:
        _inbound(batch, capture)
    _filter(batch, network)
    return batch


def _outbound(batch: nft.Batch, capture: Capture) -> None:
    batch.chain(nft.IPV4, _TABLE, "output", _LEAVING)

    def rule(*expressions: nft.Expression) -> None:
        batch.rule(nft.IPV4, _TABLE, "output", *expressions)

    leave, tcp = nft.verdict(nft.RETURN), nft.protocol_is(nft.TCP)
    redirect = nft.redirect_to(OUTBOUND_PORT)
    rule(nft.mark_is(SIDECAR_MARK), leave)
    rule(nft.source_in(_SIDECAR_SOURCE), leave)
    rule(nft.target_in(_LOOPBACK), leave)
    rule(nft.target_is_local(), leave)
    for port in capture.exclude_outbound_ports:
        rule(tcp, nft.target_port_is(port), leave)
    for cidr in capture.exclude_outbound_ranges:
        rule(nft.target_in(IPv4Network(cidr)), leave)
    for port in capture.include_outbound_ports:
        rule(tcp, nft.target_port_is(port), redirect)
    if capture.include_outbound_ranges is None:
        rule(tcp, redirect)
    for cidr in capture.include_outbound_ranges or ():
        rule(tcp, nft.target_in(IPv4Network(cidr)), redirect)


def _inbound(batch: nft.Batch, capture: Capture) -> None:
    batch.chain(nft.IPV4, _TABLE, "prerouting", _ARRIVING)
    tcp, redirect = nft.protocol_is(nft.TCP), nft.redirect_to(INBOUND_PORT)
    for port in (*OWN_PORTS, *capture.exclude_inbound_ports):
        batch.rule(nft.IPV4, _TABLE, "prerouting", tcp, nft.target_port_is(port), nft.verdict(nft.ACCEPT))
    if capture.include_inbound_ports is None:
        batch.rule(nft.IPV4, _TABLE, "prerouting", tcp, redirect)
    for port in capture.include_inbound_ports or ():
        batch.rule(nft.IPV4, _TABLE, "prerouting", tcp, nft.target_port_is(port), redirect)


def _filter(batch: nft.Batch, network: Network) -> None:
    accept = nft.verdict(nft.ACCEPT)
    dns = nft.target_in(IPv4Network(network.gateway))
    batch.table(nft.INET, _TABLE)
    # A packet dropped on its way out fails the sender's call with EPERM at once: no time-outs for the workload.
    batch.chain(nft.INET, _TABLE, "output", nft.Hook("filter", nft.OUTPUT, 0, nft.DROP))
    batch.rule(nft.INET, _TABLE, "output", nft.into_link("lo"), accept)
    # Whatever translates service addresses has had its turn: this one has no endpoints (kube-proxy refuses it too).
    services = nft.target_in(IPv4Network(network.services))
    batch.rule(nft.INET, _TABLE, "output", nft.is_ipv4(), nft.protocol_is(nft.TCP), services, nft.reset())
    batch.rule(nft.INET, _TABLE, "output", nft.is_ipv4(), nft.protocol_is(nft.TCP), accept)
    for port in (network.dns_port, network.world_dns_port):
        to_dns = (nft.is_ipv4(), dns, nft.protocol_is(nft.UDP), nft.target_port_is(port))
        batch.rule(nft.INET, _TABLE, "output", *to_dns, accept)
    batch.chain(nft.INET, _TABLE, "forward", nft.Hook("filter", nft.FORWARD, 0, nft.DROP))


def bridge_rules(network: Network) -> nft.Batch:
    """Rules of the bridge's namespace: TCP that pods send out of the mesh goes to the edge; nothing is forwarded."""
    batch = nft.Batch()
    batch.table(nft.IPV4, _TABLE)
    if network.egress_port is not None:
        batch.chain(nft.IPV4, _TABLE, "prerouting", _ARRIVING)
        batch.rule(
            nft.IPV4,
            _TABLE,
            "prerouting",
            nft.from_link(BRIDGE),
            nft.protocol_is(nft.TCP),
            nft.target_outside(IPv4Network(network.pods)),
            nft.target_outside(IPv4Network(network.services)),
            nft.redirect_to(network.egress_port),
        )
    return batch


def vip_rules(vips: tuple[Vip, ...]) -> nft.Batch:
    """The VIPs for what no sidecar captures, replacing those a pod had: kube-proxy's iptables mode, in the pod itself.

    Cost: one rule per endpoint. A VIP without endpoints, or without rules, refuses connections.
    """
    batch = nft.Batch()
    batch.table(nft.IPV4, _VIPS)
    batch.delete_table(nft.IPV4, _VIPS)
    batch.table(nft.IPV4, _VIPS)
    batch.chain(nft.IPV4, _VIPS, "output", _AFTER_CAPTURE)
    for vip in vips:
        here = (
            nft.protocol_is(nft.TCP),
            nft.target_in(IPv4Network(vip.address)),
            nft.target_port_is(vip.port),
        )
        for position, (address, port) in enumerate(vip.endpoints):
            chance = nft.one_in(len(vip.endpoints) - position)
            batch.rule(nft.IPV4, _VIPS, "output", *here, chance, nft.dnat_to(IPv4Address(address), port))
    return batch
