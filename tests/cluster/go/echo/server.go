package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	grpcService = "echo.Echo"
	grpcMethod  = "/" + grpcService + "/Echo"
	idleLimit   = 5 * time.Minute
	certificate = 365 * 24 * time.Hour
)

// seen is what a request looked like from here, as lines `Key=Value`.
type seen []string

func (lines *seen) add(key, value string) { *lines = append(*lines, key+"="+value) }

func newSeen(version string, port int, from string) *seen {
	lines := &seen{}
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	host, _, err := net.SplitHostPort(from)
	if err != nil {
		host = from
	}
	lines.add("ServiceVersion", version)
	lines.add("ServicePort", strconv.Itoa(port))
	lines.add("Hostname", name)
	lines.add("IP", host)
	return lines
}

func (lines *seen) addHeaders(headers map[string][]string) {
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range headers[name] {
			lines.add("RequestHeader", name+":"+value)
		}
	}
}

func (lines *seen) String() string { return strings.Join(*lines, "\n") + "\n" }

func serve(arguments []string) error {
	flags := pflag.NewFlagSet("echo", pflag.ContinueOnError)
	web := flags.IntSlice("port", nil, "HTTP/1.1 and HTTP/2 without TLS, unless named by --tls")
	secure := flags.IntSlice("tls", nil, "which of --port have TLS")
	remote := flags.IntSlice("grpc", nil, "gRPC without TLS")
	raw := flags.IntSlice("tcp", nil, "lines of text")
	version := flags.String("version", "", "shown in answers")
	cert := flags.String("crt", "", "certificate of --tls; made when there is no such file")
	key := flags.String("key", "", "its key")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if len(*web)+len(*remote)+len(*raw) == 0 {
		*web = []int{8080} // as the image it stands for: the suite starts some without any flag
	}
	configuration, err := serverTLS(*cert, *key)
	if err != nil {
		return err
	}
	failed := make(chan error)
	start := func(run func() error) { go func() { failed <- run() }() }
	for _, port := range *web {
		start(func() error { return serveHTTP(port, *version, slices.Contains(*secure, port), configuration) })
	}
	for _, port := range *remote {
		start(func() error { return serveGRPC(port, *version) })
	}
	for _, port := range *raw {
		start(func() error { return serveTCP(port, *version) })
	}
	return <-failed
}

func serveHTTP(port int, version string, isSecure bool, configuration *tls.Config) error {
	answer := func(response http.ResponseWriter, request *http.Request) {
		lines := newSeen(version, port, request.RemoteAddr)
		lines.add("Host", request.Host)
		lines.add("URL", request.URL.RequestURI())
		lines.add("Method", request.Method)
		lines.add("Proto", request.Proto)
		if request.TLS != nil {
			lines.add("Alpn", request.TLS.NegotiatedProtocol)
			lines.add("ServerName", request.TLS.ServerName)
		}
		lines.addHeaders(request.Header)
		response.Header().Set("Content-Type", "text/plain")
		if _, err := fmt.Fprint(response, lines); err != nil {
			fmt.Println("answer not sent:", err)
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr:              fmt.Sprintf(":%d", port),
		Handler:           http.HandlerFunc(answer),
		Protocols:         protocols,
		ReadHeaderTimeout: idleLimit,
		TLSConfig:         configuration,
	}
	if isSecure {
		return server.ListenAndServeTLS("", "")
	}
	return server.ListenAndServe()
}

func serveGRPC(port int, version string) error {
	answer := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		request := &wrapperspb.StringValue{}
		if err := decode(request); err != nil {
			return nil, err
		}
		from := ""
		if who, ok := peer.FromContext(ctx); ok {
			from = who.Addr.String()
		}
		lines := newSeen(version, port, from)
		headers, _ := metadata.FromIncomingContext(ctx)
		lines.add("Host", strings.Join(headers[":authority"], ","))
		lines.add("URL", grpcMethod)
		lines.add("Proto", "GRPC")
		lines.add("Echo", request.GetValue())
		lines.addHeaders(headers)
		return wrapperspb.String(lines.String()), nil
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: grpcService,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: answer}},
	}, nil)
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	return server.Serve(listener)
}

func serveTCP(port int, version string) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go answerLines(connection, version, port)
	}
}

// answerLines says who it is to every line, and repeats it.
func answerLines(connection net.Conn, version string, port int) {
	defer connection.Close()
	lines := bufio.NewScanner(connection)
	for {
		if err := connection.SetDeadline(time.Now().Add(idleLimit)); err != nil || !lines.Scan() {
			return
		}
		answer := newSeen(version, port, connection.RemoteAddr().String())
		answer.add("StatusCode", "200")
		answer.add("Proto", "TCP")
		answer.add("Echo", lines.Text())
		if _, err := fmt.Fprintln(connection, answer); err != nil {
			return
		}
	}
}

// serverTLS reads the certificate, or makes one for any name: clients of the suite do not verify it.
func serverTLS(cert, key string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err == nil {
		return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "echo"},
		DNSNames:     []string{"echo", "localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(certificate),
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{signed}, PrivateKey: private}}}, nil
}
