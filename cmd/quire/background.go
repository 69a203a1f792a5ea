package main

import (
	"context"
	"sync"
	"time"
)

// background runs do beside the caller. The function that it returns ends do's
// context and waits for do to return.
func background(ctx context.Context, do func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { do(ctx) })
	return func() {
		cancel()
		group.Wait()
	}
}

// every calls do again and again, so far apart, until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	t := time.NewTicker(pause)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}
