package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"quire/tritonclient/guard"
)

// How often Supervise starts a server again: a crash now and then must not end
// a run of days, and a server that some page crashes each time must not be
// started for ever.
const (
	maxRestarts   = 5
	restartWindow = 10 * time.Minute
	// restartPause comes before another try of a start that failed.
	restartPause = time.Second
)

// Supervise starts the server again, on the same port, whenever it has ended,
// and tells log so at warn level. It returns nil once ctx has ended, and an
// error when the guard is lost, or when the server has ended, or failed to
// start, once more after 5 starts within 10 minutes. It must have returned
// before Stop, Kill or Restart is called.
func (s *Server) Supervise(ctx context.Context, log *slog.Logger) error {
	return s.supervise(ctx, log, maxRestarts)
}

func (s *Server) supervise(ctx context.Context, log *slog.Logger, most int) error {
	var restarts []time.Time // within the window, oldest first
	var failed error         // why the last start did; nil when the server ran
	for {
		select {
		case <-s.Done():
		case <-ctx.Done():
			return nil
		}
		if err := s.cfg.Guard.Err(); err != nil {
			return err
		}
		how := failed
		if how == nil {
			how = errors.New(s.State().String() + s.saveLog())
		}
		now := time.Now()
		for len(restarts) > 0 && now.Sub(restarts[0]) > restartWindow {
			restarts = restarts[1:]
		}
		if len(restarts) >= most {
			return fmt.Errorf("embedded Triton ended after %d restarts within %v, last: %w; %s", most, restartWindow, how, wayOut)
		}
		restarts = append(restarts, now)
		log.Warn("the embedded Triton ended and is started again", "end", how, "restart", len(restarts), "at_most", most, "within", restartWindow)
		failed = s.start(ctx)
		switch {
		case failed == nil:
			log.Warn("the embedded Triton is back", "after", time.Since(now).Round(time.Millisecond))
		case ctx.Err() != nil:
			return nil
		case errors.Is(failed, guard.ErrClosed):
			// The server ended because the guard did, which takes a moment.
			<-s.cfg.Guard.Done()
		default:
			select {
			case <-time.After(restartPause):
			case <-ctx.Done():
			}
		}
	}
}
