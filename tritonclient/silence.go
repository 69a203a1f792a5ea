package tritonclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"quire/tritonclient/inferencepb"
)

// errSilent is why a request was called off whose server shows no sign of life.
var errSilent = errors.New("silent")

// attended is modelInfer that does not wait for a server that is gone without a
// word.
func (c *Client) attended(ctx context.Context, message *inferencepb.ModelInferRequest, opts ...grpc.CallOption) (*inferencepb.ModelInferResponse, error) {
	if c.config.Silence < 0 {
		return c.modelInfer(ctx, message, opts...)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	// Most requests are answered before, and cost a timer.
	timer := time.AfterFunc(c.config.Silence, func() {
		defer close(watched)
		c.watch(ctx, cancel)
	})
	res, err := c.modelInfer(ctx, message, opts...)
	silent := context.Cause(ctx) == errSilent
	cancel(nil)
	if !timer.Stop() {
		<-watched
	}
	if err != nil && silent {
		return nil, status.Error(codes.Unavailable, fmt.Sprintf("no sign of life within %v; the connection was cut", 2*c.config.CallTimeout))
	}
	return res, err
}

// watch asks for signs of life until ctx ends or there is none.
func (c *Client) watch(ctx context.Context, gone context.CancelCauseFunc) {
	for {
		if alive, _ := c.alive(ctx); !alive {
			// Once may be a server that is short of everything for a moment.
			if alive, cut := c.alive(ctx); !alive && ctx.Err() == nil {
				gone(errSilent)
				cut()
				return
			}
		}
		select {
		case <-time.After(c.config.Silence):
		case <-ctx.Done():
			return
		}
	}
}

// alive asks for a sign of life. It is false only if nothing at all came back in
// time; cut then ends the connection that was asked on, with all its calls.
func (c *Client) alive(ctx context.Context) (alive bool, cut func()) {
	call, cancel := context.WithTimeout(ctx, c.config.CallTimeout)
	defer cancel()
	var p peer.Peer
	_, err := c.stub.ServerLive(call, &inferencepb.ServerLiveRequest{}, grpc.Peer(&p))
	// Any other error is an answer, or a connection that is known to be broken.
	silent := err != nil && status.Code(err) == codes.DeadlineExceeded
	return !silent, func() {
		if address, ok := p.LocalAddr.(connAddr); ok {
			address.conn.cut()
		}
	}
}
