package main

// Clients that hang up and come back on purpose: as a restarted proxy that knows nothing, or as Envoy does after a lost
// connection, saying which version of what it holds.

import (
	"context"
	"log"
	"net"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	stays int32 = iota
	forgets
	remembers
)

// comings: the part of a client that has to do with coming back.
type comings struct {
	versions [5]map[string]string // name -> version of what it holds, with -remember
	resumes  bool                 // this stream began with what is held
	answered [5]bool              // types answered since
	leaving  atomic.Int32         // why the stream is about to end
	hangUp   atomic.Pointer[context.CancelFunc]
	back     chan struct{}
	turn     sync.Mutex
}

func (c *comings) reset() {
	for k := range c.versions {
		c.versions[k] = map[string]string{}
	}
	c.resumes, c.answered = false, [5]bool{}
	if c.back == nil {
		c.back = make(chan struct{}, 1)
	}
}

// leavable: a context whose end is the end of the stream.
func (c *comings) leavable(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	c.hangUp.Store(&cancel)
	return ctx
}

func (c *comings) note(t int, x resource) {
	if *remember {
		c.versions[t][x.name] = string(x.version)
	}
}

// isAnswered: whether every wildcard was answered, where the client came back with all types at once. What is asked for by
// name and held in its newest version needs no answer.
func (c *comings) isAnswered(t int) bool {
	c.answered[t] = true
	return !c.resumes || c.answered[0] && c.answered[2] && (c.answered[4] || len(c.versions[4]) == 0)
}

func (c *comings) isBack() {
	select {
	case c.back <- struct{}{}:
	default:
	}
}

// leaves: the stream ended because it was told to; what the next one begins with.
func (c *client) leaves(err error) bool {
	switch c.leaving.Swap(stays) {
	case forgets:
		c.forget()
	case remembers:
		c.resumes, c.answered = true, [5]bool{}
		c.ready.Store(0)
	default:
		return false
	}
	return true
}

// forget everything, as a restarted proxy does.
func (c *client) forget() {
	n := newClient(c.i)
	c.have, c.edsNames, c.rdsNames = n.have, n.edsNames, n.rdsNames
	c.withHosts, c.gotHosts, c.missing, c.asked = n.withHosts, n.gotHosts, n.missing, n.asked
	c.ver, c.nonce, c.subscribed = n.ver, n.nonce, n.subscribed
	c.reset()
	c.ready.Store(0)
}

// resume: all types at once, each with what is held.
func (c *client) resume() error {
	names := [5][]string{nil, keys(c.edsNames), nil, keys(c.rdsNames), nil}
	if len(c.asked) > 0 {
		names[0] = append([]string{"*"}, keys(c.asked)...)
	}
	node := c.node
	for _, t := range []int{0, 1, 2, 3, 4} {
		if t == 4 && len(c.versions[4]) == 0 {
			continue
		}
		c.subscribed[t] = true
		if err := c.send(withVersions(deltaReq(node, tURL[t], "", names[t], nil), c.versions[t])); err != nil {
			return err
		}
		node = nil
	}
	return nil
}

// withVersions: DeltaDiscoveryRequest.initial_resource_versions (field 5).
func withVersions(b []byte, versions map[string]string) []byte {
	for name, version := range versions {
		b = appBytes(b, 5, appStr(appStr(nil, 1, name), 2, version))
	}
	return b
}

// place: where client i connects to.
func place(i int) string { return strings.ReplaceAll(*addr, "{i}", strconv.Itoa(i)) }

func options() []grpc.DialOption {
	stream, conn := int32(16<<20), int32(24<<20)
	if *window > 0 {
		stream, conn = int32(*window), int32(*window)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial),
		grpc.WithStaticStreamWindowSize(stream), grpc.WithStaticConnWindowSize(conn),
		grpc.WithReadBufferSize(64 << 10),
	}
}

func dial(ctx context.Context, where string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(where, "unix:"); ok {
		network, where = "unix", path
	}
	k, err := (&net.Dialer{}).DialContext(ctx, network, where)
	if err != nil {
		return nil, err
	}
	if tcp, ok := k.(*net.TCPConn); ok && *window > 0 {
		tcp.SetReadBuffer(*window)
	}
	return countingConn{k}, nil
}

func number(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

// reconnect: clients hang up and come back n times in all, so many at once; a time counts until it has everything again.
func reconnect(name string, n, atOnce int, cs []*client, rec *atomic.Int64) {
	a, r0 := take(), rec.Load()
	turns := make(chan int)
	var took []float64
	var failed atomic.Int64
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range atOnce {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for k := range turns {
				ms, ok := cs[k%len(cs)].comeBack(*remember && k/len(cs)%2 == 1)
				if !ok {
					failed.Add(1)
				}
				lock.Lock()
				took = append(took, ms)
				lock.Unlock()
			}
		}()
	}
	for k := range n {
		turns <- k
	}
	close(turns)
	workers.Wait()
	sort.Float64s(took)
	r := map[string]any{"phase": "reconnect", "trial": name, "count": n, "failed": failed.Load(), "reconnects": rec.Load() - r0,
		"p50_ms": pct(took, .5), "p99_ms": pct(took, .99), "last_ms": pct(took, 1)}
	a.report(take(), r)
	emit(r)
}

func (c *client) comeBack(withMemory bool) (float64, bool) {
	c.turn.Lock()
	defer c.turn.Unlock()
	select {
	case <-c.back:
	default:
	}
	began := time.Now()
	if withMemory {
		c.leaving.Store(remembers)
	} else {
		c.leaving.Store(forgets)
	}
	(*c.hangUp.Load())()
	select {
	case <-c.back:
		return float64(time.Since(began).Microseconds()) / 1e3, true
	case <-time.After(*trialTO):
		return float64(time.Since(began).Microseconds()) / 1e3, false
	}
}
