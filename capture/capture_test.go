package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
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

func TestThePluginIsFoundWhereItIsChained(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "10-net.conflist")
	if isChained([]string{"-net", folder}) == nil {
		t.Error("there is no network")
	}
	if err := os.WriteFile(path, []byte(`{"name": "n", "plugins": [{"type": "bridge"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if isChained([]string{"-net", folder}) == nil {
		t.Error("it is not chained yet")
	}
	if _, err := rewrite(path, chained); err != nil {
		t.Fatal(err)
	}
	if err := isChained([]string{"-net", folder}); err != nil {
		t.Error(err)
	}
}

func TestAnAgentLeavesWithItsDaemonSetOnly(t *testing.T) {
	status, body := 0, ""
	server := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, asked *http.Request) {
		if asked.URL.Path != "/apis/apps/v1/namespaces/kube-system/daemonsets/tulle-cni" || asked.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked %s as %q", asked.URL, asked.Header.Get("Authorization"))
		}
		out.WriteHeader(status)
		fmt.Fprint(out, body)
	}))
	defer server.Close()
	folder := t.TempDir()
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, text := range map[string][]byte{"token": []byte("secret\n"), "ca.crt": root} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, one := range []struct {
		status          int
		body            string
		leaves, unknown bool
	}{
		{200, `{"metadata": {"name": "tulle-cni"}}`, false, false},
		{200, `{"metadata": {"deletionTimestamp": "2026-11-21T00:00:00Z"}}`, true, false},
		{200, `{`, false, true},
		{404, `{}`, true, false},
		{401, `{}`, true, false},
		{403, `{}`, true, false},
		{500, `{}`, false, true},
	} {
		status, body = one.status, one.body
		leaves, err := isLeaving(server.URL, folder, "kube-system/tulle-cni")
		if leaves != one.leaves || (err != nil) != one.unknown {
			t.Errorf("%d %s: %v %v", one.status, one.body, leaves, err)
		}
	}
	server.Close()
	if leaves, err := isLeaving(server.URL, folder, "kube-system/tulle-cni"); leaves || err == nil {
		t.Errorf("without an API: %v %v", leaves, err)
	}
}
