package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quire/tritonclient"
)

const (
	readyPoll = 50 * time.Millisecond
	callLimit = 2 * time.Second
)

var errEnded = errors.New("the server ended")

// waitReady returns when the server with the given id answers on addr and its
// models are ready; the id tells it from another server that got the port.
func waitReady(ctx context.Context, addr, id string, models []string, ended <-chan struct{}) error {
	client, err := tritonclient.New(addr, tritonclient.Config{CallTimeout: callLimit, ConnectTimeout: callLimit})
	if err != nil {
		return err
	}
	defer client.Close()

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
			client.Reconnect()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// askReady asks once. Errors of the calls are not errors here: they are what a
// server that is not ready gives.
func askReady(ctx context.Context, client *tritonclient.Client, id string, models []string) (bool, error) {
	server, err := client.ServerMetadata(ctx)
	if err != nil {
		return false, nil
	}
	if server.GetName() != id {
		return false, fmt.Errorf("%w: server %q answers on it", errPortBusy, server.GetName())
	}
	for _, m := range models {
		if ready, err := client.ModelReady(ctx, m, ""); err != nil || !ready {
			return false, nil
		}
	}
	return true, nil
}
