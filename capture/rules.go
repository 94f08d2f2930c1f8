package main

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
)

const table = "tulle"

var (
	sidecarSource = netip.MustParsePrefix("127.0.0.6/32")
	loopback      = netip.MustParsePrefix("127.0.0.0/8")
)

// chain is one chain to be made; hook is nil for one that others jump to.
type chain struct {
	name  string
	hook  *nftables.ChainHook
	rules []match
}

// chains are the rules of a pod, in the order they are made.
//
// One table for both families: TCP by IPv6 is turned to the sidecar's ports as well, where it does not listen. A pod
// with two families refuses by IPv6 what it could not secure.
func chains(s Settings) []chain {
	return []chain{
		{name: "inbound", rules: inbound(s)},
		{name: "outbound", rules: outbound(s)},
		{name: "output", hook: nftables.ChainHookOutput, rules: output(s)},
		{name: "prerouting", hook: nftables.ChainHookPrerouting, rules: prerouting(s)},
	}
}

func inbound(s Settings) []match {
	if !s.capturesInbound() {
		return nil
	}
	var rules []match
	for _, port := range append(append([]uint16{}, ownPorts...), s.ExcludeInboundPorts...) {
		rules = append(rules, rule(tcp(), toPort(port), leave()))
	}
	if s.IncludeInboundPorts == nil {
		return append(rules, rule(tcp(), redirect(inboundPort)))
	}
	for _, port := range *s.IncludeInboundPorts {
		rules = append(rules, rule(tcp(), toPort(port), redirect(inboundPort)))
	}
	return rules
}

func outbound(s Settings) []match {
	var rules []match
	for _, port := range s.ExcludeOutboundPorts {
		rules = append(rules, rule(tcp(), toPort(port), leave()))
	}
	for _, prefix := range s.ExcludeOutboundRanges {
		rules = append(rules, rule(toRange(prefix), leave()))
	}
	for _, port := range s.IncludeOutboundPorts {
		rules = append(rules, rule(tcp(), toPort(port), redirect(outboundPort)))
	}
	if s.IncludeOutboundRanges == nil {
		return append(rules, rule(tcp(), redirect(outboundPort)))
	}
	for _, prefix := range *s.IncludeOutboundRanges {
		rules = append(rules, rule(tcp(), toRange(prefix), redirect(outboundPort)))
	}
	return rules
}

func output(s Settings) []match {
	var rules []match
	for _, link := range s.ExcludeInterfaces {
		rules = append(rules, rule(into(link), leave()))
	}
	return append(rules,
		// What the sidecar hands to its workload. It stands before the next: that would come back to the sidecar.
		rule(fromRange(sidecarSource), into("lo"), leave()),
		// The sidecar calls its own pod as a peer: mTLS for the workload, which only its inbound side can end.
		rule(ofUser(proxyUser), into("lo"), tcp(), notToRange(loopback), notToPort(tunnelPort), jump("inbound")),
		rule(ofUser(proxyUser), leave()),
		rule(toRange(loopback), leave()),
		rule(toLocal(), leave()),
		rule(jump("outbound")),
	)
}

func prerouting(s Settings) []match {
	var rules []match
	for _, link := range s.ExcludeInterfaces {
		rules = append(rules, rule(from(link), leave()))
	}
	for _, link := range s.VirtualInterfaces {
		// A virtual machine behind its own link: what arrives there is what leaves the pod.
		rules = append(rules, rule(from(link), toLocal(), leave()), rule(from(link), jump("outbound")), rule(from(link), leave()))
	}
	return append(rules, rule(jump("inbound")))
}

// install makes the rules in the network namespace of a file descriptor (0: our own), in place of those made before.
// All of it or nothing.
func install(s Settings, namespace int) error {
	connection, err := nftables.New(nftables.WithNetNSFd(namespace))
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	mine := &nftables.Table{Family: nftables.TableFamilyINet, Name: table}
	// A table must exist to be deleted.
	connection.AddTable(mine)
	connection.DelTable(mine)
	connection.AddTable(mine)
	for _, one := range chains(s) {
		made := &nftables.Chain{Name: one.name, Table: mine}
		if one.hook != nil {
			made.Type, made.Hooknum, made.Priority = nftables.ChainTypeNAT, one.hook, nftables.ChainPriorityNATDest
		}
		connection.AddChain(made)
		for _, expressions := range one.rules {
			connection.AddRule(&nftables.Rule{Table: mine, Chain: made, Exprs: expressions})
		}
	}
	if err := connection.Flush(); err != nil {
		return fmt.Errorf("nftables: %w (NET_ADMIN and a kernel with nf_tables, nft_redir and nft_fib_inet are needed)", err)
	}
	return nil
}
