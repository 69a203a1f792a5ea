package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// serverWait lets one batch poll a server that is away, and the others wait for
// what it finds.
type serverWait struct {
	model Model
	limit time.Duration
	log   *slog.Logger
	ctx   context.Context
	polls sync.WaitGroup

	mu     sync.Mutex
	ended  chan struct{} // nil when nobody polls
	since  time.Time
	reason string
	err    error
	took   time.Duration // of waits that are over
}

func (s *serverWait) wait(ctx context.Context, reason string) error {
	s.mu.Lock()
	if s.ended == nil {
		s.ended = make(chan struct{})
		s.since, s.reason = time.Now(), reason
		ended := s.ended
		// The log may block; nobody who asks for statistics waits for it.
		s.polls.Go(func() {
			s.log.Warn("waiting for the server", "reason", reason)
			s.poll(s.ctx, ended)
		})
	}
	ended := s.ended
	s.mu.Unlock()
	return s.outcome(ctx, ended)
}

// pass waits while somebody polls; the error is what the poll ended with, or
// ctx's.
func (s *serverWait) pass(ctx context.Context) error {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended == nil {
		return nil
	}
	return s.outcome(ctx, ended)
}

func (s *serverWait) outcome(ctx context.Context, ended <-chan struct{}) error {
	select {
	case <-ended:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *serverWait) poll(ctx context.Context, ended chan struct{}) {
	if s.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limit)
		defer cancel()
	}
	err := s.model.WaitReady(ctx)
	s.mu.Lock()
	away := time.Since(s.since).Round(time.Millisecond)
	s.err = nil
	if err != nil {
		s.err = &ServerError{Message: fmt.Sprintf("the server was away for %v (%s): start it and run the same command again", s.limit, s.reason), Err: err}
		var me *ModelError
		if errors.As(err, &me) {
			s.err = &ServerError{Message: me.Message, Err: err}
		}
	}
	s.took += away
	s.ended, s.reason, s.since = nil, "", time.Time{}
	close(ended)
	s.mu.Unlock()
	if err == nil {
		s.log.Warn("the server is back", "after", away)
	}
}

// waiting tells since when and why everything waits for the server, and how long
// it has in all.
func (s *serverWait) waiting() (reason string, since time.Time, inAll time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	inAll = s.took
	if s.ended != nil {
		inAll += time.Since(s.since)
	}
	return s.reason, s.since, inAll
}
