package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
)

const (
	outboundPort = 15001
	inboundPort  = 15006
	tunnelPort   = 15008
	proxyUser    = 1337
)

// ownPorts are reached at the sidecar itself: inbound, tunnel, probes, readiness, metrics.
var ownPorts = []uint16{inboundPort, tunnelPort, 15020, 15021, 15090}

// Settings say which TCP of a pod its sidecar gets. Written by the injector; nil lists of "include" mean everything.
type Settings struct {
	IncludeInboundPorts   *[]uint16       `json:"includeInboundPorts,omitempty"`
	ExcludeInboundPorts   []uint16        `json:"excludeInboundPorts,omitempty"`
	IncludeOutboundRanges *[]netip.Prefix `json:"includeOutboundRanges,omitempty"`
	ExcludeOutboundRanges []netip.Prefix  `json:"excludeOutboundRanges,omitempty"`
	IncludeOutboundPorts  []uint16        `json:"includeOutboundPorts,omitempty"`
	ExcludeOutboundPorts  []uint16        `json:"excludeOutboundPorts,omitempty"`
	ExcludeInterfaces     []string        `json:"excludeInterfaces,omitempty"`
	VirtualInterfaces     []string        `json:"virtualInterfaces,omitempty"`
}

const longestInterface = 15

// readSettings refuses what it does not know: a word misread would be traffic that nobody secures.
func readSettings(text string) (Settings, error) {
	var settings Settings
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&settings); err != nil {
		return settings, fmt.Errorf("capture settings: %w", err)
	}
	for _, name := range append(append([]string{}, settings.ExcludeInterfaces...), settings.VirtualInterfaces...) {
		if name == "" || len(name) > longestInterface {
			return settings, fmt.Errorf("capture settings: %q is no name of an interface", name)
		}
	}
	return settings, nil
}

// capturesInbound tells whether any arriving connection goes to the sidecar.
func (s Settings) capturesInbound() bool {
	return s.IncludeInboundPorts == nil || len(*s.IncludeInboundPorts) > 0
}
