package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// nowhere is an address of documentation (RFC 5737): nobody answers there but a redirect.
var nowhere = netip.MustParseAddr("192.0.2.1")

// verify tells whether the outbound rules are in force, without any right: a connection to nowhere must come back to the
// sidecar's port, where nobody listens yet but us. It must not run as the sidecar's user.
func verify(s Settings) error {
	target, found := captured(s)
	if !found {
		return nil
	}
	listener, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", outboundPort))
	if err != nil {
		return fmt.Errorf("port %d: %w", outboundPort, err)
	}
	defer listener.Close()
	connection, err := net.DialTimeout("tcp4", target.String(), 2*time.Second)
	if err != nil {
		return errors.New("this pod's traffic is not captured: the CNI plugin of the mesh was not at work when the pod was made. Delete the pod; see the node agent tulle-cni on its node")
	}
	return connection.Close()
}

// captured is a place that the settings turn to the sidecar; false where none is known for certain.
func captured(s Settings) (netip.AddrPort, bool) {
	isNowhere := func(one netip.Prefix) bool { return one.Contains(nowhere) }
	if s.IncludeOutboundRanges != nil || len(s.ExcludeInterfaces) > 0 || slices.ContainsFunc(s.ExcludeOutboundRanges, isNowhere) {
		return netip.AddrPort{}, false
	}
	port := uint16(80)
	for slices.Contains(s.ExcludeOutboundPorts, port) {
		port++
	}
	return netip.AddrPortFrom(nowhere, port), true
}
