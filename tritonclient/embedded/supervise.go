package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

// Supervise starts the server again, on the same port, whenever it has ended or
// has lost the processes that run its models, and tells log so at warn level.
// It returns nil once ctx has ended, and an error when the guard is lost, or
// when the server has ended, or failed to start, once more after 5 starts within
// 10 minutes. It must have returned before Stop, Kill or Restart is called.
func (s *Server) Supervise(ctx context.Context, log *slog.Logger) error {
	return s.supervise(ctx, log, maxRestarts)
}

func (s *Server) supervise(ctx context.Context, log *slog.Logger, most int) error {
	var restarts []time.Time // within the window, oldest first
	var failed error         // why the last start did; nil when the server ran
	for {
		lost := s.awaitEnd(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := s.cfg.Guard.Err(); err != nil {
			return err
		}
		how := failed
		switch {
		case lost:
			how = errors.New("its model's process died" + s.saveLog())
		case how == nil:
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

// stubName is the start of the name of Triton's Python backend's processes; the
// kernel keeps 15 bytes of it.
const stubName = "triton_python_b"

// awaitEnd returns when the server has ended or ctx has. A server without any
// live stub is killed and counted as lost: Triton 2.51 goes on calling its model
// ready and fails every request, until the model is unloaded.
func (s *Server) awaitEnd(ctx context.Context) (lost bool) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	had, missing := false, 0
	for {
		select {
		case <-s.Done():
			return lost
		case <-ctx.Done():
			return lost
		case <-tick.C:
		}
		switch {
		case stubs(s.Pid()) > 0:
			had, missing = true, 0
		case had:
			missing++
		}
		if missing == 2 { // twice, so that a reload is not taken for it
			lost = true
			_ = s.Kill() // Done tells
		}
	}
}

// stubs counts the live processes of the Python backend below a server.
func stubs(server int) int {
	n := 0
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", server))
	for _, list := range lists {
		pids, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil {
				continue
			}
			// proc_pid_stat(5): pid (name) state …
			name, rest, _ := strings.Cut(string(stat), ") ")
			if strings.HasSuffix(name, "("+stubName) && !strings.HasPrefix(rest, "Z") {
				n++
			}
		}
	}
	return n
}
