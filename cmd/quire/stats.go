package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/monitor"
	"quire/tritonclient"
	"quire/tritonclient/metrics"
)

func statsCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "watch what servers do with the model",
		Description: "Shows the pages a second, how many requests were under way, the sizes of the\n" +
			"batches that were executed, where the time of a request goes and what waits, of\n" +
			"one server or several, whoever sends the pages. Interrupt it to end; that is code 0.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "triton", EnvVars: []string{"QUIRE_TRITON"}, Usage: "watch the servers at `HOST:PORT` (gRPC ports), separated by commas; dns:///NAME:PORT is every address that the name has at the start (required)"},
			&cli.StringFlag{Name: "metrics", EnvVars: []string{"QUIRE_METRICS"}, Usage: "read queues, CPU and GPUs from the metrics at `URL`, one for each server in the same order, separated by commas; usually http://HOST:8002/metrics", DefaultText: "none"},
		}, connectionFlags(), []cli.Flag{
			&cli.DurationFlag{Name: "interval", EnvVars: []string{"QUIRE_INTERVAL"}, Usage: "read every `TIME`", Value: 2 * time.Second},
			&cli.IntFlag{Name: "count", EnvVars: []string{"QUIRE_COUNT"}, Usage: "end after `N` intervals; 0: when interrupted"},
			&cli.BoolFlag{Name: "json", EnvVars: []string{"QUIRE_JSON"}, Usage: "print JSON, one object a line for each server and interval (docs/events.md)"},
		}),
		Action: func(c *cli.Context) error { return statsRun(c, stop) },
	}
}

// endpointsOf makes what is to be watched of the command line. The clients are to
// be closed, also after an error.
func endpointsOf(c *cli.Context) (endpoints []monitor.Endpoint, clients []*tritonclient.Client, err error) {
	if c.NArg() > 0 {
		return nil, nil, fmt.Errorf("%s: stats takes no arguments", c.Args().First())
	}
	if c.String("triton") == "" {
		return nil, nil, errors.New("no server: add --triton HOST:PORT; quire run prints the address of the one that it starts")
	}
	if c.Duration("interval") < 10*time.Millisecond {
		return nil, nil, fmt.Errorf("--interval %v: it must be at least 10ms", c.Duration("interval"))
	}
	if c.Int("count") < 0 {
		return nil, nil, fmt.Errorf("--count %d: it must not be negative", c.Int("count"))
	}
	connection, err := connectionOf(c)
	if err != nil {
		return nil, nil, err
	}
	list, err := tritonclient.ParseEndpoints(c.String("triton"))
	if err != nil {
		return nil, nil, fmt.Errorf("--triton: %w", err)
	}
	addrs, err := list.Resolve(c.Context)
	if err != nil {
		return nil, nil, serverError{err}
	}
	var urls []string
	if list := c.String("metrics"); list != "" {
		if urls = strings.Split(list, ","); len(urls) != len(addrs) {
			return nil, nil, fmt.Errorf("--metrics has %d URLs, and --triton %d servers: give one for each", len(urls), len(addrs))
		}
	}
	for i, addr := range addrs {
		client, err := tritonclient.New(addr.Target, addr.Secure(connection))
		if err != nil {
			return nil, clients, fmt.Errorf("--triton: %w", err)
		}
		clients = append(clients, client)
		e := monitor.Endpoint{Name: addr.Target, Statistics: func(ctx context.Context) (tritonclient.ModelStatistics, error) {
			return client.Statistics(ctx, layout.DefaultModel, "")
		}}
		if urls != nil {
			e.Metrics = func(ctx context.Context) (metrics.Metrics, error) {
				return metrics.Read(ctx, strings.TrimSpace(urls[i]))
			}
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, clients, nil
}

func statsRun(c *cli.Context, stop stops) error {
	endpoints, clients, err := endpointsOf(c)
	defer func() {
		for _, client := range clients {
			client.Close()
		}
	}()
	if _, ok := errors.AsType[serverError](err); ok {
		return err
	}
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := untilStopped(c.Context, stop.soft)
	defer cancel(nil)

	watched := monitor.New(endpoints)
	first := watched.Read(ctx)
	if !slices.ContainsFunc(first, func(r monitor.Reading) bool { return r.Error == "" }) && ctx.Err() == nil {
		return serverError{errors.New(first[0].Error)}
	}
	screen := newScreen(c.App.ErrWriter)
	defer screen.hide()
	var mu sync.Mutex
	now := statsText(first)
	moving := screen.tty() && !c.Bool("json")
	if moving {
		screen.show(func(int) string {
			mu.Lock()
			defer mu.Unlock()
			return now
		})
	}
	out := json.NewEncoder(c.App.Writer)
	ticks := time.NewTicker(c.Duration("interval"))
	defer ticks.Stop()
	for n := 0; c.Int("count") == 0 || n < c.Int("count"); n++ {
		select {
		case <-ticks.C:
		case <-ctx.Done():
		}
		readings := watched.Read(ctx)
		if ctx.Err() != nil {
			break
		}
		mu.Lock()
		now = statsText(readings)
		mu.Unlock()
		switch {
		case c.Bool("json"):
			for _, r := range readings {
				if err := out.Encode(watchedLine{"quire-stats/1", r}); err != nil {
					return err
				}
			}
		case !moving:
			if _, err := fmt.Fprintln(c.App.Writer, readings[0].Time.Format(time.TimeOnly)+" "+now); err != nil {
				return err
			}
		}
	}
	if moving {
		screen.hide()
		// The last reading stays where a person can read on.
		if _, err := fmt.Fprintln(c.App.Writer, now); err != nil {
			return err
		}
	}
	// Somebody who has seen enough is no failure.
	if err := context.Cause(ctx); !errors.Is(err, orchestrator.ErrInterrupted) {
		return err
	}
	return nil
}

// watchedLine is a line of --json.
type watchedLine struct {
	Schema string `json:"schema"`
	monitor.Reading
}

// statsText tells readings to people, in some lines for each server.
func statsText(readings []monitor.Reading) string {
	var blocks []string
	pages := 0.0
	for _, r := range readings {
		pages += r.PagesPerSecond
		blocks = append(blocks, readingText(r))
	}
	if len(readings) > 1 {
		blocks = append(blocks, fmt.Sprintf("all: %.1f pages/s", pages))
	}
	return strings.Join(blocks, "\n")
}

func readingText(r monitor.Reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", r.Endpoint)
	switch {
	case r.Error != "":
		return b.String() + oneLine(r.Error)
	case r.Since == monitor.SinceNothing:
		fmt.Fprintf(&b, "model %s version %s", r.Model, r.Version)
	case r.Since == monitor.SinceReload:
		b.WriteString("the model was loaded again, counting anew")
	default:
		fmt.Fprintf(&b, "%.1f pages/s, %.1f requests/s", r.PagesPerSecond, float64(r.Requests)/r.Seconds)
		if r.Failed > 0 {
			fmt.Fprintf(&b, ", %d failed", r.Failed)
		}
		fmt.Fprintf(&b, ", %.1f under way, %.2f executing", r.UnderWay, r.Executing)
	}
	if r.Pending != nil {
		fmt.Fprintf(&b, ", %d pending", *r.Pending)
	}
	if len(r.Batches) > 0 {
		fmt.Fprintf(&b, "\n  batches of %.1f pages on average:", r.MeanBatch)
		for i, e := range r.Batches {
			fmt.Fprintf(&b, "%s %d of %d", map[bool]string{true: ","}[i > 0], e.Count, e.Batch)
		}
	}
	if s := r.Shares; r.Latency > 0 {
		fmt.Fprintf(&b, "\n  a request takes %s: %.0f %% in the queue, %.0f %% input, %.0f %% model, %.0f %% output, %.0f %% other",
			time.Duration(r.Latency*float64(time.Second)).Round(100*time.Microsecond), 100*s.Queue, 100*s.Input, 100*s.Infer, 100*s.Output, 100*s.Other)
	}
	var devices []string
	if r.CPU != nil {
		devices = append(devices, fmt.Sprintf("CPU %.0f %%", 100**r.CPU))
	}
	for _, g := range r.GPUs {
		devices = append(devices, fmt.Sprintf("GPU %.0f %%, %s of %s, %.0f W", 100*g.Utilization, size(g.MemoryUsed), size(g.MemoryTotal), g.Power))
	}
	if r.MetricsError != "" {
		devices = append(devices, "no metrics: "+oneLine(r.MetricsError))
	}
	if len(devices) > 0 {
		b.WriteString("\n  " + strings.Join(devices, "; "))
	}
	return b.String()
}
