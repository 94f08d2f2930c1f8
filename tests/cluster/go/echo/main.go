// Command echo answers every request with what it saw; under the name `client` it sends requests from where
// it runs and prints what came back as lines `Key=Value`, in the form that the Gateway API's conformance suite reads
// (conformance/utils/echo). Flags are those of the suite's mesh/manifests.yaml. It knows nothing of any mesh.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	run := serve
	if filepath.Base(os.Args[0]) == "client" {
		run = ask
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
