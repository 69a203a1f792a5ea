//go:build linux

package render

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator/render/internal/mupdf"
	"quire/orchestrator/render/internal/pdftest"
)

// A command is stopped when its time is over or when it was called off, also
// before it has begun, and no other one is stopped for it.
func TestCommandsAreStopped(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		name string
		do   func(w *child)
		want bool // whether the command that runs then is stopped
	}{
		{"in time", func(w *child) { w.begin(1, second); time.Sleep(second / 2) }, false},
		{"too late", func(w *child) { w.begin(1, second); time.Sleep(2 * second) }, true},
		{"too late, and ended", func(w *child) { end := w.begin(1, second); time.Sleep(2 * second); end() }, false},
		{"without a limit", func(w *child) { w.begin(1, 0); time.Sleep(time.Hour) }, false},
		{"after one with a limit", func(w *child) { w.begin(1, second)(); w.begin(2, 0); time.Sleep(time.Hour) }, false},
		{"after one whose time goes on", func(w *child) {
			w.begin(1, second)()
			time.Sleep(second / 2)
			w.begin(2, second)
			w.expire() // what the first one's would come to, had it waited for begin
			time.Sleep(3 * second / 4)
		}, false},
		{"between two", func(w *child) { w.begin(1, second)(); time.Sleep(2 * second); w.begin(2, second) }, false},
		{"the second one too late", func(w *child) { w.begin(1, second)(); w.begin(2, second); time.Sleep(2 * second) }, true},
		{"called off", func(w *child) { w.begin(1, 0); w.abort(1) }, true},
		{"called off before it began", func(w *child) { w.abort(1); w.begin(1, 0) }, true},
		{"called off after it ended", func(w *child) { w.begin(1, 0)(); w.abort(1); w.begin(2, 0) }, false},
		{"called off when the next one runs", func(w *child) { w.begin(1, 0)(); w.begin(2, 0); w.abort(1) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.pdf")
			if err := os.WriteFile(path, pdftest.Simple("", plainPage(255, 0, 0)).Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			engine, err := mupdf.New(64<<20, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer engine.Close()
			if _, err := engine.Open(file, mupdf.PDF, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				w := &child{engine: engine}
				c.do(w)
				synctest.Wait()
				_, err := engine.Draw(0, 10, 10, false, make([]byte, 300))
				var failed *mupdf.Error
				if stopped := errors.As(err, &failed) && failed.Reason == mupdf.Aborted; stopped != c.want {
					t.Errorf("stopped: %v (%v), want %v", stopped, err, c.want)
				}
				if w.timer != nil {
					w.timer.Stop()
				}
			})
		})
	}
}
