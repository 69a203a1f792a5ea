package tritonclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// How many bytes may be on their way here, in one answer and in all: an answer
// of the layout model has 7.2 kB a page. With more the server waits for leave.
const (
	streamWindow = 1 << 20
	connWindow   = 8 << 20
)

// writeBuffer is how much is gathered for one write to the socket, since requests
// carry megabytes of pixels.
const writeBuffer = 256 << 10

// Config is how a [Client] talks to its server. The zero value is a plaintext
// connection with the defaults below. Zero always means the default.
type Config struct {
	// TLS turns TLS on; nil means plaintext.
	TLS *TLS
	// Headers go with every call as gRPC metadata, for example the
	// "triton-grpc-protocol-<key>" of a restricted protocol or a proxy's
	// "authorization". They are never logged.
	Headers map[string]string

	// CallTimeout bounds health, metadata, config, statistics, index and
	// shared-memory calls; default 5 s.
	CallTimeout time.Duration
	// InferTimeout bounds Infer, time in the server's queue included; default
	// 60 s.
	InferTimeout time.Duration
	// LoadTimeout bounds LoadModel and UnloadModel; default 10 min, because a
	// load answers when the model is ready and may build GPU engines first.
	LoadTimeout time.Duration

	// ConnectTimeout bounds one attempt to connect; default 5 s.
	ConnectTimeout time.Duration
	// MaxBackoff is the longest wait between attempts to connect; default 3 s.
	MaxBackoff time.Duration

	// Silence is how long Infer waits for its answer before it asks the server
	// for a sign of life (ServerLive), and how long until it asks again. A
	// server that owes two of them, each for CallTimeout, counts as gone: the
	// request fails with kind Unavailable and the connection is cut. That finds
	// what TCP cannot see, a server or a proxy that is stopped and whose kernel
	// goes on answering. Default 10 s; negative: never.
	Silence time.Duration

	// MaxReceiveBytes is the largest message taken; default 2 GiB - 1, Triton's
	// own limit.
	MaxReceiveBytes int

	// Dial replaces the way connections are made, for tests and tunnels. It is
	// given the address as the resolver found it.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// TLS is the client's side of a TLS connection. All material is PEM.
type TLS struct {
	// CA holds the certificates that sign servers; empty means the system's.
	CA []byte
	// Cert and Key identify this client to a server that asks for it (mTLS,
	// --grpc-use-ssl-mutual); both or neither.
	Cert, Key []byte
	// ServerName is the name expected in the server's certificate; empty means
	// the host of the target.
	ServerName string
}

// ReadTLS reads PEM files into a TLS; empty paths leave their field empty. Errors
// name the file.
func ReadTLS(caFile, certFile, keyFile, serverName string) (*TLS, error) {
	t := &TLS{ServerName: serverName}
	for _, f := range []struct {
		path string
		into *[]byte
	}{{caFile, &t.CA}, {certFile, &t.Cert}, {keyFile, &t.Key}} {
		if f.path == "" {
			continue
		}
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nil, err
		}
		*f.into = data
	}
	// Here the files' names are known. An empty one would mean the system's.
	if caFile != "" && !x509.NewCertPool().AppendCertsFromPEM(t.CA) {
		return nil, fmt.Errorf("%s: there is no PEM certificate in it", caFile)
	}
	if certFile != "" && keyFile != "" {
		if _, err := tls.X509KeyPair(t.Cert, t.Key); err != nil {
			return nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
		}
	}
	return t, nil
}

// WithDefaults is the config with its zero fields filled in.
func (c Config) WithDefaults() Config {
	c.CallTimeout = cmp.Or(c.CallTimeout, 5*time.Second)
	c.InferTimeout = cmp.Or(c.InferTimeout, time.Minute)
	c.LoadTimeout = cmp.Or(c.LoadTimeout, 10*time.Minute)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 5*time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 3*time.Second)
	c.Silence = cmp.Or(c.Silence, 10*time.Second)
	c.MaxReceiveBytes = cmp.Or(c.MaxReceiveBytes, math.MaxInt32)
	return c
}

// Validate reports every field that cannot be, by name.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("tritonclient: "+format, args...)) }
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"CallTimeout", c.CallTimeout}, {"InferTimeout", c.InferTimeout}, {"LoadTimeout", c.LoadTimeout},
		{"ConnectTimeout", c.ConnectTimeout}, {"MaxBackoff", c.MaxBackoff},
	} {
		// No call without a bound: a server that hangs must not hang its client.
		if d.value < 0 {
			bad("%s is %v; it must be positive, or 0 for the default", d.name, d.value)
		}
	}
	if c.MaxReceiveBytes < 0 || c.MaxReceiveBytes > math.MaxInt32 {
		bad("MaxReceiveBytes is %d; it must be in 1 … %d, or 0 for the default", c.MaxReceiveBytes, math.MaxInt32)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if err := validHeader(name, c.Headers[name]); err != nil {
			bad("%v", err)
		}
	}
	if c.TLS != nil {
		if _, err := c.TLS.config(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// validHeader applies gRPC's rules for custom metadata ("ASCII-Header" in gRPC's
// PROTOCOL-HTTP2.md); grpc-go would fail each call instead. The value is left
// out of the error, since it may be a secret.
func validHeader(name, value string) error {
	if name == "" {
		return errors.New("a header has no name")
	}
	for _, r := range strings.ToLower(name) {
		if !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r)) {
			return fmt.Errorf("header %q: names are letters, digits, '-', '_' and '.'", name)
		}
	}
	if strings.HasPrefix(strings.ToLower(name), "grpc-") {
		return fmt.Errorf("header %q: names that begin with grpc- are gRPC's own", name)
	}
	if strings.HasSuffix(strings.ToLower(name), "-bin") {
		return nil
	}
	for _, r := range value {
		if r < ' ' || r > '~' {
			return fmt.Errorf("header %q: its value has a character outside printable ASCII", name)
		}
	}
	return nil
}

func (t *TLS) config() (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if len(t.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(t.CA) {
			return nil, errors.New("tritonclient: TLS.CA holds no PEM certificate")
		}
	}
	if (len(t.Cert) > 0) != (len(t.Key) > 0) {
		return nil, errors.New("tritonclient: TLS.Cert and TLS.Key go together; one of them is missing")
	}
	if len(t.Cert) > 0 {
		pair, err := tls.X509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("tritonclient: TLS.Cert and TLS.Key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// dialOptions is c, which has its defaults, in grpc-go's words.
func (c Config) dialOptions() ([]grpc.DialOption, error) {
	transport := insecure.NewCredentials()
	if c.TLS != nil {
		tlsConfig, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(tlsConfig)
	}
	backoffConfig := backoff.DefaultConfig
	// A server that comes back should be found soon: the default climbs to two
	// minutes.
	backoffConfig.BaseDelay = 100 * time.Millisecond
	backoffConfig.MaxDelay = c.MaxBackoff
	dial := c.Dial
	if dial == nil {
		dial = dialer()
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithContextDialer(trackConns(dial)),
		grpc.WithUserAgent("quire"),
		// One connection per target, no idling: a gap between documents must
		// not cost a reconnect.
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoffConfig, MinConnectTimeout: c.ConnectTimeout}),
		// grpc-go's retry does nothing for bodies above 256 KiB, without a
		// word, and it cannot tell a full queue from a wrong header.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithWriteBufferSize(writeBuffer),
		// With windows of its own choice grpc-go would ask the server for a ping
		// with each answer, to measure the way, and wake for what comes back.
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(c.MaxReceiveBytes),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
	}
	if len(c.Headers) > 0 {
		pairs := make([]string, 0, 2*len(c.Headers))
		for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
			pairs = append(pairs, name, c.Headers[name])
		}
		options = append(options,
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				return invoke(metadata.AppendToOutgoingContext(ctx, pairs...), method, req, reply, cc, opts...)
			}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				return streamer(metadata.AppendToOutgoingContext(ctx, pairs...), desc, cc, method, opts...)
			}))
	}
	return options, nil
}

// peerTimeout is how long the other machine's kernel may stay silent, on an idle
// connection or with data unacknowledged, before the connection counts as broken.
const peerTimeout = 20 * time.Second

// dialer makes TCP and Unix connections. A peer that is gone without a word (a
// machine that lost power, a dropped route) is otherwise noticed after about 16
// minutes with data in flight, and never without. TCP's keepalive and user timeout
// find it, which no server forbids.
func dialer() func(context.Context, string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: peerTimeout / 2, Interval: peerTimeout / 10, Count: 4},
		Control: func(network, _ string, raw syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var err error
			if controlErr := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(peerTimeout.Milliseconds()))
			}); controlErr != nil {
				return controlErr
			}
			return os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", err)
		},
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		// grpc-go hands Unix sockets to a custom dialer with their scheme.
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			return d.DialContext(ctx, "unix", strings.TrimPrefix(path, "//"))
		}
		return d.DialContext(ctx, "tcp", address)
	}
}
