package main

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestSettingsThatAreRefused(t *testing.T) {
	for _, text := range []string{
		``, `{`, `[]`, `{"excludeInboundPort": [1]}`, `{"excludeInboundPorts": [65536]}`, `{"excludeInboundPorts": ["80"]}`,
		`{"excludeOutboundRanges": ["10.0.0.0"]}`, `{"excludeInterfaces": [""]}`, `{"virtualInterfaces": ["sixteen-letters-"]}`,
	} {
		if _, err := readSettings(text); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestAnEmptyListIsNothingAndNoListIsEverything(t *testing.T) {
	everything, err := readSettings(`{}`)
	if err != nil {
		t.Fatal(err)
	}
	nothing, err := readSettings(`{"includeInboundPorts": [], "includeOutboundRanges": []}`)
	if err != nil {
		t.Fatal(err)
	}
	if !everything.capturesInbound() || nothing.capturesInbound() {
		t.Error("inbound")
	}
	if len(outbound(everything)) != 1 || len(outbound(nothing)) != 0 {
		t.Error("outbound")
	}
}

func TestWhereCaptureCanBeSeen(t *testing.T) {
	for text, expected := range map[string]string{
		`{}`:                                 "192.0.2.1:80",
		`{"excludeOutboundPorts": [80, 81]}`: "192.0.2.1:82",
		`{"excludeOutboundRanges": ["10.0.0.0/8"]}`:  "192.0.2.1:80",
		`{"excludeOutboundRanges": ["192.0.0.0/8"]}`: "",
		`{"includeOutboundRanges": ["10.0.0.0/8"]}`:  "",
		`{"excludeInterfaces": ["eth0"]}`:            "",
	} {
		settings, err := readSettings(text)
		if err != nil {
			t.Fatal(err)
		}
		target, found := captured(settings)
		if found != (expected != "") || (found && target != netip.MustParseAddrPort(expected)) {
			t.Errorf("%s: %v %v", text, target, found)
		}
	}
}

func TestTheOutboundRuleOfTheSidecarsOwnSourceComesFirst(t *testing.T) {
	if rules := output(Settings{ExcludeInterfaces: []string{"eth1"}}); len(rules) != 7 {
		t.Errorf("%d rules", len(rules))
	}
	if !reflect.DeepEqual(output(Settings{})[0], rule(fromRange(sidecarSource), into("lo"), leave())) {
		t.Error("what the sidecar hands over would come back to it")
	}
}

func TestChainingIsOnceAndLastAndIsUndone(t *testing.T) {
	var list map[string]any
	if err := json.Unmarshal([]byte(`{"name": "n", "plugins": [{"type": "tulle-capture"}, {"type": "bridge"}]}`), &list); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		list = chained(list)
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), pluginName) != 1 || strings.Index(string(text), "bridge") > strings.Index(string(text), pluginName) {
		t.Error(string(text))
	}
	text, err = json.Marshal(unchained(list))
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != `{"name":"n","plugins":[{"type":"bridge"}]}` {
		t.Error(string(text))
	}
}
