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
	"quire/orchestrator/sink"
)

// reporter tells of a run: to people, or to machines.
type reporter interface {
	begin() error
	// follow tells of progress until the function that it returns is called.
	follow(ctx context.Context) (stop func())
	// sink tells of what the sink was told.
	sink(to orchestrator.Sink) orchestrator.Sink
	// vanished tells of a result whose document is not among the inputs.
	vanished(path string)
	end(s orchestrator.Summary, v sink.Vanished, err error) error
}

// running is a run, as far as there is to tell of it.
type running struct {
	begun    time.Time // when the program did
	output   string
	served   *served
	detector *orchestrator.Detector
	tree     *sink.Tree
	progress *orchestrator.Progress
	count    func(context.Context) (int, error) // of the documents
}

// text is the reporter for people.
type text struct {
	running
	screen *screen
	out    io.Writer
	gone   []string // the first of them
}

func (t *text) begin() error {
	t.screen.say(describe(t.detector, t.served))
	return nil
}

func (t *text) follow(ctx context.Context) (stop func()) {
	v := &view{now: t.progress.Now, stats: t.detector.Stats, disk: t.tree.Waiting}
	return follow(ctx, t.screen, v, t.count)
}

func (t *text) sink(to orchestrator.Sink) orchestrator.Sink { return to }

// someVanished is how many names are told of results without a document.
const someVanished = 3

func (t *text) vanished(path string) {
	if t.gone = append(t.gone, path); len(t.gone) > someVanished {
		t.gone = t.gone[:someVanished]
	}
}

func (t *text) end(s orchestrator.Summary, v sink.Vanished, _ error) error {
	if line := vanishedLine(v, t.gone); line != "" {
		t.screen.say(line)
	}
	stats := t.detector.Stats()
	if line := requestsLine(stats); line != "" {
		if first := t.tree.Written().First; !first.IsZero() {
			line += fmt.Sprintf("; the first result stood after %v", first.Sub(t.begun).Round(100*time.Millisecond))
		}
		t.screen.say(line)
	}
	if len(stats.Endpoints) > 1 {
		t.screen.say(serversLine(stats))
	}
	_, err := fmt.Fprintln(t.out, lastLine(s, t.output))
	return err
}

// vanishedLine says which results are of documents that are not there.
func vanishedLine(v sink.Vanished, names []string) string {
	if v.Found == 0 {
		return ""
	}
	more := ""
	if v.Found > int64(len(names)) {
		more = ", …"
	}
	what := "results of documents that are not among the inputs"
	if v.Found == 1 {
		what = "result of a document that is not among the inputs"
	}
	line := fmt.Sprintf("%d %s: %s%s", v.Found, what, strings.Join(names, ", "), more)
	switch {
	case v.Pruned > 0:
		return line + fmt.Sprintf("; %d removed", v.Pruned)
	case v.Kept != "":
		return line + "; not removed, since " + v.Kept
	}
	return line + "; --prune removes them"
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

// serversLine says which server answered how many pages.
func serversLine(s orchestrator.Stats) string {
	var parts []string
	for _, e := range s.Endpoints {
		part := fmt.Sprintf("%s %s", e.Name, plural(e.Pages, "page"))
		if e.State != orchestrator.EndpointUp {
			part += fmt.Sprintf(" (%s)", e.State)
		}
		parts = append(parts, part)
	}
	return "servers: " + strings.Join(parts, ", ")
}

// sharedMemory is how many of the servers take pages in shared memory.
func sharedMemory(s *served) (n int) {
	for _, server := range s.fleet.Servers() {
		if server.Model.Input().SharedMemory {
			n++
		}
	}
	return n
}

// describe says what will happen with how much of everything.
func describe(d *orchestrator.Detector, s *served) string {
	cfg, how := d.Settings(), "in the requests"
	switch n, all := sharedMemory(s), len(s.fleet.Servers()); {
	case n == all:
		how = "in shared memory"
	case n > 0:
		how = fmt.Sprintf("in shared memory for %d of %d servers", n, all)
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
	if before := beforeText(s); before != "" {
		fmt.Fprintf(&b, "; %s", before)
	}
	fmt.Fprintf(&b, "; %s", s.Elapsed.Round(100*time.Millisecond))
	if seconds := s.Elapsed.Seconds(); seconds > 0 {
		fmt.Fprintf(&b, ", %.1f pages/s", float64(p.Done+p.Failed-s.Resumed)/seconds)
	}
	fmt.Fprintf(&b, "; results in %s", output)
	return b.String()
}

// redoneWords say for people why documents were done again.
var redoneWords = map[orchestrator.Redone]string{
	orchestrator.RedoneInput: "changed", orchestrator.RedoneModel: "another model", orchestrator.RedoneOptions: "other options",
	orchestrator.RedoneMissing: "without their result", orchestrator.RedoneFailed: "failed before",
	orchestrator.RedonePassword: "encrypted", orchestrator.RedoneFresh: "asked for",
}

// beforeText says what earlier runs had done.
func beforeText(s orchestrator.Summary) string {
	var parts []string
	if d, p := s.DocumentsBefore, s.PagesBefore; s.Documents.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("skipped: %d done + %d partial + %d failed before, with pages: %d done + %d failed", d.Done, d.Partial, d.Failed, p.Done, p.Failed))
	}
	if s.Resumed > 0 {
		parts = append(parts, fmt.Sprintf("resumed: %s", plural(s.Resumed, "page")))
	}
	var redone []string
	for _, why := range slices.Sorted(maps.Keys(s.Redone)) {
		words := redoneWords[why]
		if words == "" {
			words = string(why)
		}
		redone = append(redone, fmt.Sprintf("%d %s", s.Redone[why], words))
	}
	if len(redone) > 0 {
		parts = append(parts, "redone: "+strings.Join(redone, " + "))
	}
	return strings.Join(parts, "; ")
}
