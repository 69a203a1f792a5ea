//go:build linux

package render

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quire/orchestrator"
)

const (
	logLevel = slog.LevelDebug
	// maxSide bounds a raster so that its size cannot overflow anything.
	maxSide = 1 << 14
)

// Pool makes workers. Its methods may be called from any goroutine.
type Pool struct {
	cfg Config

	pages, crashes, kills atomic.Int64
	cpu                   atomic.Int64
	notHeldIn             sync.Once
	missed                lately
}

// lately knows the documents of late that something was said of, so that it is
// said once, whichever workers have them. No more are open at once.
type lately struct {
	mu    sync.Mutex
	paths [256]string
	next  int
}

// first tells whether path is new, and keeps it.
func (l *lately) first(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.paths[:], path) {
		return false
	}
	l.paths[l.next%len(l.paths)] = path
	l.next++
	return true
}

var _ orchestrator.Renderer = (*Pool)(nil)

// New returns a pool. It starts nothing.
func New(cfg Config) *Pool { return &Pool{cfg: cfg.withDefaults()} }

// NewWorker starts a worker process and returns once it can draw. An error is
// about this machine or this program, or ctx's own; ctx bounds the start only.
func (p *Pool) NewWorker(ctx context.Context, width, height int) (orchestrator.RenderWorker, error) {
	w, err := p.newWorker(ctx, raster{width: width, height: height})
	if err != nil {
		return nil, err // not w: a nil *worker is no nil RenderWorker
	}
	return w, nil
}

func (p *Pool) newWorker(ctx context.Context, r raster) (*worker, error) {
	if p.cfg.Guard == nil {
		return nil, errors.New("render: Config.Guard is not set")
	}
	if _, err := ParseSandboxMode(string(p.cfg.Sandbox)); err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	if r.width < 1 || r.height < 1 || r.width > maxSide || r.height > maxSide {
		return nil, fmt.Errorf("render: a raster of %d×%d pixels; both must be from 1 to %d", r.width, r.height, maxSide)
	}
	process, err := p.start(ctx, r)
	if err != nil {
		return nil, err
	}
	return &worker{pool: p, raster: r, process: process}, nil
}

func (p *Pool) start(ctx context.Context, r raster) (*process, error) {
	process, err := start(ctx, p.cfg, r)
	if err == nil && len(process.sandbox.Missing) > 0 {
		p.notHeldIn.Do(func() {
			p.cfg.Logger.InfoContext(ctx, "render workers are held in only in part: quire doctor says what is missing",
				"missing", strings.Join(process.sandbox.Missing, "; "))
		})
	}
	return process, err
}

// Sandbox starts a worker process, and ends it, to tell what holds it in.
func (p *Pool) Sandbox(ctx context.Context) (Sandbox, error) {
	w, err := p.newWorker(ctx, raster{width: 1, height: 1})
	if err != nil {
		return Sandbox{}, err
	}
	defer w.Close()
	return w.process.sandbox, nil
}

// Stats are counts since the pool was made.
type Stats struct {
	// Pages counts drawings that were tried, failed ones included.
	Pages int64
	// CPU is the time that MuPDF took for them and for opening documents, on
	// its thread, as far as workers lived to tell.
	CPU time.Duration
	// Crashes counts worker processes that died at work, Kills those that were
	// killed because they did not answer in time.
	Crashes, Kills int64
}

// Stats returns the counts so far.
func (p *Pool) Stats() Stats {
	return Stats{
		Pages:   p.pages.Load(),
		CPU:     time.Duration(p.cpu.Load()),
		Crashes: p.crashes.Load(),
		Kills:   p.kills.Load(),
	}
}
