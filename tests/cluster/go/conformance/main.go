// The official conformance suite of the Gateway API as a program: its flags are the suite's and those of `go test`.
package main

import (
	"regexp"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func matches(pattern, name string) (bool, error) {
	return regexp.MatchString(pattern, name)
}

func main() {
	tests := []testing.InternalTest{{Name: "TestConformance", F: conformance.RunConformance}}
	testing.Main(matches, tests, nil, nil)
}
