package tritonclient

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestClassify holds the texts as they were seen: those of Triton 2.51 on the
// wire of a real server, the few of newer ones (marked) from its source, and
// grpc-go's from calls made wrong on purpose.
func TestClassify(t *testing.T) {
	for _, test := range []struct {
		op   string
		code codes.Code
		text string
		want Kind
	}{
		{"ModelInfer", codes.Unavailable, "[request id: <id_unknown>] Exceeds maximum queue size", QueueFull},
		{"ModelInfer", codes.Unavailable, "Request timeout expired", QueueTimeout},
		{"ModelInfer", codes.Unavailable, "Server is stopping, scheduler for model has stopped accepting new inference requests", Unavailable},
		{"ModelInfer", codes.Unavailable, "GRPC server is shutting down and has stopped accepting new requests.", Unavailable}, // source, 25.05
		{"ServerReady", codes.Unavailable, "Server exiting", Unavailable},
		{"ModelReady", codes.Unavailable, "Server not ready", Unavailable},
		{"ModelInfer", codes.Unavailable, "Request for unknown model: 'layout' version 1 is not at ready state", ModelNotReady},
		{"ModelStatistics", codes.Unavailable, "This protocol is restricted, expecting header 'triton-grpc-protocol-secret'", Restricted},
		{"RepositoryModelLoad", codes.Unavailable, "explicit model load / unload is not allowed if polling is enabled", ModelControlDisabled},
		{"RepositoryModelUnload", codes.Unavailable, "explicit model load / unload is not allowed if polling is enabled", ModelControlDisabled},
		{"ModelInfer", codes.Canceled, "CANCELLED", Unavailable},

		{"ModelInfer", codes.NotFound, "Request for unknown model: 'nope' is not found", ModelNotReady},
		{"ModelInfer", codes.NotFound, "Request for unknown model: 'layout' has no available versions", ModelNotReady},
		{"ModelConfig", codes.NotFound, "Request for unknown model: 'tiny' version 9 is not found", ModelNotReady},
		{"ModelStatistics", codes.InvalidArgument, "requested model 'nope' is not available", ModelNotReady},
		{"ModelStatistics", codes.InvalidArgument, "requested version is malformed", InvalidArgument},
		{"ModelInfer", codes.InvalidArgument, "input 'pages' is not available", InvalidArgument},
		{"ModelInfer", codes.NotFound, "Unable to find shared memory region: 'quire-1'", UnknownRegion},
		{"SystemSharedMemoryStatus", codes.NotFound, "Unable to find system shared memory region: 'quire-1'", UnknownRegion},
		{"SystemSharedMemoryRegister", codes.AlreadyExists, "shared memory region 'quire-1' already in manager", RegionExists},
		{"SystemSharedMemoryRegister", codes.Internal, "Unable to open shared memory region: '/quire-1'", RegionRefused},
		{"SystemSharedMemoryRegister", codes.Internal, "Invalid shared memory region: '/quire-1'", RegionRefused},
		{"SystemSharedMemoryRegister", codes.InvalidArgument, "failed to register shared memory region 'quire-1': invalid args", RegionRefused},
		{"SystemSharedMemoryRegister", codes.Unimplemented, "Client shared memory is disabled. Restart the server with --allow-client-shm=true", SharedMemoryDisabled}, // source, 26.04
		{"SystemSharedMemoryStatus", codes.Unimplemented, "unknown method SystemSharedMemoryStatus for service inference.GRPCInferenceService", SharedMemoryDisabled},
		{"ModelInfer", codes.Unimplemented, "Client shared memory is disabled. Restart the server with --allow-client-shm=true", SharedMemoryDisabled},
		{"ModelInfer", codes.AlreadyExists, "something else", Other},
		{"ModelInfer", codes.Unimplemented, "ModelInfer RPC doesn't support models with decoupled transaction policy", Other},

		{"ModelInfer", codes.InvalidArgument, "[request id: <id_unknown>] inference request batch-size must be <= 4 for 'layout'", InvalidArgument},
		{"ModelInfer", codes.InvalidArgument, "[request id: <id_unknown>] unexpected shape for input 'pages' for model 'tiny'. Expected [-1,8,8,3], got [2,8,24].", InvalidArgument},
		{"ModelInfer", codes.InvalidArgument, "[request id: <id_unknown>] inference input 'pages' data-type is 'INT8', but model 'tiny' expects 'UINT8'", InvalidArgument},
		{"ModelInfer", codes.InvalidArgument, "unexpected inference input 'page' for model 'tiny'", InvalidArgument},
		{"ModelInfer", codes.InvalidArgument, "[request id: <id_unknown>] input byte size mismatch for input 'pages' for model 'tiny'. Expected 384, got 100", InvalidArgument},
		{"ModelInfer", codes.InvalidArgument, "Invalid offset + byte size for shared memory region: 'quire-1'", InvalidArgument},
		{"ModelInfer", codes.Internal, "grpc: error while marshaling: string field contains invalid UTF-8", InvalidArgument},

		{"RepositoryModelLoad", codes.Internal, "failed to load 'nope', failed to poll from model repository", LoadFailed},
		{"RepositoryModelLoad", codes.InvalidArgument, "load failed for model 'broken': version 1 is at UNAVAILABLE state: Internal: RuntimeError: cannot start", LoadFailed},

		{"ModelInfer", codes.Internal, "page is poisoned", Internal},
		{"ModelInfer", codes.Internal, "Stub process 'layout_0_0' is not healthy.", ModelNotReady},
		{"ModelInfer", codes.Internal, "Failed to process the request(s) for model 'layout_0_0', message: ValueError: boom", Internal},
		{"ModelInfer", codes.Unknown, "backend said nothing", Internal},
		{"ModelInfer", codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR", Unavailable},
		{"ModelInfer", codes.Internal, "server closed the stream without sending trailers", Unavailable},
		{"ModelInfer", codes.Internal, "unexpected EOF", Unavailable},
		{"ModelInfer", codes.Unknown, "worker 3 of 4 is not healthy", Internal},
		{"ModelInfer", codes.Internal, "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data", BadResponse},
		{"ModelInfer", codes.Internal, "grpc: failed to decompress the message: gzip: invalid header", BadResponse},

		{"ModelInfer", codes.ResourceExhausted, "grpc: received message larger than max (5000 vs. 100)", TooLarge},
		{"ModelInfer", codes.ResourceExhausted, "Received message larger than max (5000 vs. 100)", TooLarge},
		{"ModelInfer", codes.ResourceExhausted, "quota exceeded", QueueFull},

		{"ServerLive", codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`, Unavailable},
		{"ServerLive", codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: first record does not look like a TLS handshake"`, Restricted},
		{"ServerLive", codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"`, Restricted},
		{"ServerLive", codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: EOF"`, Unavailable},
		{"ServerLive", codes.Unavailable, "name resolver error: produced zero addresses", Unavailable},
		{"ServerLive", codes.Unauthenticated, "no token", Restricted},
		{"ServerLive", codes.PermissionDenied, "no", Restricted},
		{"ServerLive", codes.DeadlineExceeded, "Deadline Exceeded", Deadline},
		{"ServerLive", codes.Aborted, "", Other},
		{"ServerLive", codes.NotFound, "something else", Other},
	} {
		if got := classify(test.op, test.code, test.text); got != test.want {
			t.Errorf("classify(%s, %s, %q) = %s, want %s", test.op, test.code, test.text, got, test.want)
		}
	}
}

// TestLost tells what a server took with it. The texts are grpc-go's, nginx's
// and Envoy's.
func TestLost(t *testing.T) {
	for _, test := range []struct {
		code codes.Code
		text string
		want bool
	}{
		{codes.Unavailable, `connection error: desc = "error reading from server: EOF"`, true},
		{codes.Unavailable, `error reading from server: read tcp 127.0.0.1:5->127.0.0.1:8001: read: connection reset by peer`, true},
		{codes.Unavailable, `error reading from server: read tcp 127.0.0.1:5->127.0.0.1:8001: read: connection timed out`, false},
		{codes.Unavailable, `error reading from server: read tcp 127.0.0.1:5->127.0.0.1:8001: use of closed network connection`, false},
		{codes.Unavailable, `closing transport due to: connection error: desc = "error reading from server: EOF", received prior goaway: code: NO_ERROR`, false},
		{codes.Unavailable, `connection error: desc = "error reading server preface: EOF"`, false},
		{codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`, false},
		{codes.Unavailable, "Server is stopping, scheduler for model has stopped accepting new inference requests", false},
		{codes.Unavailable, "unexpected HTTP status code received from server: 502 (Bad Gateway); transport: received unexpected content-type \"text/html\"", true},
		{codes.Unavailable, "unexpected HTTP status code received from server: 503 (Service Unavailable)", false},
		{codes.Unavailable, "upstream connect error or disconnect/reset before headers. reset reason: connection termination", true},
		{codes.Unavailable, "upstream connect error or disconnect/reset before headers. reset reason: connection failure", false},
		{codes.Unavailable, "stream terminated by RST_STREAM with error code: REFUSED_STREAM", false},
		{codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR", true},
		{codes.Internal, "server closed the stream without sending trailers", true},
		{codes.Unavailable, `error reading from server: write tcp 127.0.0.1:5->127.0.0.1:8001: write: broken pipe`, true},
		{codes.Internal, "Stub process 'layout_0_0' is not healthy.", true},
		{codes.Internal, "ValueError: feature store: error reading from server: EOF", false},
		{codes.NotFound, "Request for unknown model: 'layout' has no available versions", false},
		{codes.Internal, "page is poisoned", false},
		{codes.Unavailable, "Exceeds maximum queue size", false},
	} {
		if got := lost(classify("ModelInfer", test.code, test.text), test.text); got != test.want {
			t.Errorf("lost(%s, %q) = %v", test.code, test.text, got)
		}
	}
}

func TestKindNames(t *testing.T) {
	seen := map[string]Kind{}
	for k := Other; k <= BadResponse; k++ {
		name := k.String()
		if name == "" || strings.HasPrefix(name, "kind ") {
			t.Errorf("kind %d has no name", int(k))
		}
		if other, ok := seen[name]; ok {
			t.Errorf("kinds %d and %d are both %q", int(other), int(k), name)
		}
		seen[name] = k
		if k != Other && k.phrase() == Other.phrase() {
			t.Errorf("kind %s has no words for people", k)
		}
	}
	if got := Kind(99).String(); got != "kind 99" {
		t.Errorf("unknown kind is %q", got)
	}
}

func TestErrorFromContext(t *testing.T) {
	c := &Client{target: "h:1"}
	background := context.Background()
	cause := errors.New("second signal")
	cancelled, cancel := context.WithCancelCause(background)
	cancel(cause)
	expired, cancelExpired := context.WithTimeout(background, 0)
	defer cancelExpired()

	for _, test := range []struct {
		name string
		ctx  context.Context
		err  error
		want Kind
		is   []error
		not  []error
	}{
		{"cancelled by the caller", cancelled, status.Error(codes.Canceled, "context canceled"), Canceled, []error{Canceled, context.Canceled, cause}, []error{Unavailable, context.DeadlineExceeded}},
		{"cancelled while the server failed", cancelled, status.Error(codes.Unavailable, "Server exiting"), Canceled, []error{context.Canceled}, []error{Unavailable}},
		{"the caller's deadline", expired, status.Error(codes.DeadlineExceeded, "x"), Deadline, []error{Deadline, context.DeadlineExceeded}, []error{context.Canceled}},
		{"the call's own timeout", background, status.Error(codes.DeadlineExceeded, "x"), Deadline, []error{Deadline, context.DeadlineExceeded}, nil},
		{"cancelled by the server", background, status.Error(codes.Canceled, "CANCELLED"), Unavailable, []error{Unavailable}, []error{context.Canceled, Canceled}},
	} {
		err := c.fail(test.ctx, "ModelInfer", "layout", test.err)
		if KindOf(err) != test.want {
			t.Errorf("%s: kind %s, want %s", test.name, KindOf(err), test.want)
		}
		for _, target := range test.is {
			if !errors.Is(err, target) {
				t.Errorf("%s: errors.Is(%v, %v) is false", test.name, err, target)
			}
		}
		for _, target := range test.not {
			if errors.Is(err, target) {
				t.Errorf("%s: errors.Is(%v, %v) is true", test.name, err, target)
			}
		}
		if _, ok := status.FromError(err); !ok {
			t.Errorf("%s: the gRPC status is lost", test.name)
		}
	}
}

func TestErrorIsOneLine(t *testing.T) {
	c := &Client{target: "gpu:8001"}
	huge := "Failed to process the request(s) for model 'layout_0_0', message: ValueError: boom\n\nAt:\n\t\x1b[31m" + strings.Repeat("é frame\n", 1<<16)
	err := c.fail(context.Background(), "ModelInfer", "layout", status.Error(codes.Internal, huge))
	line := err.Error()
	if strings.ContainsAny(line, "\n\t\x1b") || len(line) > maxMessage+200 {
		t.Errorf("not a line for people: %d bytes, %.200q", len(line), line)
	}
	const tls = "does it want TLS (--tls), or a certificate of yours (--tls-cert)?"
	for _, test := range []struct{ text, want string }{
		{"[request id: page 7] Exceeds maximum queue size", "triton at gpu:8001: ModelInfer of layout: the server's queue is full (Exceeds maximum queue size)"},
		{`connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:8001: connect: connection refused"`, "triton at gpu:8001: ModelInfer of layout: the server is not available (dial tcp 10.0.0.1:8001: connect: connection refused)"},
		{`connection error: desc = "error reading server preface: http2: failed reading the frame payload: http2: frame too large, note that the frame header looked like an HTTP/1.1 header"`,
			"triton at gpu:8001: ModelInfer of layout: the server is not available (error reading server preface: http2: failed reading the frame payload: http2: frame too large, note that the frame header looked like an HTTP/1.1 header; this looks like Triton's HTTP port; its gRPC port is 8001 by default)"},
		// A server that wants TLS ends the connection: what that looks like is an
		// accident of timing.
		{`connection error: desc = "error reading server preface: EOF"`, "triton at gpu:8001: ModelInfer of layout: the server is not available (error reading server preface: EOF; " + tls + ")"},
		{`connection error: desc = "error reading server preface: read tcp 10.0.0.2:5->10.0.0.1:8001: read: connection reset by peer"`,
			"triton at gpu:8001: ModelInfer of layout: the server is not available (error reading server preface: read tcp 10.0.0.2:5->10.0.0.1:8001: read: connection reset by peer; " + tls + ")"},
		{`connection error: desc = "transport: failed to write client preface: write tcp 10.0.0.2:5->10.0.0.1:8001: write: broken pipe"`,
			"triton at gpu:8001: ModelInfer of layout: the server is not available (failed to write client preface: write tcp 10.0.0.2:5->10.0.0.1:8001: write: broken pipe; " + tls + ")"},
		{"write tcp 10.0.0.2:5->10.0.0.1:8001: write: broken pipe", "triton at gpu:8001: ModelInfer of layout: the server is not available (write tcp 10.0.0.2:5->10.0.0.1:8001: write: broken pipe; " + tls + ")"},
		// A connection that was there before says nothing about TLS.
		{`connection error: desc = "error reading from server: read tcp 10.0.0.2:5->10.0.0.1:8001: read: connection reset by peer"`,
			"triton at gpu:8001: ModelInfer of layout: the server is not available (error reading from server: read tcp 10.0.0.2:5->10.0.0.1:8001: read: connection reset by peer)"},
	} {
		if got := c.fail(context.Background(), "ModelInfer", "layout", status.Error(codes.Unavailable, test.text)).Error(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}
