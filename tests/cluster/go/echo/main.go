// Command echo answers every request with what it saw, and is the client that asks: `client URL` sends requests from where
// it runs and prints what came back as lines `Key=Value`, in the form that the Gateway API's conformance suite reads
// (conformance/utils/echo). Flags are those of the suite's mesh/manifests.yaml. It knows nothing of any mesh.
package main

import (
	"fmt"
	"os"
)

func main() {
	arguments := os.Args[1:]
	run := serve
	if len(arguments) > 0 && arguments[0] == "client" {
		run, arguments = ask, arguments[1:]
	}
	if err := run(arguments); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
