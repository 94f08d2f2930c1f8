// Command k is all of Kubernetes in one program, built from the ordinary modules: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl, and an allocator of load balancer addresses.
// "k server" is etcd and kube-apiserver in one process. It knows nothing of tulle; how a cluster is put together
// is said by tests/cluster/kubelab.
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"
	_ "time/tzdata"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

const (
	etcdClient = "http://127.0.0.1:2379"
	etcdPeer   = "http://127.0.0.1:2380"
	etcdLimit  = 30 * time.Second
)

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

// startEtcd serves one member from the folder and returns when it takes requests.
func startEtcd(folder string) {
	config := embed.NewConfig()
	client, _ := url.Parse(etcdClient)
	peer, _ := url.Parse(etcdPeer)
	config.Dir = folder
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	config.InitialCluster = config.Name + "=" + etcdPeer
	config.LogLevel = "warn"
	config.UnsafeNoFsync = true // a test cluster does not outlive its machine
	member, err := embed.StartEtcd(config)
	if err != nil {
		fail("etcd: %v", err)
	}
	select {
	case <-member.Server.ReadyNotify():
	case <-time.After(etcdLimit):
		fail("etcd: not ready after %s", etcdLimit)
	}
}

func main() {
	if len(os.Args) < 2 {
		fail("usage: %s server|etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kube-proxy|kubectl|load-balancers", filepath.Base(os.Args[0]))
	}
	name, arguments := os.Args[1], os.Args[2:]
	os.Args = append([]string{name}, arguments...)
	var command *cobra.Command
	switch name {
	case "server":
		startEtcd(os.Getenv("ETCD_FOLDER"))
		command = apiserver.NewAPIServerCommand()
	case "etcd":
		startEtcd(os.Getenv("ETCD_FOLDER"))
		select {}
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllers.NewControllerManagerCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		command = proxy.NewProxyCommand()
	case "load-balancers":
		command = newLoadBalancers()
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			fail("%v", err)
		}
		return
	default:
		fail("unknown program %q", name)
	}
	command.SetArgs(arguments)
	os.Exit(cli.Run(command))
}
