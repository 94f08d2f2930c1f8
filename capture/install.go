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
)

// installPlugin runs until it is told to end: the plugin is put on the node, and into the network's configuration as its
// last plugin, again whenever somebody wrote that anew. At the end both are taken away.
func installPlugin(words []string) error {
	flags := flag.NewFlagSet("install-cni", flag.ContinueOnError)
	programs := flags.String("bin", "/host/opt/cni/bin", "folder of CNI plugins")
	networks := flags.String("net", "/host/etc/cni/net.d", "folder of CNI configuration")
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
	path, err := chosen(*networks)
	if err == nil {
		_, err = rewrite(path, unchained)
	}
	// The program stays until no configuration names it, otherwise pods of this node could not be started.
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Remove(program)
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
	old, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	var list map[string]any
	if err := json.Unmarshal(old, &list); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
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
	list["plugins"] = slices.DeleteFunc(plugins, func(one any) bool {
		fields, _ := one.(map[string]any)
		return fields["type"] == pluginName
	})
	return list
}

func replaceFile(path string, text []byte) error {
	// The name of the fresh file must be none that runtimes read.
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
