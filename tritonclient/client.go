package tritonclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"quire/tritonclient/inferencepb"
)

// Client is a client of one Triton server (or of one name behind which several
// stand). Its methods may be called from any goroutine; Close ends them all.
//
// Every method's error is an *[Error].
type Client struct {
	target string
	config Config
	conn   *grpc.ClientConn
	stub   inferencepb.GRPCInferenceServiceClient
	codec  borrowCodec
}

// New makes a client of the server at target: "host:port", "dns:///name:port" or
// "unix:path". It does no I/O: whether the server is there is told by the calls.
// Connections go straight to the server; proxies of the environment
// (HTTPS_PROXY) are not used.
func New(target string, config Config) (*Client, error) {
	if target == "" {
		return nil, fmt.Errorf("tritonclient: no server given; name one as host:port (Triton's gRPC port is 8001 by default)")
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.WithDefaults()
	options, err := config.dialOptions()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("tritonclient: server %q: %w", target, err)
	}
	return &Client{
		target: target,
		config: config,
		conn:   conn,
		stub:   inferencepb.NewGRPCInferenceServiceClient(conn),
		codec:  newBorrowCodec(),
	}, nil
}

// Close ends the connection and fails the calls in flight with Unavailable or
// Canceled. It is idempotent.
func (c *Client) Close() error {
	// The only error is "closed already".
	_ = c.conn.Close()
	return nil
}

// Target is the server as New was told it.
func (c *Client) Target() string { return c.target }

// Raw is the generated stub on the same connection, with the same headers, for
// the RPCs that have no method here. Its calls have no timeout of their own and
// give gRPC's errors.
func (c *Client) Raw() inferencepb.GRPCInferenceServiceClient { return c.stub }

// Reconnect ends the wait between two attempts to connect, for a caller that
// knows the server to be back.
func (c *Client) Reconnect() { c.conn.ResetConnectBackoff() }

// call runs one unary RPC under a timeout and turns its error into an *Error.
func call[Req, Res any](
	ctx context.Context, c *Client, op, model string, timeout time.Duration,
	rpc func(context.Context, *Req, ...grpc.CallOption) (*Res, error), req *Req,
) (*Res, error) {
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := rpc(callCtx, req)
	if err != nil {
		return nil, c.fail(ctx, op, model, err)
	}
	return res, nil
}

// ServerLive reports whether the server's process answers.
func (c *Client) ServerLive(ctx context.Context) (bool, error) {
	res, err := call(ctx, c, "ServerLive", "", c.config.CallTimeout, c.stub.ServerLive, &inferencepb.ServerLiveRequest{})
	return res.GetLive(), err
}

// ServerReady reports whether the server takes requests and all its models are
// ready. Ask [Client.ModelReady] before sending any: this one may be true while
// a model is away, and is false as long as any model failed to load.
func (c *Client) ServerReady(ctx context.Context) (bool, error) {
	res, err := call(ctx, c, "ServerReady", "", c.config.CallTimeout, c.stub.ServerReady, &inferencepb.ServerReadyRequest{})
	return res.GetReady(), err
}

// ModelReady reports whether a model can be used; version "" means the one that
// the server would choose. A model that the server does not know is not ready,
// without an error.
func (c *Client) ModelReady(ctx context.Context, model, version string) (bool, error) {
	res, err := call(ctx, c, "ModelReady", model, c.config.CallTimeout, c.stub.ModelReady,
		&inferencepb.ModelReadyRequest{Name: model, Version: version})
	return res.GetReady(), err
}

// ServerMetadata tells the server's name, version and extensions.
func (c *Client) ServerMetadata(ctx context.Context) (*inferencepb.ServerMetadataResponse, error) {
	return call(ctx, c, "ServerMetadata", "", c.config.CallTimeout, c.stub.ServerMetadata, &inferencepb.ServerMetadataRequest{})
}

// ModelMetadata tells a model's versions, inputs and outputs; shapes include the
// batch dimension, free dimensions are -1.
func (c *Client) ModelMetadata(ctx context.Context, model, version string) (*inferencepb.ModelMetadataResponse, error) {
	return call(ctx, c, "ModelMetadata", model, c.config.CallTimeout, c.stub.ModelMetadata,
		&inferencepb.ModelMetadataRequest{Name: model, Version: version})
}

// ModelConfig is the configuration in use. It is normalised by the server: for
// one, "dynamic_batching {}" comes back with preferred_batch_size
// [max_batch_size], so an edited copy can be refused on load.
func (c *Client) ModelConfig(ctx context.Context, model, version string) (*inferencepb.ModelConfig, error) {
	res, err := call(ctx, c, "ModelConfig", model, c.config.CallTimeout, c.stub.ModelConfig,
		&inferencepb.ModelConfigRequest{Name: model, Version: version})
	if err != nil {
		return nil, err
	}
	if res.GetConfig() == nil {
		return nil, c.badResponse("ModelConfig", model, "it holds no config")
	}
	return res.GetConfig(), nil
}

// pollInterval is how often WaitModelReady asks.
const pollInterval = 100 * time.Millisecond

// WaitModelReady returns when the model can be used, or when ctx ends, with an
// error (kind Deadline or Canceled) that holds the last reason to wait. It gives
// up at once on what waiting cannot mend (kinds Restricted, InvalidArgument).
// Each reason to wait goes to onWait, which may be nil; it runs on the caller's
// goroutine, once an attempt.
func (c *Client) WaitModelReady(ctx context.Context, model, version string, onWait func(error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var reason error
	for {
		ready, err := c.ModelReady(ctx, model, version)
		switch {
		case err == nil && ready:
			return nil
		case err == nil:
			err = &Error{Kind: ModelNotReady, Op: "ModelReady", Model: model, Target: c.target}
		case errors.Is(err, Restricted), errors.Is(err, InvalidArgument):
			return err
		case errors.Is(err, Deadline) && ctx.Err() == nil:
			// Waiting on a dead connection would not end when the server is
			// back: another one has to be made.
			if alive, cut := c.alive(ctx); !alive && ctx.Err() == nil {
				cut()
			}
		}
		if ctx.Err() == nil {
			reason = err
			if onWait != nil {
				onWait(err)
			}
			select {
			case <-ctx.Done():
			case <-ticker.C:
				continue
			}
		}
		gaveUp := &Error{Kind: Deadline, Op: "ModelReady", Model: model, Target: c.target, Err: reason, ctxErr: ctx.Err()}
		if ctx.Err() == context.Canceled {
			gaveUp.Kind = Canceled
		}
		if last, ok := errors.AsType[*Error](reason); ok {
			gaveUp.Message = "last: " + last.reason()
		}
		return gaveUp
	}
}

// badResponse is the error of an answer that is not usable.
func (c *Client) badResponse(op, model, format string, args ...any) *Error {
	return &Error{
		Kind: BadResponse, Op: op, Model: model, Target: c.target,
		Message: oneLine(fmt.Sprintf(format, args...)),
	}
}

// badRequest is the error of a request that was not sent.
func (c *Client) badRequest(op, model, format string, args ...any) *Error {
	return &Error{
		Kind: InvalidArgument, Op: op, Model: model, Target: c.target,
		Message: oneLine(fmt.Sprintf(format, args...)),
	}
}
