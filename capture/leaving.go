package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	account     = "/var/run/secrets/kubernetes.io/serviceaccount"
	answerLimit = 10 * time.Second
	mostAnswer  = 1 << 20
)

// isLeaving tells whether the DaemonSet (namespace/name) of this agent goes for good. Between two versions of an agent, and
// before it runs after a reboot, pods must be captured; so whoever cannot tell stays. An account that the API does not know
// any more was removed with its installation.
func isLeaving(server string, folder string, daemonSet string) (bool, error) {
	namespace, name, found := strings.Cut(daemonSet, "/")
	if !found {
		return false, fmt.Errorf("%q is no namespace/name", daemonSet)
	}
	token, err := os.ReadFile(filepath.Join(folder, "token"))
	if err != nil {
		return false, err
	}
	roots, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return false, err
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(roots) {
		return false, fmt.Errorf("no certificate in %s/ca.crt", folder)
	}
	limited, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	path := server + "/apis/apps/v1/namespaces/" + namespace + "/daemonsets/" + name
	request, err := http.NewRequestWithContext(limited, http.MethodGet, path, nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}}
	response, err := client.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusNotFound, http.StatusUnauthorized, http.StatusForbidden:
		return true, nil
	case http.StatusOK:
		return isDeleted(response.Body)
	}
	return false, fmt.Errorf("%s: %s", path, response.Status)
}

func isDeleted(body io.Reader) (bool, error) {
	var object struct {
		Metadata struct {
			DeletionTimestamp string `json:"deletionTimestamp"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(io.LimitReader(body, mostAnswer)).Decode(&object); err != nil {
		return false, err
	}
	return object.Metadata.DeletionTimestamp != "", nil
}

// apiServer is where pods find it (Kubernetes, "Accessing the API from a Pod").
func apiServer() string {
	return "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
}
