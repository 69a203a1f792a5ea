package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"quire/orchestrator"
	"quire/tritonclient/embedded"
)

// screen is where a person reads what is going on: a bar that moves on a
// terminal, plain lines elsewhere. Its methods may be called from any goroutine.
type screen struct {
	out io.Writer
	tty bool

	mu   sync.Mutex
	bars *mpb.Progress // while a bar is shown
	bar  *mpb.Bar

	now atomic.Pointer[embedded.Progress] // read by the bar's own goroutine
}

func newScreen(out io.Writer) *screen {
	f, ok := out.(*os.File)
	return &screen{out: out, tty: ok && term.IsTerminal(int(f.Fd()))}
}

// Write prints above the bar; the log goes here.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	bars := s.bars
	s.mu.Unlock()
	if bars != nil {
		if n, err := bars.Write(p); err == nil {
			return n, nil
		} // the bar has just gone
	}
	return s.out.Write(p)
}

// say prints one line.
func (s *screen) say(line string) {
	s.hide()
	fmt.Fprintln(s, "quire: "+line)
}

func (s *screen) status(text string) { s.step(embedded.Progress{Text: text}) }

// step shows what the set-up is doing.
func (s *screen) step(p embedded.Progress) {
	before := s.now.Swap(&p)
	if !s.tty {
		if before == nil || before.Text != p.Text {
			fmt.Fprintln(s, "quire: "+p.Text)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars == nil {
		s.show(0, mpb.NopStyle(), mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return s.stepText() })))
	}
}

func (s *screen) stepText() string {
	p := s.now.Load()
	if p.Total > 0 {
		return fmt.Sprintf("%s, %.0f of %.0f MB", p.Text, float64(p.Done)/1e6, float64(p.Total)/1e6)
	}
	return p.Text
}

// show begins a bar; s.mu is held.
func (s *screen) show(total int64, style mpb.BarFillerBuilder, options ...mpb.BarOption) {
	s.bars = mpb.New(mpb.WithOutput(s.out), mpb.WithRefreshRate(150*time.Millisecond))
	s.bar = s.bars.New(total, style, options...)
}

// hide takes the bar away.
func (s *screen) hide() {
	s.mu.Lock()
	bars, bar := s.bars, s.bar
	s.bars, s.bar = nil, nil
	s.mu.Unlock()
	if bars != nil {
		bar.Abort(true)
		bars.Wait()
	}
}

func (s *screen) close() { s.hide() }

// linePause is how often a line is printed where there is no bar.
const linePause = 10 * time.Second

// follow shows the progress of a run until the function that it returns is
// called. It only ever reads; the run never waits for it.
func (s *screen) follow(ctx context.Context, d *orchestrator.Detector, p *orchestrator.Progress, count func(context.Context) (int, error)) (stop func()) {
	s.hide()
	ctx, cancel := context.WithCancel(ctx)
	v := &view{detector: d, progress: p, start: time.Now()}
	var group sync.WaitGroup
	group.Go(func() {
		if n, err := count(ctx); err == nil {
			v.mu.Lock()
			v.documents = int64(n)
			v.mu.Unlock()
		}
	})
	if s.tty {
		s.mu.Lock()
		s.show(1, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return v.pages() })),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return v.rest() })))
		bar := s.bar
		s.mu.Unlock()
		group.Go(func() {
			v.tick(ctx, 150*time.Millisecond, func() { bar.SetTotal(max(v.total(), 1), false); bar.SetCurrent(v.ended()) })
		})
	} else {
		group.Go(func() {
			v.tick(ctx, linePause, func() { fmt.Fprintf(s, "quire: %s%s\n", v.pages(), v.rest()) })
		})
	}
	return func() {
		cancel()
		group.Wait()
		s.hide()
	}
}

// view turns counts into words.
type view struct {
	detector *orchestrator.Detector
	progress *orchestrator.Progress
	start    time.Time

	mu        sync.Mutex
	documents int64 // in all; 0 until they are counted
}

func (v *view) tick(ctx context.Context, every time.Duration, do func()) {
	t := time.NewTicker(every)
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

func (v *view) ended() int64 { return v.progress.Now().Pages.Ended() }

// total is the number of pages there will be, as far as one can tell: documents
// that nobody has opened are taken to be as long as the others.
func (v *view) total() int64 {
	v.mu.Lock()
	documents := v.documents
	v.mu.Unlock()
	p := v.progress.Now()
	if documents == 0 || p.Listed == 0 {
		return p.Known
	}
	return p.Known + (documents-min(p.Listed, documents))*p.Known/p.Listed
}

func (v *view) pages() string {
	about := ""
	v.mu.Lock()
	if v.progress.Now().Listed < v.documents || v.documents == 0 {
		about = "≈"
	}
	v.mu.Unlock()
	return fmt.Sprintf("%d/%s%d pages ", v.ended(), about, v.total())
}

func (v *view) rest() string {
	var b bytes.Buffer
	p, took := v.progress.Now(), time.Since(v.start)
	ended := p.Pages.Ended()
	if waiting := v.detector.Stats(); waiting.Waiting != "" {
		fmt.Fprintf(&b, " waiting for Triton, %v: %s", time.Since(waiting.WaitingSince).Round(time.Second), waiting.Waiting)
		return b.String()
	}
	if ended > 0 {
		rate := float64(ended) / took.Seconds()
		fmt.Fprintf(&b, " %.1f pages/s", rate)
		left := time.Duration(float64(v.total()-ended) / rate * float64(time.Second))
		fmt.Fprintf(&b, " ETA %v", left.Round(time.Second))
	}
	if failed := p.Pages.Failed; failed > 0 {
		fmt.Fprintf(&b, " %d failed", failed)
	}
	if failed := p.Documents.Failed + p.Documents.Partial; failed > 0 {
		fmt.Fprintf(&b, " in %d documents", failed)
	}
	return b.String()
}
