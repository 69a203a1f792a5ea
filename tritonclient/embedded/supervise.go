package embedded

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quire/tritonclient/guard"
)

// How often Supervise starts a server again that does no work in between: a
// crash now and then must not end a run of days, nor must the search for the
// page that causes it (one crash for each halving of a batch, and a few), and a
// server that always crashes must not be started for ever.
const (
	maxRestarts   = 10
	restartWindow = 10 * time.Minute
	// restartPause comes before another try of a start that failed.
	restartPause = time.Second
	// stubSettle is how long the death of a model's process must stand before the
	// server is taken for one that has lost it. All that is at the server then
	// is lost with it, and under suspicion, so that is not long.
	stubSettle = 100 * time.Millisecond
	// stubSearch is how often the models' processes are looked for: for new ones,
	// since the kernel tells of the end of those that are known. It goes through
	// all of the server's threads, so it is dear.
	stubSearch = 10 * time.Second
)

// Supervise starts the server again, on the same port, whenever it has ended or
// has lost the process of a model, and tells log, if not nil, so at warn level. (Triton goes
// on without that process: it says that the model is ready, and fails every
// request.) A model may be reloaded meanwhile, but not all unloaded. It returns
// nil once ctx has ended, and an error when the guard is lost or closed, or when
// the server has ended, or failed to start, once more after 10 starts within 10
// minutes between which done did not grow: it counts the work that the server has
// done, and may be nil when nobody counts. Supervise must have returned before
// Stop, Kill or Restart is called.
func (s *Server) Supervise(ctx context.Context, log *slog.Logger, done func() int64) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if done == nil {
		done = func() int64 { return 0 }
	}
	return s.supervise(ctx, log, done, maxRestarts)
}

func (s *Server) supervise(ctx context.Context, log *slog.Logger, done func() int64, most int) error {
	var restarts []time.Time // within the window and since work was done, oldest first
	var failed error         // why the last start did; nil when the server ran
	before := done()
	for {
		lost := false
		if failed == nil {
			if lost = s.waitEnd(ctx); ctx.Err() != nil {
				return nil
			}
		}
		if err := s.cfg.Guard.Err(); err != nil {
			return err
		}
		how := failed
		switch {
		case lost:
			how = errors.New("the process of a model ended" + s.saveLog())
		case failed == nil:
			how = errors.New(s.State().String() + s.saveLog())
		}
		now := time.Now()
		if n := done(); n > before {
			before, restarts = n, nil
		}
		for len(restarts) > 0 && now.Sub(restarts[0]) > restartWindow {
			restarts = restarts[1:]
		}
		if len(restarts) >= most {
			return fmt.Errorf("embedded Triton ended after %d restarts within %v without doing any work, last: %w; %s", most, restartWindow, how, wayOut)
		}
		restarts = append(restarts, now)
		log.Warn("the embedded Triton ended and is started again", "end", how, "restart", len(restarts), "at_most", most, "within", restartWindow)
		if lost {
			if err := s.Kill(); err != nil {
				return err
			}
		}
		failed = s.start(ctx)
		switch {
		case failed == nil:
			log.Warn("the embedded Triton is back", "after", time.Since(now).Round(time.Millisecond))
		case ctx.Err() != nil:
			return nil
		case errors.Is(failed, guard.ErrClosed), errors.Is(failed, guard.ErrLost):
			// The server ended because the guard did, which takes a moment.
			<-s.cfg.Guard.Done()
			return cmp.Or(s.cfg.Guard.Err(), failed)
		default:
			select {
			case <-time.After(restartPause):
			case <-ctx.Done():
			}
		}
	}
}

// waitEnd waits until the server has ended, or ctx, or, while the server goes
// on, a model's process: then it answers true.
func (s *Server) waitEnd(ctx context.Context) (lost bool) {
	run := s.current()
	watch := stubs{server: run.process.Pid(), died: make(chan struct{}, 1)}
	defer watch.close()
	look := time.NewTimer(0)
	defer look.Stop()
	had := false
	for amiss := (time.Time{}); ; { // since when
		select {
		case <-run.done:
			return false
		case <-ctx.Done():
			return false
		case <-watch.died:
		case <-look.C:
		}
		// Triton waits for the processes that it ends itself, as when a model
		// is reloaded; one that died remains as a zombie. Twice, since it may
		// be about to. A server that was killed takes its own with it.
		alive, dead := watch.search()
		had = had || alive > 0
		switch now := time.Now(); {
		case dead == 0 && (alive > 0 || !had), ending(watch.server):
			amiss = time.Time{}
			look.Reset(stubSearch)
		case amiss.IsZero():
			amiss = now
			look.Reset(stubSettle)
		case now.Sub(amiss) >= stubSettle:
			return true
		}
	}
}

// stubName is what the kernel calls a Python model's process: the first 15
// bytes of triton_python_backend_stub.
const stubName = "(triton_python_b)"

// stubs are the Python models' processes of a server.
type stubs struct {
	server int
	known  map[string]*os.File // by process ID, those that live: see watch
	died   chan struct{}       // of capacity 1: one of them has ended
}

// search counts the stubs that live, and those that have died without the server
// noticing. The end of those that live is told to died.
func (s *stubs) search() (alive, dead int) {
	known := s.known
	s.known = map[string]*os.File{}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.server))
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended
		}
		for pid := range strings.FieldsSeq(string(children)) {
			switch lookAt(pid) {
			case stubLives:
				process, is := known[pid]
				if !is {
					process = s.watch(pid)
				}
				s.known[pid] = process
				delete(known, pid)
			case stubDied:
				dead++
			}
		}
	}
	closeAll(known)
	return len(s.known), dead
}

// watch tells died when a process ends, until the file is closed. It is nil where
// the kernel does not tell; the next search finds out, then.
func (s *stubs) watch(pid string) *os.File {
	id, err := strconv.Atoi(pid)
	if err != nil {
		return nil
	}
	fd, err := unix.PidfdOpen(id, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	process := os.NewFile(uintptr(fd), "pidfd")
	conn, err := process.SyscallConn()
	if err != nil {
		process.Close()
		return nil
	}
	go func() {
		err := conn.Read(func(fd uintptr) bool {
			// It can be read once the process has ended (pidfd_open(2)).
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0 && err == nil
		})
		if err != nil {
			return // closed
		}
		select {
		case s.died <- struct{}{}:
		default:
		}
	}()
	return process
}

func (s *stubs) close() { closeAll(s.known) }

func closeAll(files map[string]*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// ending tells whether a process is on its way out or gone, which can take it
// longer than those that it takes with it.
func ending(pid int) bool {
	// PID (NAME) STATE PPID PGRP SESSION TTY TPGID FLAGS … (proc(5))
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	const state, flags = 0, 6
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= flags || fields[state] == "Z" || fields[state] == "X" {
		return true
	}
	const exiting = 0x4 // PF_EXITING of the kernel's sched.h
	bits, err := strconv.ParseUint(fields[flags], 10, 64)
	return err != nil || bits&exiting != 0
}

// stubState is what has become of a stub.
type stubState int

const (
	stubGone stubState = iota // or the process is no stub
	stubLives
	stubDied // and the server has not noticed
)

func lookAt(pid string) stubState {
	// PID (NAME) STATE … (proc(5))
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, is := strings.Cut(string(stat), stubName+" ")
	switch {
	case err != nil || !is:
		return stubGone
	case strings.HasPrefix(rest, "Z"):
		return stubDied
	}
	return stubLives
}
