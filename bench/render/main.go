// Command render draws every page of the PDFs in a directory with quire's
// renderer and one worker process, and does nothing else with them. It talks as
// the peers do: a line of JSON before the first page and one after the last.
//
//	render DIR WIDTH HEIGHT SECONDS
//
// It draws them all again until it has taken so many seconds.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/render"
	"quire/orchestrator/walk"
	"quire/tritonclient/guard"
)

type message struct {
	Type    string  `json:"message_type"` // start, summary
	Pages   int     `json:"pages"`
	Passes  int     `json:"passes"`
	Failed  int     `json:"failed"`
	Seconds float64 `json:"seconds"`
	Engine  string  `json:"engine"`
	// Each is what each page took in the last pass, in milliseconds; a page that
	// failed is left out.
	Each []float64 `json:"each_ms,omitempty"`
}

func main() {
	// The guard and the worker are copies of this program.
	guard.Main()
	render.Main()
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/render:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	var width, height int
	var least float64
	if len(args) != 4 {
		return errors.New("usage: render DIR WIDTH HEIGHT SECONDS")
	}
	if _, err := fmt.Sscan(strings.Join(args[1:], " "), &width, &height, &least); err != nil {
		return fmt.Errorf("WIDTH HEIGHT SECONDS: %w", err)
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
	worker, err := render.New(render.Config{Guard: g}).NewWorker(ctx, width, height)
	if err != nil {
		return err
	}
	defer worker.Close()

	out := json.NewEncoder(os.Stdout)
	m := message{Type: "start", Engine: engine()}
	if err := out.Encode(m); err != nil {
		return err
	}
	start := time.Now()
	for m.Passes == 0 || m.Seconds < least {
		m.Each = m.Each[:0]
		for document := range documents.Documents(ctx) {
			if err := m.draw(ctx, worker, document); err != nil {
				return err
			}
		}
		m.Passes++
		m.Seconds = time.Since(start).Seconds()
	}
	m.Type = "summary"
	if err := out.Encode(m); err != nil {
		return err
	}
	// Until its reader has seen what this took.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// engine names the module that MuPDF comes from.
func engine() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if path.Base(m.Path) == "go-fitz" {
				return "MuPDF of go-fitz " + m.Version
			}
		}
	}
	return "MuPDF"
}

// draw draws a document's pages and counts them. An error is not about them.
func (m *message) draw(ctx context.Context, worker orchestrator.RenderWorker, document orchestrator.Document) error {
	var bad *orchestrator.PageError
	pages, err := worker.Open(ctx, document)
	if errors.As(err, &bad) {
		return nil
	} else if err != nil {
		return err
	}
	for page := range pages {
		start := time.Now()
		switch _, _, err := worker.Draw(ctx, page+1); {
		case err == nil:
			m.Pages++
			m.Each = append(m.Each, float64(time.Since(start).Nanoseconds())/1e6)
		case errors.As(err, &bad):
			m.Failed++
		default:
			return err
		}
	}
	return nil
}
