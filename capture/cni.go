package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// annotations is the capability by which container runtimes hand a pod's annotations to its plugins.
const (
	annotations       = "io.kubernetes.cri.pod-annotations"
	captureAnnotation = "tulle.dev/capture"
	defaultVersion    = "0.3.1"
)

var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// network is what a runtime says on standard input (CNI specification, section 2); the rest of it is not ours.
type network struct {
	CNIVersion    string                     `json:"cniVersion"`
	PrevResult    json.RawMessage            `json:"prevResult"`
	RuntimeConfig map[string]json.RawMessage `json:"runtimeConfig"`
}

// plugin answers one call of a container runtime; the value is its exit code.
//
// A chained plugin passes on the result of the one before it. Pods without the annotation are left alone; a pod with an
// annotation that cannot be obeyed is not started.
func plugin(in io.Reader, out io.Writer, environment func(string) string) int {
	var said network
	if err := json.NewDecoder(in).Decode(&said); err != nil {
		return refuse(out, defaultVersion, 6, fmt.Sprintf("network configuration: %v", err))
	}
	if said.CNIVersion == "" {
		said.CNIVersion = defaultVersion
	}
	switch command := environment("CNI_COMMAND"); command {
	case "VERSION":
		return answer(out, map[string]any{"cniVersion": versions[len(versions)-1], "supportedVersions": versions})
	case "DEL", "CHECK", "GC", "STATUS":
		return 0 // rules go with the network namespace they are in
	case "ADD":
		if err := capture(said, environment("CNI_NETNS")); err != nil {
			return refuse(out, said.CNIVersion, 100, err.Error())
		}
		if len(said.PrevResult) == 0 {
			return answer(out, map[string]any{"cniVersion": said.CNIVersion})
		}
		return answer(out, said.PrevResult)
	default:
		return refuse(out, said.CNIVersion, 4, fmt.Sprintf("CNI_COMMAND %q is unknown", command))
	}
}

func capture(said network, path string) error {
	raw, given := said.RuntimeConfig[annotations]
	if !given {
		return nil
	}
	found := map[string]string{}
	if err := json.Unmarshal(raw, &found); err != nil {
		return fmt.Errorf("annotations of the pod: %w", err)
	}
	text, wanted := found[captureAnnotation]
	if !wanted {
		return nil
	}
	settings, err := readSettings(text)
	if err != nil {
		return err
	}
	namespace, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer namespace.Close()
	return install(settings, int(namespace.Fd()))
}

func answer(out io.Writer, result any) int {
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return 1
	}
	return 0
}

func refuse(out io.Writer, version string, code int, reason string) int {
	answer(out, map[string]any{"cniVersion": version, "code": code, "msg": "tulle-capture: " + reason})
	return 1
}
