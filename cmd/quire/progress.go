package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-runewidth"

	"quire/orchestrator"
)

// linePause is how often a line is printed where there is no bar.
const linePause = 10 * time.Second

// follow shows the progress of a run until the function that it returns is
// called. It only ever reads; the run never waits for it.
func follow(ctx context.Context, s *screen, v *view, count func(context.Context) (int, error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	v.pace = newPace(time.Now())
	var group sync.WaitGroup
	group.Go(func() {
		if n, err := count(ctx); err == nil {
			v.documents.Store(int64(n))
		}
	})
	if s.tty() {
		s.show(v.line)
	} else {
		s.hide()
		group.Go(func() { every(ctx, linePause, func() { s.say(v.line(0)) }) })
	}
	return func() {
		cancel()
		group.Wait()
		s.hide()
	}
}

// view turns counts into words. Its methods may be called from any goroutine.
type view struct {
	now       func() orchestrator.ProgressNow
	stats     func() orchestrator.Stats
	disk      func() (reason string, since time.Time) // why the disk is waited for
	documents atomic.Int64                            // in all; 0 until they are counted
	pace      *pace
}

// total is the number of pages there will be, as far as one can tell: documents
// that nobody has opened are taken to be as long as the others. It is 0 while
// there is nothing to tell it from.
func (v *view) total(p orchestrator.ProgressNow) (pages int64, exact bool) {
	documents := v.documents.Load()
	switch {
	case documents == 0 || p.Opened == 0:
		return 0, false
	case p.Opened >= documents:
		return p.Known, true
	}
	return max(p.Known+(documents-p.Opened)*p.Known/p.Opened, p.Pages.Ended()), false
}

// line is a bar between two texts, or just these where there is no room.
func (v *view) line(columns int) string {
	p := v.now()
	total, exact := v.total(p)
	before, after := pagesText(p.Pages.Ended(), total, exact), v.rest(p, total)
	room := columns - runewidth.StringWidth(before) - runewidth.StringWidth(after) - len(" [] ")
	if room < 10 {
		return strings.TrimRight(before+" "+after, " ")
	}
	done := 0
	if total > 0 {
		done = int(min(p.Pages.Ended(), total) * int64(room) / total)
	}
	bar := strings.Repeat("=", done)
	if done > 0 && done < room {
		bar = bar[1:] + ">"
	}
	return strings.TrimRight(fmt.Sprintf("%s [%-*s] %s", before, room, bar, after), " ")
}

// pagesText is what stands before the bar.
func pagesText(ended, total int64, exact bool) string {
	switch {
	case exact:
		return fmt.Sprintf("%d/%d pages", ended, total)
	case total > 0:
		return fmt.Sprintf("%d/≈%d pages", ended, total)
	}
	return fmt.Sprintf("%d pages", ended)
}

// rest is what stands behind the bar.
func (v *view) rest(p orchestrator.ProgressNow, total int64) string {
	stats := v.stats()
	if stats.Waiting != "" {
		return fmt.Sprintf("waiting for Triton, %s: %s", duration(time.Since(stats.WaitingSince)), oneLine(stats.Waiting))
	}
	if reason, since := v.disk(); reason != "" {
		return fmt.Sprintf("waiting for disk space, %s: %s", duration(time.Since(since)), oneLine(reason))
	}
	if stats.Stall != "" {
		return fmt.Sprintf("no page for %s, waiting for %s", duration(time.Since(stats.StallSince)), oneLine(stats.Stall))
	}
	var parts []string
	// What was skipped, cancelled or done before took no time.
	if rate := v.pace.rate(time.Now(), p.Pages.Done+p.Pages.Failed-p.Resumed); rate > 0 {
		parts = append(parts, fmt.Sprintf("%.1f pages/s", rate))
		if left := total - p.Pages.Ended(); left > 0 {
			parts = append(parts, "ETA "+duration(time.Duration(float64(left)/rate*float64(time.Second))))
		}
	}
	// Documents that would not open have no page that could fail.
	pages, documents := p.Pages.Failed, p.Documents.Failed+p.Documents.Partial
	switch {
	case pages > 0 && documents > 0:
		parts = append(parts, fmt.Sprintf("failed: %s, %s", plural(pages, "page"), plural(documents, "document")))
	case pages > 0:
		parts = append(parts, "failed: "+plural(pages, "page"))
	case documents > 0:
		parts = append(parts, "failed: "+plural(documents, "document"))
	}
	if out := serversOut(stats.Endpoints); out != "" {
		parts = append(parts, out)
	}
	return strings.Join(parts, ", ")
}

// serversOut says which of several servers are not used just now.
func serversOut(all []orchestrator.EndpointStats) string {
	var out []string
	for _, e := range all {
		if e.State == orchestrator.EndpointAway || e.State == orchestrator.EndpointRefused {
			out = append(out, fmt.Sprintf("%s %s", e.Name, e.State))
		}
	}
	switch len(out) {
	case 0:
		return ""
	case 1:
		return oneLine(out[0])
	}
	return fmt.Sprintf("%d of %d servers out", len(out), len(all))
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// duration is short, and no more exact than a forecast can be.
func duration(d time.Duration) string {
	d = d.Round(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h >= 48:
		return fmt.Sprintf("%dd%dh", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%dh%02dm", h, m)
	case m > 0:
		return fmt.Sprintf("%dm%02ds", m, s)
	}
	return fmt.Sprintf("%ds", s)
}

// pace measures how fast a count grows, over the last 15 to 30 seconds: a run's
// documents differ, and an outage long past says nothing about what is left.
type pace struct {
	mu       sync.Mutex
	from, to mark // the older is the start of what is measured
}

type mark struct {
	at time.Time
	n  int64
}

const (
	paceSpan = 15 * time.Second
	// paceStart is how long nothing is said: the first pages wait for workers.
	paceStart = 2 * time.Second
)

func newPace(start time.Time) *pace {
	m := mark{at: start}
	return &pace{from: m, to: m}
}

// rate is in counts a second; 0 when it cannot tell.
func (p *pace) rate(now time.Time, n int64) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.to.at) >= paceSpan {
		p.from, p.to = p.to, mark{now, n}
	}
	took := now.Sub(p.from.at)
	if took < paceStart || n <= p.from.n {
		return 0
	}
	return float64(n-p.from.n) / took.Seconds()
}
