package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"quire/orchestrator"
)

// reporter tells of a run: to people, or to machines.
type reporter interface {
	begin(d *orchestrator.Detector, s *served, output string) error
	// follow tells of progress until the function that it returns is called.
	follow(ctx context.Context, d *orchestrator.Detector, p *orchestrator.Progress, count func(context.Context) (int, error)) (stop func())
	// sink tells of what the sink was told.
	sink(to orchestrator.Sink) orchestrator.Sink
	end(s orchestrator.Summary, output string, err error) error
}

// text is the reporter for people.
type text struct {
	screen   *screen
	out      io.Writer
	detector *orchestrator.Detector // from begin on
}

func (t *text) begin(d *orchestrator.Detector, s *served, _ string) error {
	t.detector = d
	t.screen.say(describe(d, s))
	return nil
}

func (t *text) follow(ctx context.Context, d *orchestrator.Detector, p *orchestrator.Progress, count func(context.Context) (int, error)) (stop func()) {
	return follow(ctx, t.screen, p.Now, d.Stats, count)
}

func (t *text) sink(to orchestrator.Sink) orchestrator.Sink { return to }

func (t *text) end(s orchestrator.Summary, output string, _ error) error {
	if line := requestsLine(t.detector.Stats()); line != "" {
		t.screen.say(line)
	}
	_, err := fmt.Fprintln(t.out, lastLine(s, output))
	return err
}

// requestsLine says how large the requests were that the server was sent, which
// is what the batch settings turn, and what sealed them.
func requestsLine(s orchestrator.Stats) string {
	var requests, pages int64
	var sizes, sealed []string
	for size, n := range s.Sizes {
		if n > 0 {
			requests += n
			pages += n * int64(size)
			sizes = append(sizes, fmt.Sprintf("%d of %d", n, size))
		}
	}
	if requests == 0 {
		return ""
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Sealed)) {
		if n := s.Sealed[reason]; n > 0 {
			sealed = append(sealed, fmt.Sprintf("%d by %s", n, reason))
		}
	}
	return fmt.Sprintf("requests: %d, %.1f pages on average (%s), sealed %s",
		requests, float64(pages)/float64(requests), strings.Join(sizes, ", "), strings.Join(sealed, ", "))
}

// describe says what will happen with how much of everything.
func describe(d *orchestrator.Detector, s *served) string {
	cfg, how := d.Settings(), "in the requests"
	if s.model.Input().SharedMemory {
		how = "in shared memory"
	}
	age := cfg.MaxAge.String()
	if cfg.MaxAge < 0 {
		age = "0s"
	}
	info := s.model.Info()
	return fmt.Sprintf("model %s version %s at %s; %d workers, batches up to %d pages, %s old, %d in flight; page buffers %.1f MB %s",
		info.Name, info.Version, s.where, cfg.Workers, cfg.Batch, age, cfg.InFlight, float64(d.MemoryBound())/1e6, how)
}

// lastLine is the account of a run; its numbers add up.
func lastLine(s orchestrator.Summary, output string) string {
	d, p := s.Documents, s.Pages
	var b strings.Builder
	fmt.Fprintf(&b, "documents: %d = %d done + %d partial + %d failed + %d skipped", d.Ended(), d.Done, d.Partial, d.Failed, d.Skipped)
	if d.Cancelled > 0 {
		fmt.Fprintf(&b, " + %d cancelled", d.Cancelled)
	}
	fmt.Fprintf(&b, "; pages: %d = %d done + %d failed + %d skipped + %d cancelled", p.Ended(), p.Done, p.Failed, p.Skipped, p.Cancelled)
	fmt.Fprintf(&b, "; %s", s.Elapsed.Round(100*time.Millisecond))
	if seconds := s.Elapsed.Seconds(); seconds > 0 {
		fmt.Fprintf(&b, ", %.1f pages/s", float64(p.Done+p.Failed)/seconds)
	}
	fmt.Fprintf(&b, "; results in %s", output)
	return b.String()
}
