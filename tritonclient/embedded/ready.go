package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"quire/tritonclient/inferencepb"
)

const (
	readyPoll = 50 * time.Millisecond
	callLimit = 2 * time.Second
)

var errEnded = errors.New("the server ended")

// waitReady returns when the server with the given id answers on addr and its
// models are ready; the id tells it from another server that got the port.
func waitReady(ctx context.Context, addr, id string, models []string, ended <-chan struct{}) error {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: readyPoll, Multiplier: 1.2, MaxDelay: 4 * readyPoll},
			MinConnectTimeout: callLimit,
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := inferencepb.NewGRPCInferenceServiceClient(conn)

	// A server that ends also ends the call that waits for it.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	defer func() { cancel(nil); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-ended:
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()

	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		ready, err := askReady(ctx, client, id, models)
		if ready || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// askReady asks once. Errors of the call are not errors here: they are what a
// server that is not ready gives.
func askReady(ctx context.Context, client inferencepb.GRPCInferenceServiceClient, id string, models []string) (bool, error) {
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	server, err := client.ServerMetadata(call, &inferencepb.ServerMetadataRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return false, nil
	}
	if server.GetName() != id {
		return false, fmt.Errorf("%w: server %q answers on it", errPortBusy, server.GetName())
	}
	for _, m := range models {
		r, err := client.ModelReady(call, &inferencepb.ModelReadyRequest{Name: m})
		if err != nil || !r.GetReady() {
			return false, nil
		}
	}
	return true, nil
}
