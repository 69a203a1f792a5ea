package endtoend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

const (
	repository = "../../model_repository"
	examples   = "../../examples"
)

// The one server of this package, and the guard of everything it starts.
var (
	theGuard  *guard.Guard
	theServer *embedded.Server
)

func TestMain(m *testing.M) {
	guard.Main()
	render.Main()
	code := func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		var err error
		if theGuard, err = guard.Start(ctx, guard.Config{}); err != nil {
			return complain(err)
		}
		options := setup()
		if err := embedded.PrepareModel(ctx, options, repository); err != nil {
			theGuard.Close()
			return complain(err)
		}
		theServer, err = embedded.Start(ctx, embedded.Config{Options: options, ModelRepository: repository})
		if err != nil {
			theGuard.Close()
			return complain(err)
		}
		code := m.Run()
		if err := theServer.Stop(ctx); err != nil {
			code = complain(err)
		}
		if err := theGuard.Close(); err != nil {
			code = complain(err)
		}
		// Whatever the tests did, nothing is left of it.
		if left, _ := filepath.Glob("/dev/shm/" + theGuard.ShmPrefix() + "*"); len(left) > 0 {
			code = complain(fmt.Errorf("shared memory left: %v", left))
		}
		if pid := theServer.Pid(); syscall.Kill(pid, 0) == nil {
			code = complain(fmt.Errorf("the server, process %d, still runs", pid))
		}
		if err := goleak.Find(); err != nil {
			code = complain(err)
		}
		return code
	}()
	os.Exit(code)
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func setup() embedded.Options {
	last := ""
	return embedded.Options{Guard: theGuard, Progress: func(p embedded.Progress) {
		if p.Text != last {
			fmt.Fprintln(os.Stderr, p.Text)
		}
		last = p.Text
	}}
}

// model opens the served layout model.
func model(t *testing.T, addr string, cfg layout.Config) *layout.Model {
	t.Helper()
	client, err := tritonclient.New(addr, tritonclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.SharedMemoryPrefix = theGuard.ShmPrefix()
	m, err := layout.Open(t.Context(), client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		client.Close()
	})
	return m
}

var prefixes struct {
	sync.Mutex
	n int
}

// detector makes an engine of real parts. Zero fields of cfg are filled in.
func detector(t *testing.T, m orchestrator.Model, cfg orchestrator.Config, drawing render.Config) *orchestrator.Detector {
	t.Helper()
	drawing.Guard = theGuard
	cfg.Model, cfg.Renderer = m, render.New(drawing)
	prefixes.Lock()
	prefixes.n++
	cfg.SharedMemoryPrefix = fmt.Sprintf("%s%d-", theGuard.ShmPrefix(), prefixes.n)
	prefixes.Unlock()
	d, err := orchestrator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// runTo runs a directory into out and returns the account.
func runTo(t *testing.T, ctx context.Context, d *orchestrator.Detector, m orchestrator.Model, in, out string) (orchestrator.Summary, error) {
	t.Helper()
	return runWith(t, ctx, d, m, in, out, nil)
}

// runWith is runTo with a progress to watch; it may run beside the test's own
// goroutine.
func runWith(t *testing.T, ctx context.Context, d *orchestrator.Detector, m orchestrator.Model, in, out string, progress *orchestrator.Progress) (orchestrator.Summary, error) {
	t.Helper()
	w, err := walk.New([]string{in}, walk.Config{})
	if err != nil {
		return orchestrator.Summary{}, err
	}
	defer w.Close()
	return runSource(ctx, d, m, w, out, progress)
}

// runSource is runWith for documents that are no directory's.
func runSource(ctx context.Context, d *orchestrator.Detector, m orchestrator.Model, source orchestrator.Source, out string, progress *orchestrator.Progress) (orchestrator.Summary, error) {
	tree, err := sink.Open(sink.Config{Dir: out, Tool: "quire", ToolVersion: "test"})
	if err != nil {
		return orchestrator.Summary{}, err
	}
	defer tree.Close()
	if err := tree.Start(ctx, m.Info(), nil); err != nil {
		return orchestrator.Summary{}, err
	}
	summary, err := d.Run(ctx, orchestrator.Job{Source: source, Sink: tree, Progress: progress})
	_, finishErr := tree.Finish(ctx, summary, err, nil)
	return summary, errors.Join(err, finishErr)
}

// results reads all results below out, by the document's path.
func results(t *testing.T, out string) map[string]*sink.Document {
	t.Helper()
	found := map[string]*sink.Document{}
	err := filepath.WalkDir(out, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() && e.Name() == ".quire" {
			return cmpSkip(err)
		}
		if strings.HasSuffix(path, ".pdf.json") {
			doc, err := sink.ReadDocument(path)
			if err != nil {
				return err
			}
			found[doc.Source.Path] = doc
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func cmpSkip(err error) error {
	if err != nil {
		return err
	}
	return filepath.SkipDir
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// iou is the overlap of two boxes over their union.
func iou(a, b [4]float64) float64 {
	w := min(a[2], b[2]) - max(a[0], b[0])
	h := min(a[3], b[3]) - max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	area := func(r [4]float64) float64 { return (r[2] - r[0]) * (r[3] - r[1]) }
	return w * h / (area(a) + area(b) - w*h)
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
