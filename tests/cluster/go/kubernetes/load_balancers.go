package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"
	core "k8s.io/api/core/v1"
	faults "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// balancers gives Services of type LoadBalancer addresses out of a range, as a cloud does. The way to the addresses is
// a route to a node: kube-proxy there takes them for its own.
type balancers struct {
	client   kubernetes.Interface
	services listers.ServiceLister
	ranges   []netip.Prefix
}

func newLoadBalancers() *cobra.Command {
	var kubeconfig string
	var texts []string
	command := &cobra.Command{
		Use: "load-balancers",
		RunE: func(command *cobra.Command, _ []string) error {
			ranges := make([]netip.Prefix, 0, len(texts))
			for _, text := range texts {
				prefix, err := netip.ParsePrefix(text)
				if err != nil {
					return err
				}
				ranges = append(ranges, prefix)
			}
			return runLoadBalancers(command.Context(), kubeconfig, ranges)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API")
	command.Flags().StringSliceVar(&texts, "ranges", nil, "where the addresses come from, one range per family")
	return command
}

func runLoadBalancers(ctx context.Context, kubeconfig string, ranges []netip.Prefix) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	changed := make(chan struct{}, 1)
	notice := func() {
		select {
		case changed <- struct{}{}:
		default: // a look is due already
		}
	}
	_, err = services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notice() },
		UpdateFunc: func(any, any) { notice() },
		DeleteFunc: func(any) { notice() },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	all := &balancers{client: client, services: services.Lister(), ranges: ranges}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		if err := all.assign(ctx); err != nil {
			fmt.Println("load-balancers:", err)
			time.Sleep(time.Second)
			notice()
		}
	}
}

// assign looks at all Services; the addresses in use are what the Services say, nothing is remembered.
func (all *balancers) assign(ctx context.Context) error {
	services, err := all.services.List(labels.Everything())
	if err != nil {
		return err
	}
	taken := map[netip.Addr]bool{}
	for _, service := range services {
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			if address, err := netip.ParseAddr(ingress.IP); err == nil && service.Spec.Type == core.ServiceTypeLoadBalancer {
				taken[address] = true
			}
		}
	}
	var problems []error
	for _, service := range services {
		wanted := all.wanted(service, taken)
		if slices.EqualFunc(wanted, service.Status.LoadBalancer.Ingress, func(a, b core.LoadBalancerIngress) bool { return a.IP == b.IP }) {
			continue
		}
		fresh := service.DeepCopy()
		fresh.Status.LoadBalancer.Ingress = wanted
		_, err := all.client.CoreV1().Services(fresh.Namespace).UpdateStatus(ctx, fresh, meta.UpdateOptions{})
		if err != nil && !faults.IsNotFound(err) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// wanted is what the Service has, when that is right, else new addresses: the one it asks for or the first free ones.
func (all *balancers) wanted(service *core.Service, taken map[netip.Addr]bool) []core.LoadBalancerIngress {
	if service.Spec.Type != core.ServiceTypeLoadBalancer || service.DeletionTimestamp != nil {
		return nil
	}
	if service.Spec.LoadBalancerClass != nil {
		return service.Status.LoadBalancer.Ingress // somebody else's
	}
	var wanted []core.LoadBalancerIngress
	for _, family := range service.Spec.IPFamilies {
		if address, ok := all.address(service, family == core.IPv6Protocol, taken); ok {
			taken[address] = true
			wanted = append(wanted, core.LoadBalancerIngress{IP: address.String()})
		}
	}
	return wanted
}

func (all *balancers) address(service *core.Service, isV6 bool, taken map[netip.Addr]bool) (netip.Addr, bool) {
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if held, err := netip.ParseAddr(ingress.IP); err == nil && held.Is6() == isV6 {
			return held, true
		}
	}
	for _, prefix := range all.ranges {
		if prefix.Addr().Is6() != isV6 {
			continue
		}
		//nolint:staticcheck // the field has no successor in the API, and users set it
		if asked, err := netip.ParseAddr(service.Spec.LoadBalancerIP); err == nil && prefix.Contains(asked) && !taken[asked] {
			return asked, true
		}
		for address := prefix.Addr().Next(); prefix.Contains(address); address = address.Next() {
			if !taken[address] {
				return address, true
			}
		}
	}
	return netip.Addr{}, false
}
