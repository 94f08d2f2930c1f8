package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// order is what the command line asks for, once per request.
type order struct {
	target  *url.URL
	method  string
	headers []string
	message string
	limit   time.Duration
	follow  bool
}

// answer is what came back: lines about the exchange, then the body.
type answer struct {
	lines []string
	body  string
}

// way is how to ask, again and again; close it when done.
type way struct {
	ask   func(context.Context) (*answer, error)
	close func()
}

func (all *answer) add(key, value string) { all.lines = append(all.lines, key+"="+value) }

func ask(arguments []string) error {
	one := order{}
	flags := pflag.NewFlagSet("client", pflag.ContinueOnError)
	flags.StringVar(&one.method, "method", http.MethodGet, "of HTTP")
	flags.StringArrayVarP(&one.headers, "header", "H", nil, "Name:value, as often as wanted")
	flags.StringVar(&one.message, "msg", "hello", "what to say")
	flags.DurationVar(&one.limit, "timeout", 5*time.Second, "of one request")
	flags.BoolVar(&one.follow, "follow-redirects", false, "ask where the answer points to")
	count := flags.Int("count", 1, "how often, one after the other")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("usage: client URL [--method M] [-H Name:value] [--count N]")
	}
	target, err := url.Parse(flags.Arg(0))
	if err != nil {
		return err
	}
	one.target = target
	open, ok := map[string]func(order) (*way, error){
		"http": openHTTP, "https": openHTTP, "grpc": openGRPC, "tcp": openTCP,
	}[target.Scheme]
	if !ok {
		return fmt.Errorf("no way to speak %q", target.Scheme)
	}
	// one way for all requests: where the protocol has connections that last, they share one
	opened, err := open(one)
	if err != nil {
		return err
	}
	defer opened.close()
	for number := range *count {
		if err := tell(number, one, opened.ask); err != nil {
			return err
		}
	}
	return nil
}

// tell asks once and prints; a blank line ends each answer.
func tell(number int, one order, ask func(context.Context) (*answer, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), one.limit)
	defer cancel()
	began := time.Now()
	got, err := ask(ctx)
	if err != nil {
		return fmt.Errorf("[%d] %w", number, err)
	}
	fmt.Printf("[%d] Url=%s\n[%d] Latency=%s\n", number, one.target, number, time.Since(began))
	for _, line := range got.lines {
		fmt.Printf("[%d] %s\n", number, line)
	}
	for line := range strings.SplitSeq(strings.TrimRight(got.body, "\n"), "\n") {
		if line != "" {
			fmt.Printf("[%d body] %s\n", number, line)
		}
	}
	fmt.Println()
	return nil
}

func openHTTP(one order) (*way, error) {
	//nolint:gosec // the suite's servers have certificates of nobody
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	client := &http.Client{Transport: transport}
	if !one.follow {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	ask := func(ctx context.Context) (*answer, error) { return askHTTP(ctx, client, one) }
	return &way{ask, transport.CloseIdleConnections}, nil
}

func askHTTP(ctx context.Context, client *http.Client, one order) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, one.method, one.target.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, header := range one.headers {
		name, value, _ := strings.Cut(header, ":")
		if strings.EqualFold(name, "host") {
			request.Host = strings.TrimSpace(value)
		} else {
			request.Header.Add(name, strings.TrimSpace(value))
		}
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	got := &answer{body: string(body)}
	got.add("StatusCode", fmt.Sprint(response.StatusCode))
	got.addHeaders(response.Header)
	return got, nil
}

func (all *answer) addHeaders(headers map[string][]string) {
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range headers[name] {
			all.add("ResponseHeader", name+":"+value)
		}
	}
}

func openGRPC(one order) (*way, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	sent := metadata.MD{}
	for _, header := range one.headers {
		name, value, _ := strings.Cut(header, ":")
		if strings.EqualFold(name, "host") {
			options = append(options, grpc.WithAuthority(strings.TrimSpace(value)))
		} else {
			sent.Append(name, strings.TrimSpace(value))
		}
	}
	// the name as given: it is the authority
	connection, err := grpc.NewClient("passthrough:///"+one.target.Host, options...)
	if err != nil {
		return nil, err
	}
	ask := func(ctx context.Context) (*answer, error) {
		return askGRPC(metadata.NewOutgoingContext(ctx, sent), connection, one)
	}
	return &way{ask, func() { connection.Close() }}, nil
}

func askGRPC(ctx context.Context, connection *grpc.ClientConn, one order) (*answer, error) {
	response, headers := &wrapperspb.StringValue{}, metadata.MD{}
	err := connection.Invoke(ctx, grpcMethod, wrapperspb.String(one.message), response, grpc.Header(&headers))
	if err != nil {
		return nil, err
	}
	got := &answer{body: response.GetValue()}
	got.add("StatusCode", "200") // what the suite takes for OK
	got.addHeaders(headers)
	return got, nil
}

func openTCP(one order) (*way, error) {
	ask := func(ctx context.Context) (*answer, error) { return askTCP(ctx, one) }
	return &way{ask, func() {}}, nil
}

func askTCP(ctx context.Context, one order) (*answer, error) {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", one.target.Host)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := connection.SetDeadline(until); err != nil {
			return nil, err
		}
	}
	if _, err := fmt.Fprintln(connection, one.message); err != nil {
		return nil, err
	}
	got := &answer{}
	lines := bufio.NewScanner(connection)
	for lines.Scan() && lines.Text() != "" {
		got.body += lines.Text() + "\n"
	}
	return got, lines.Err()
}
