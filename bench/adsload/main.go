// adsload opens M simulated Envoy sidecar ADS streams to any ADS server.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

var (
	addr      = flag.String("addr", "127.0.0.1:15010", "ADS server, plaintext gRPC: host:port or unix:path; {i} is replaced")
	m         = flag.Int("m", 1, "number of simulated proxies")
	delta     = flag.Bool("delta", true, "delta xDS (false: state of the world)")
	nss       = flag.Int("namespaces", 4, "proxies are spread over this many namespaces")
	nsFmt     = flag.String("ns", "ns-%d", "namespace name format")
	idFmt     = flag.String("node-id", "sidecar~{ip}~app-{i}.{ns}~{ns}.svc.cluster.local", "node id; {i} {ip} {ns} are replaced")
	clFmt     = flag.String("node-cluster", "app.{ns}", "node cluster; {i} {ip} {ns} are replaced")
	metaFmt   = flag.String("metadata", `{"NAMESPACE":"{ns}","ISTIO_VERSION":"1.32.0","CLUSTER_ID":"Kubernetes","MESH_ID":"cluster.local","INTERCEPTION_MODE":"REDIRECT","INSTANCE_IPS":"{ip}","NAME":"app-{i}","WORKLOAD_NAME":"app","LABELS":{"app":"app","version":"v1"},"SERVICE_ACCOUNT":"default","PROXY_CONFIG":{}}`, "node metadata JSON; {i} {ip} {ns} are replaced")
	metaFile  = flag.String("metadata-file", "", "read node metadata JSON from this file")
	ipBase    = flag.String("ip-base", "10.250.0.0", "first proxy address")
	pid       = flag.Int("server-pid", 0, "report CPU and RSS of this process")
	types     = flag.String("types", "cds,eds,lds,rds", "types to ask for")
	connRate  = flag.Float64("conn-rate", 0, "new connections per second (0: all at once)")
	coldTO    = flag.Duration("cold-timeout", 180*time.Second, "give up the cold start after this")
	quiet     = flag.Duration("quiet", 1500*time.Millisecond, "a phase ends after this long without a response")
	trialTO   = flag.Duration("trial-timeout", 60*time.Second, "give up a trial after this")
	out       = flag.String("out", "", "append JSON result lines to this file")
	label     = flag.String("label", "", "label copied into every result line")
	dump      = flag.String("dump", "", "write the raw responses of client 0 to this directory")
	onDemand  = flag.Int("on-demand", 0, "each proxy asks for this many services by name (0: all by wildcard)")
	services  = flag.Int("services", 0, "with -on-demand: how many services there are; proxy i calls K in a row from i*K")
	vipFmt    = flag.String("vip", "vip/{ip}:80", "with -on-demand: name of a service's virtual host and door; {ip} is its address")
	vipBase   = flag.String("vip-base", "240.0.0.0", "with -on-demand: the address before that of service 0")
	window    = flag.Int("window", 0, "so many bytes may be on their way to a client (0: plenty)")
	stopAfter = flag.Int64("stop-after", 0, "stop this process (SIGSTOP) when it has read so many bytes")
	remember  = flag.Bool("remember", false, "keep versions: every other time, clients come back as Envoy does, saying what they hold")
	wantTypes = map[string]bool{}
)

// ---- interning of names
var internMu sync.RWMutex
var internTab = map[string]string{}

func intern(b []byte) string {
	internMu.RLock()
	s, ok := internTab[string(b)]
	internMu.RUnlock()
	if ok {
		return s
	}
	internMu.Lock()
	defer internMu.Unlock()
	s = string(b)
	internTab[s] = s
	return s
}

// ---- raw codec
type frame struct{ b []byte }
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*frame).b)}, nil
}
func (rawCodec) Unmarshal(d mem.BufferSlice, v any) error {
	v.(*frame).b = d.Materialize()
	return nil
}

// ---- counters
type counters struct {
	msgs, bytes, resources, removed [5]atomic.Int64
	wire                            atomic.Int64
	nacks                           atomic.Int64
	changedRes                      atomic.Int64
}

type countingConn struct {
	net.Conn
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if all := cnt.wire.Add(int64(n)); *stopAfter > 0 && all >= *stopAfter && all-int64(n) < *stopAfter {
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	return n, err
}

var cnt counters
var lastResp atomic.Int64 // unix ns of the last response by any client

func tIdx(t string) int {
	switch t {
	case typeCDS:
		return 0
	case typeEDS:
		return 1
	case typeLDS:
		return 2
	case typeRDS:
		return 3
	case typeVHDS:
		return 4
	}
	return -1
}

var tURL = [5]string{typeCDS, typeEDS, typeLDS, typeRDS, typeVHDS}
var tName = [5]string{"CDS", "EDS", "LDS", "RDS", "VHDS"}

type client struct {
	i          int
	node       []byte
	have       [5]map[uint64]uint64 // name hash -> body hash
	edsNames   map[string]bool
	rdsNames   map[string]bool
	withHosts  map[string]bool // route configurations that have their virtual hosts by VHDS
	gotHosts   map[string]bool // those of them of which a virtual host came
	missing    map[string]bool // virtual hosts it needs that did not come yet, or whose door did not
	asked      map[string]bool // those of them that it asked for: clusters of these names, the doors, end the wait
	callsFirst bool            // it calls service 0, the one that trials edit
	weights    string          // of the newest route with weights that changed
	ver, nonce [5]string
	subscribed [5]bool
	ready      atomic.Int64 // unix ns
	tStart     int64
	lastChange atomic.Int64 // last response that changed anything
	firstChg   atomic.Int64
	bytes      atomic.Int64
	err        atomic.Value
	send       func([]byte) error
	dumpN      int
	comings    // reconnecting on purpose (churn.go)
}

func repl(s string, i int, ip, ns string) string {
	return strings.NewReplacer("{i}", strconv.Itoa(i), "{ip}", ip, "{ns}", ns).Replace(s)
}

// address: the nth after base.
func address(base string, n int) string {
	b := net.ParseIP(base).To4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return net.IPv4(byte(v>>24), byte(v>>16), byte(v>>8), byte(v)).String()
}

func newClient(i int) *client {
	ip := address(*ipBase, i+1)
	ns := *nsFmt
	if strings.Contains(ns, "%d") {
		ns = fmt.Sprintf(ns, i%*nss)
	}
	st := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(repl(*metaFmt, i, ip, ns)), st); err != nil {
		log.Fatalf("metadata: %v", err)
	}
	c := &client{i: i, node: nodeBytes(repl(*idFmt, i, ip, ns), repl(*clFmt, i, ip, ns), st)}
	for k := range c.have {
		c.have[k] = map[uint64]uint64{}
	}
	c.edsNames, c.rdsNames = map[string]bool{}, map[string]bool{}
	c.withHosts, c.gotHosts = map[string]bool{}, map[string]bool{}
	c.missing, c.asked = map[string]bool{}, map[string]bool{}
	c.comings.reset()
	for k := 0; k < *onDemand; k++ {
		service := (i**onDemand + k) % *services
		c.callsFirst = c.callsFirst || service == 0
		name := strings.ReplaceAll(*vipFmt, "{ip}", address(*vipBase, service+1))
		c.missing[name] = true
	}
	return c
}

func keys(m map[string]bool) []string {
	r := make([]string, 0, len(m))
	for k := range m {
		r = append(r, k)
	}
	sort.Strings(r)
	return r
}

func (c *client) run(ctx context.Context, conn *grpc.ClientConn) error {
	method := "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	if *delta {
		method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method,
		grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(1<<30))
	if err != nil {
		return err
	}
	c.send = func(b []byte) error { return s.SendMsg(&frame{b}) }
	// First request carries the node. Envoy asks CDS first; LDS once the clusters are there.
	first := 0
	if !wantTypes["cds"] {
		first = 2
	}
	if c.resumes {
		err = c.resume()
	} else {
		err = c.subscribe(first, nil, c.node)
	}
	if err != nil {
		return err
	}
	var f frame
	for {
		if err := s.RecvMsg(&f); err != nil {
			return err
		}
		if err := c.handle(f.b); err != nil {
			return err
		}
	}
}

func (c *client) subscribe(t int, names []string, node []byte) error {
	c.subscribed[t] = true
	if *delta {
		return c.send(deltaReq(node, tURL[t], "", names, nil))
	}
	return c.send(sotwReq(node, tURL[t], c.ver[t], c.nonce[t], names))
}

func diff(cur, next map[string]bool) (add, del []string) {
	for k := range next {
		if !cur[k] {
			add = append(add, k)
		}
	}
	for k := range cur {
		if !next[k] {
			del = append(del, k)
		}
	}
	sort.Strings(add)
	sort.Strings(del)
	return
}

func (c *client) handle(b []byte) error {
	var r response
	var err error
	if *delta {
		err = parseDelta(b, &r)
	} else {
		err = parseSotw(b, &r)
	}
	if err != nil {
		return err
	}
	now := time.Now().UnixNano()
	t := tIdx(r.typeURL)
	if t < 0 {
		return fmt.Errorf("unexpected type %q", r.typeURL)
	}
	if *dump != "" && c.i == 0 {
		os.WriteFile(fmt.Sprintf("%s/%03d-%s.pb", *dump, c.dumpN, tName[t]), b, 0o644)
		c.dumpN++
	}
	cnt.msgs[t].Add(1)
	cnt.bytes[t].Add(int64(len(b)))
	cnt.resources[t].Add(int64(len(r.resources)))
	cnt.removed[t].Add(int64(len(r.removed)))
	c.bytes.Add(int64(len(b)))
	c.ver[t], c.nonce[t] = r.version, r.nonce

	// what changed?
	changed := 0
	full := !*delta && t != 1 && t != 3 // SotW CDS/LDS are complete sets
	seen := map[uint64]bool(nil)
	if full {
		seen = make(map[uint64]bool, len(r.resources))
	}
	for _, x := range r.resources {
		k, v := h64([]byte(x.name)), h64(x.body)
		if full {
			seen[k] = true
		}
		if o, ok := c.have[t][k]; !ok || o != v {
			c.have[t][k] = v
			c.note(t, x)
			changed++
			if w := weightsOf(t, x.body); w != "" {
				c.weights = w
			}
		}
		if t == 3 && hasVHDS(x.body) {
			c.withHosts[x.name] = true
		}
		if t == 4 {
			table, _, _ := strings.Cut(x.name, "/")
			c.gotHosts[table] = true
			if !c.asked[x.name] {
				delete(c.missing, x.name)
			}
		}
		if t == 0 && c.asked[x.name] {
			delete(c.missing, x.name)
		}
	}
	for _, n := range r.removed {
		delete(c.versions[t], n)
		k := h64([]byte(n))
		if _, ok := c.have[t][k]; ok {
			delete(c.have[t], k)
			changed++
		}
	}
	if full {
		for k := range c.have[t] {
			if !seen[k] {
				delete(c.have[t], k)
				changed++
			}
		}
	}
	lastResp.Store(now)
	if changed > 0 {
		cnt.changedRes.Add(int64(changed))
		c.lastChange.Store(now)
		c.firstChg.CompareAndSwap(0, now)
	}

	// ACK, then follow-up subscriptions
	nextE, nextR := c.edsNames, c.rdsNames
	switch t {
	case 0:
		if *delta {
			nextE = make(map[string]bool, len(c.edsNames)+1)
			for k := range c.edsNames {
				nextE[k] = true
			}
			for _, n := range r.removed {
				delete(nextE, n)
			}
		} else {
			nextE = make(map[string]bool, len(r.resources))
		}
		for _, x := range r.resources {
			if ok, svc := isEDS(x.body); ok {
				if svc == "" {
					svc = x.name
				}
				nextE[svc] = true
			}
		}
	case 2:
		nextR = map[string]bool{}
		if *delta { // additive; listeners seldom go away
			for k := range c.rdsNames {
				nextR[k] = true
			}
		}
		for _, x := range r.resources {
			rdsNames(x.body, nextR)
		}
	}
	ackNames := []string(nil)
	if !*delta {
		if t == 1 {
			ackNames = keys(c.edsNames)
		} else if t == 3 {
			ackNames = keys(c.rdsNames)
		}
		if err := c.send(sotwReq(nil, tURL[t], c.ver[t], c.nonce[t], ackNames)); err != nil {
			return err
		}
	} else if err := c.send(deltaReq(nil, tURL[t], c.nonce[t], nil, nil)); err != nil {
		return err
	}
	if t == 0 && wantTypes["eds"] {
		if err := c.follow(1, &c.edsNames, nextE); err != nil {
			return err
		}
	}
	if t == 2 && wantTypes["rds"] {
		if err := c.follow(3, &c.rdsNames, nextR); err != nil {
			return err
		}
	}
	if t == 3 && len(c.withHosts) > 0 && !c.subscribed[4] { // as Envoy does: one wildcard for all of them
		if err := c.subscribe(4, nil, nil); err != nil {
			return err
		}
	}
	if t == 4 && len(c.asked) == 0 && len(c.missing) > 0 {
		// what requests would wait for that have no virtual host; names after a wildcard leave it as it is
		for name := range c.missing {
			c.asked[name] = true
		}
		if err := c.subscribe(0, keys(c.asked), nil); err != nil {
			return err
		}
	}
	if c.ready.Load() == 0 {
		cds := !wantTypes["cds"] || c.subscribed[0] && len(c.have[0]) > 0
		eds := !wantTypes["eds"] || cds && len(c.have[1]) >= len(c.edsNames)
		if cds && eds && !c.subscribed[2] && wantTypes["lds"] {
			return c.subscribe(2, nil, nil)
		}
		lds := !wantTypes["lds"] || c.subscribed[2] && (len(c.have[2]) > 0 || t == 2)
		rds := !wantTypes["rds"] || lds && len(c.have[3]) >= len(c.rdsNames)
		if cds && eds && lds && rds && len(c.gotHosts) >= len(c.withHosts) && len(c.missing) == 0 && c.isAnswered(t) {
			c.ready.Store(now)
			c.isBack()
		}
	}
	return nil
}

func (c *client) follow(t int, cur *map[string]bool, next map[string]bool) error {
	add, del := diff(*cur, next)
	*cur = next
	if len(add) == 0 && len(del) == 0 {
		return nil
	}
	for _, n := range del {
		delete(c.have[t], h64([]byte(n)))
		delete(c.versions[t], n)
	}
	c.subscribed[t] = true
	if *delta {
		return c.send(deltaReq(nil, tURL[t], "", add, del))
	}
	return c.send(sotwReq(nil, tURL[t], c.ver[t], c.nonce[t], keys(next)))
}

// ---- process accounting
func procCPU(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+2:])
	u, _ := strconv.ParseFloat(f[11], 64)
	k, _ := strconv.ParseFloat(f[12], 64)
	return (u + k) / 100
}

func procRSS(pid int) (rss, hwm int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) > 1 && f[0] == "VmRSS:" {
			rss, _ = strconv.ParseInt(f[1], 10, 64)
		}
		if len(f) > 1 && f[0] == "VmHWM:" {
			hwm, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return rss / 1024, hwm / 1024
}

func selfCPU() float64 {
	var r syscall.Rusage
	syscall.Getrusage(0, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

// busy CPU seconds of the whole machine
func sysBusy() float64 {
	b, _ := os.ReadFile("/proc/stat")
	f := strings.Fields(strings.SplitN(string(b), "\n", 2)[0])
	t := 0.0
	for i, x := range f[1:9] {
		if i == 3 || i == 4 {
			continue
		}
		v, _ := strconv.ParseFloat(x, 64)
		t += v
	}
	return t / 100
}

type snap struct {
	srv, self, busy float64
	at              time.Time
	msgs, bytes     [5]int64
	wire, changed   int64
	res             [5]int64
}

func take() (s snap) {
	if *pid > 0 {
		s.srv = procCPU(*pid)
	}
	s.self, s.busy, s.at = selfCPU(), sysBusy(), time.Now()
	for i := range s.msgs {
		s.msgs[i], s.bytes[i], s.res[i] = cnt.msgs[i].Load(), cnt.bytes[i].Load(), cnt.resources[i].Load()
	}
	s.wire, s.changed = cnt.wire.Load(), cnt.changedRes.Load()
	return
}

func r3(f float64) float64 { return float64(int64(f*1000+0.5)) / 1000 }

func (a snap) report(b snap, m map[string]any) {
	m["server_cpu_s"], m["client_cpu_s"] = r3(b.srv-a.srv), r3(b.self-a.self)
	m["other_cpu_s"] = r3(b.busy - a.busy - (b.srv - a.srv) - (b.self - a.self))
	m["window_s"] = r3(b.at.Sub(a.at).Seconds())
	var tot int64
	for i := range a.msgs {
		if b.msgs[i] > a.msgs[i] {
			m["msgs_"+tName[i]] = b.msgs[i] - a.msgs[i]
			m["bytes_"+tName[i]] = b.bytes[i] - a.bytes[i]
			m["res_"+tName[i]] = b.res[i] - a.res[i]
			tot += b.bytes[i] - a.bytes[i]
		}
	}
	m["bytes"] = tot
	m["wire_bytes"] = b.wire - a.wire
	m["changed_resources"] = b.changed - a.changed
	if *pid > 0 {
		rss, hwm := procRSS(*pid)
		m["server_rss_mib"], m["server_hwm_mib"] = rss, hwm
	}
	rss, _ := procRSS(os.Getpid())
	m["client_rss_mib"] = rss
	la, _ := os.ReadFile("/proc/loadavg")
	m["loadavg"] = strings.Fields(string(la))[0]
}

func emit(m map[string]any) {
	m["label"], m["m"], m["delta"] = *label, *m_(), *delta
	b, _ := json.Marshal(m)
	fmt.Println(string(b))
	if *out != "" {
		f, err := os.OpenFile(*out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			fmt.Fprintln(f, string(b))
			f.Close()
		}
	}
}

func m_() *int { return m }

func pct(v []float64, p float64) float64 {
	if len(v) == 0 {
		return -1
	}
	return r3(v[int(p*float64(len(v)-1)+0.5)])
}

func main() {
	flag.Parse()
	for _, t := range strings.Split(*types, ",") {
		wantTypes[t] = true
	}
	if *metaFile != "" {
		b, err := os.ReadFile(*metaFile)
		if err != nil {
			log.Fatal(err)
		}
		*metaFmt = string(b)
	}
	if *dump != "" {
		os.MkdirAll(*dump, 0o755)
	}
	cs := make([]*client, *m)
	for i := range cs {
		cs[i] = newClient(i)
	}
	ctx := context.Background()
	a := take()
	var rec atomic.Int64
	for i, c := range cs {
		if *connRate > 0 && i > 0 {
			time.Sleep(time.Duration(float64(time.Second) / *connRate))
		}
		c.tStart = time.Now().UnixNano()
		go func() {
			for {
				conn, err := grpc.NewClient("passthrough:///"+place(c.i), options()...)
				if err == nil {
					err = c.run(c.leavable(ctx), conn)
					conn.Close()
				}
				if c.leaves(err) {
					continue
				}
				c.err.Store(fmt.Sprint(err))
				rec.Add(1)
				log.Printf("client %d: stream ended: %v; retry in 1s", c.i, err)
				c.forget() // as a restarted proxy
				time.Sleep(time.Second)
			}
		}()
	}
	dl := time.Now().Add(*coldTO)
	nready := 0
	for time.Now().Before(dl) {
		nready = 0
		for _, c := range cs {
			if c.ready.Load() != 0 {
				nready++
			}
		}
		if nready == len(cs) {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	b0 := take() // at the moment all are ready
	waitQuiet(*quiet, dl)
	b := take()
	var lat, own []float64
	for _, c := range cs {
		if r := c.ready.Load(); r != 0 {
			lat = append(lat, float64(r-a.at.UnixNano())/1e6)
			own = append(own, float64(r-c.tStart)/1e6)
		}
	}
	sort.Float64s(lat)
	sort.Float64s(own)
	r := map[string]any{"phase": "cold", "ready": nready, "reconnects": rec.Load(),
		"first_ms": pct(lat, 0), "p50_ms": pct(lat, .5), "p99_ms": pct(lat, .99), "last_ms": pct(lat, 1),
		"server_cpu_to_ready_s": r3(b0.srv - a.srv),
		"bytes_per_proxy": (func() int64 {
			var t int64
			for i := range b.bytes {
				t += b.bytes[i]
			}
			return t / int64(*m)
		})(),
		"clusters": len(cs[0].have[0]), "eds": len(cs[0].have[1]), "listeners": len(cs[0].have[2]), "routes": len(cs[0].have[3]), "hosts": len(cs[0].have[4])}
	a.report(b, r)
	emit(r)

	// trials from stdin:   NAME: COMMAND
	// COMMAND is "@rename SRC DST" (done in-process) or a shell command
	sc := bufio.NewScanner(os.Stdin)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if d, ok := strings.CutPrefix(line, "sleep "); ok {
			if x, err := time.ParseDuration(d); err == nil {
				time.Sleep(x)
			}
			continue
		}
		name, cmd, ok := strings.Cut(line, ": ")
		if !ok {
			log.Printf("bad line %q", line)
			continue
		}
		if f := strings.Fields(cmd); len(f) == 3 && f[0] == "@reconnect" {
			reconnect(name, number(f[1]), number(f[2]), cs, &rec)
			continue
		}
		trial(name, cmd, cs, &rec)
	}
}

// holders: how many proxies hold service 0, which trials edit.
func holders(cs []*client) int {
	if *onDemand == 0 {
		return len(cs)
	}
	n := 0
	for _, c := range cs {
		if c.callsFirst {
			n++
		}
	}
	return n
}

func waitQuiet(q time.Duration, dl time.Time) {
	start := time.Now().UnixNano()
	for time.Now().Before(dl) {
		l := max(lastResp.Load(), start)
		if time.Now().UnixNano()-l > int64(q) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func trial(name, cmd string, cs []*client, rec *atomic.Int64) {
	for _, c := range cs {
		c.lastChange.Store(0)
		c.firstChg.Store(0)
		c.weights = ""
	}
	r0 := rec.Load()
	a := take()
	var err error
	t0 := time.Now()
	if f := strings.Fields(cmd); len(f) == 3 && f[0] == "@rename" {
		err = os.Rename(f[1], f[2])
	} else {
		err = exec.Command("sh", "-c", cmd).Run()
	}
	t1 := time.Now()
	if err != nil {
		log.Printf("trial %s: %v", name, err)
		return
	}
	dl := t0.Add(*trialTO)
	n := 0
	expected := holders(cs)
	// nobody calls a service that is new
	noop := strings.HasPrefix(name, "noop") || *onDemand > 0 && strings.HasPrefix(name, "new")
	for time.Now().Before(dl) {
		n = 0
		for _, c := range cs {
			if c.lastChange.Load() != 0 {
				n++
			}
		}
		if n >= expected && !noop || noop && time.Since(t0) > 3*time.Second {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	waitQuiet(*quiet, dl.Add(*trialTO))
	b := take()
	var first, last []float64
	for _, c := range cs {
		if v := c.lastChange.Load(); v != 0 {
			first = append(first, float64(c.firstChg.Load()-t0.UnixNano())/1e6)
			last = append(last, float64(v-t0.UnixNano())/1e6)
		}
	}
	sort.Float64s(first)
	sort.Float64s(last)
	r := map[string]any{"phase": "change", "trial": name, "changed_clients": n, "t0_unix_us": t0.UnixMicro(),
		"holders": expected, "cmd_ms": r3(float64(t1.Sub(t0).Microseconds()) / 1e3), "reconnects": rec.Load() - r0,
		"first_ms": pct(first, 0), "p50_ms": pct(last, .5), "last_ms": pct(last, 1)}
	weights := map[string]int{}
	for _, c := range cs {
		weights[c.weights]++
	}
	r["weights"] = weights
	a.report(b, r)
	emit(r)
}
