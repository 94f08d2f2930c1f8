// tulle-capture turns the TCP of a pod to its sidecar, by nftables over netlink: as an init container (`init`), or as a
// CNI plugin (`cni`, put on a node by `install-cni`), after which pods need no right of their own (`verify` looks).
package main

import (
	"fmt"
	"os"
)

const usage = `usage:
  tulle-capture init SETTINGS       make the rules in this network namespace (needs NET_ADMIN)
  tulle-capture verify SETTINGS     fail unless the rules are in force (needs no right)
  tulle-capture cni                 the CNI plugin: settings come in the pod's annotation tulle.dev/capture
  tulle-capture install-cni [-bin DIR] [-net DIR] [-agent NAMESPACE/NAME]
                                    put the plugin on this node and keep it in the network's configuration
  tulle-capture is-chained [-net DIR]
                                    fail unless the network's configuration calls the plugin
SETTINGS is JSON, {} for everything.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tulle-capture:", err)
		// Shown by kubectl as the reason why the container ended; nobody else reads it.
		_ = os.WriteFile("/dev/termination-log", []byte(err.Error()), 0o644)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) == 0 && os.Getenv("CNI_COMMAND") != "" {
		words = []string{"cni"}
	}
	switch {
	case len(words) == 2 && (words[0] == "init" || words[0] == "verify"):
		settings, err := readSettings(words[1])
		if err != nil {
			return err
		}
		if words[0] == "verify" {
			return verify(settings)
		}
		return install(settings, 0)
	case len(words) == 1 && words[0] == "cni":
		os.Exit(plugin(os.Stdin, os.Stdout, os.Getenv))
	case len(words) >= 1 && words[0] == "install-cni":
		return installPlugin(words[1:])
	case len(words) >= 1 && words[0] == "is-chained":
		return isChained(words[1:])
	}
	fmt.Fprint(os.Stderr, usage)
	return fmt.Errorf("not understood: %q", words)
}
