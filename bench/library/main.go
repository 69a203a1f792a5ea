// Command library does what quire run does, called from Go, and with -ticker
// measures meanwhile how late a timer of its own process is, as the peers that
// have an event loop do. It talks as they do, too: a line of JSON before the
// first page and one after the last.
//
//	library [-ticker] DIR OUT HOST:PORT
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
	"quire/tritonclient"
	"quire/tritonclient/guard"
)

type message struct {
	Type    string             `json:"message_type"` // start, summary
	Pages   int64              `json:"pages"`
	Failed  int64              `json:"failed"`
	Regions int                `json:"regions"`
	Seconds float64            `json:"seconds"`
	LoopMS  map[string]float64 `json:"loop_ms,omitempty"`
}

func main() {
	// The guard and the workers are copies of this program.
	guard.Main()
	render.Main()
	ticker := flag.Bool("ticker", false, "tell how late a timer is")
	flag.Parse()
	if err := run(context.Background(), flag.Args(), *ticker); err != nil {
		fmt.Fprintln(os.Stderr, "bench/library:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, ticker bool) (err error) {
	if len(args) != 3 {
		return errors.New("usage: library [-ticker] DIR OUT HOST:PORT")
	}
	documents, err := walk.New(args[:1], walk.Config{})
	if err != nil {
		return err
	}
	defer documents.Close()
	g, err := guard.Start(ctx, guard.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	client, err := tritonclient.New(args[2], tritonclient.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	model, err := layout.Open(ctx, client, layout.Config{SharedMemoryPrefix: g.ShmPrefix()})
	if err != nil {
		return err
	}
	defer model.Close()
	tree, err := sink.Open(sink.Config{Dir: args[1], Tool: "bench/library"})
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := tree.Start(ctx, model.Info(), nil); err != nil {
		return err
	}
	detector, err := orchestrator.New(orchestrator.Config{
		Model: model, Renderer: render.New(render.Config{Guard: g, Nice: 10}), SharedMemoryPrefix: g.ShmPrefix(),
	})
	if err != nil {
		return err
	}
	defer detector.Close()

	out, results := json.NewEncoder(os.Stdout), &counted{Sink: tree}
	if err := out.Encode(message{Type: "start"}); err != nil {
		return err
	}
	lateness := func() map[string]float64 { return nil }
	if ticker {
		lateness = tick()
	}
	summary, err := detector.Run(ctx, orchestrator.Job{Source: documents, Sink: results})
	late := lateness()
	_, finishErr := tree.Finish(ctx, summary, err, nil)
	if err = cmp.Or(err, finishErr); err != nil {
		return err
	}
	if err := out.Encode(message{
		"summary", summary.Pages.Done, summary.Pages.Failed, results.regions, summary.Elapsed.Seconds(), late,
	}); err != nil {
		return err
	}
	// Until its reader has seen what this took.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// counted counts regions on their way.
type counted struct {
	orchestrator.Sink
	regions int
}

func (c *counted) Page(ctx context.Context, r orchestrator.PageResult) error {
	c.regions += len(r.Regions)
	return c.Sink.Page(ctx, r)
}

// tick starts a timer that is due every millisecond; what it returns stops it
// and says how late it was, in milliseconds. Those that come due while it is
// held up count as well.
func tick() (lateness func() map[string]float64) {
	const period = time.Millisecond
	var late []time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		due := time.Now().Add(period)
		for timer := time.NewTimer(period); ; timer.Reset(time.Until(due)) {
			select {
			case <-timer.C:
			case <-stop:
				return
			}
			for now := time.Now(); !due.After(now); due = due.Add(period) {
				late = append(late, now.Sub(due))
			}
		}
	}()
	return func() map[string]float64 {
		close(stop)
		<-stopped
		slices.Sort(late)
		at := func(share float64) float64 { return late[int(share*float64(len(late)-1))].Seconds() * 1e3 }
		return map[string]float64{"p50": at(0.5), "p99": at(0.99), "max": at(1)}
	}
}
