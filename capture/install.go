package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	pluginName = "tulle-capture"
	lookEvery  = 5 * time.Second
	// networkFolder is the node's, where the agent's pod mounts it.
	networkFolder = "/host/etc/cni/net.d"
)

// installPlugin runs until it is told to end: the plugin is put on the node, and into the network's configuration as its
// last plugin, again whenever somebody wrote that anew. At the end both are taken away, unless another agent follows.
func installPlugin(words []string) error {
	flags := flag.NewFlagSet("install-cni", flag.ContinueOnError)
	programs := flags.String("bin", "/host/opt/cni/bin", "folder of CNI plugins")
	networks := flags.String("net", networkFolder, "folder of CNI configuration")
	daemonSet := flags.String("agent", "", "NAMESPACE/NAME of the DaemonSet this belongs to: while it is there, the plugin stays")
	if err := flags.Parse(words); err != nil {
		return err
	}
	context, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	program := filepath.Join(*programs, pluginName)
	if err := copySelf(program); err != nil {
		return err
	}
	fmt.Println("plugin written to", program)
	keepChained(context, *networks)
	if *daemonSet != "" {
		leaves, err := isLeaving(apiServer(), account, *daemonSet)
		if err != nil {
			fmt.Fprintln(os.Stderr, "not known whether the agent leaves for good:", err)
		}
		if !leaves {
			fmt.Println("the plugin stays for the next agent")
			return nil
		}
	}
	path, err := chosen(*networks)
	if err == nil {
		_, err = rewrite(path, unchained)
	}
	// The program stays until no configuration names it, otherwise pods of this node could not be started.
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Println("the plugin leaves")
	return os.Remove(program)
}

// isChained fails unless the network's configuration calls the plugin: the agent's readiness.
func isChained(words []string) error {
	flags := flag.NewFlagSet("is-chained", flag.ContinueOnError)
	networks := flags.String("net", networkFolder, "folder of CNI configuration")
	if err := flags.Parse(words); err != nil {
		return err
	}
	path, err := chosen(*networks)
	if err != nil {
		return err
	}
	list, err := readNetwork(path)
	if err != nil {
		return err
	}
	plugins, _ := list["plugins"].([]any)
	if !slices.ContainsFunc(plugins, isOurs) {
		return fmt.Errorf("%s does not call %s", path, pluginName)
	}
	return nil
}

func keepChained(context context.Context, folder string) {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	said := ""
	for {
		path, err := chosen(folder)
		changed := false
		if err == nil {
			changed, err = rewrite(path, chained)
		}
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			fmt.Fprintln(os.Stderr, "waiting:", said)
		case changed:
			said = ""
			fmt.Println("plugin chained in", path)
		}
		select {
		case <-context.Done():
			return
		case <-ticks.C:
		}
	}
}

// copySelf replaces the program at once: a runtime may be calling it.
func copySelf(target string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	source, err := os.Open(self)
	if err != nil {
		return err
	}
	defer source.Close()
	fresh, err := os.CreateTemp(filepath.Dir(target), "."+pluginName)
	if err != nil {
		return err
	}
	defer os.Remove(fresh.Name()) // nothing is left of it unless we failed
	if _, err := io.Copy(fresh, source); err != nil {
		return errors.Join(err, fresh.Close())
	}
	if err := errors.Join(fresh.Chmod(0o755), fresh.Close()); err != nil {
		return err
	}
	return os.Rename(fresh.Name(), target)
}

// chosen is the configuration that runtimes use: the first by name.
func chosen(folder string) (string, error) {
	entries, err := os.ReadDir(folder) // sorted
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if suffix := filepath.Ext(entry.Name()); suffix == ".conflist" || suffix == ".conf" || suffix == ".json" {
			return filepath.Join(folder, entry.Name()), nil
		}
	}
	return "", fmt.Errorf("no network is configured in %s: %w", folder, os.ErrNotExist)
}

// rewrite edits a configuration; the value tells whether that changed it. A `.conf` becomes a `.conflist` before it.
func rewrite(path string, edit func(map[string]any) map[string]any) (bool, error) {
	list, err := readNetwork(path)
	if err != nil {
		return false, err
	}
	target := path
	if _, isList := list["plugins"]; !isList {
		list = map[string]any{"cniVersion": list["cniVersion"], "name": list["name"], "plugins": []any{list}}
		target = strings.TrimSuffix(path, filepath.Ext(path)) + ".conflist"
	}
	before, err := json.Marshal(list)
	if err != nil {
		return false, err
	}
	after, err := json.MarshalIndent(edit(list), "", "  ")
	if err != nil {
		return false, err
	}
	var short bytes.Buffer
	if err := json.Compact(&short, after); err != nil {
		return false, err
	}
	if bytes.Equal(before, short.Bytes()) {
		return false, nil
	}
	if err := replaceFile(target, append(after, '\n')); err != nil {
		return false, err
	}
	if target != path {
		return true, os.Remove(path)
	}
	return true, nil
}

func chained(list map[string]any) map[string]any {
	list = unchained(list)
	list["plugins"] = append(list["plugins"].([]any), map[string]any{
		"type":         pluginName,
		"capabilities": map[string]any{annotations: true},
	})
	return list
}

func unchained(list map[string]any) map[string]any {
	plugins, _ := list["plugins"].([]any)
	list["plugins"] = slices.DeleteFunc(plugins, isOurs)
	return list
}

func isOurs(plugin any) bool {
	fields, _ := plugin.(map[string]any)
	return fields["type"] == pluginName
}

func readNetwork(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list map[string]any
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

func replaceFile(path string, text []byte) error {
	// The name of the fresh file must be none that runtimes read.
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
