//go:build linux

package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
	"quire/tritonclient/guard"
)

// envProgram turns the test binary into a program with a pool and a worker
// that draws a page without end.
const envProgram = "QUIRE_RENDER_TEST_PROGRAM"

func TestMain(m *testing.M) {
	guard.Main()
	if _, ok := os.LookupEnv(envWorker); ok {
		misbehaveWhenTold()
	}
	Main()
	sandboxHelper()
	if path := os.Getenv(envProgram); path != "" {
		program(path)
	}
	goleak.VerifyTestMain(m)
}

const (
	width  = 61
	height = 80
)

func newPool(t testing.TB, cfg Config) *Pool {
	t.Helper()
	g, err := guard.Start(context.Background(), guard.Config{Name: "quiretest"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	cfg.Guard = g
	return New(cfg)
}

func newWorker(t testing.TB, p *Pool) *worker {
	t.Helper()
	w, err := p.NewWorker(context.Background(), width, height)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w.(*worker)
}

func newDocument(t testing.TB, data []byte) orchestrator.Document {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return fileDocument(path)
}

func fileDocument(path string) orchestrator.Document {
	return orchestrator.Document{Path: "in/a.pdf", Open: func() (*os.File, error) { return os.Open(path) }}
}

// plainPage is a page of one colour; MuPDF rounds down.
func plainPage(r, g, b byte) pdftest.Page {
	return pdftest.Page{
		Attrs:   "/MediaBox[0 0 200 100]",
		Content: fmt.Sprintf("%g %g %g rg 0 0 200 100 re f", (float64(r)+0.25)/255, (float64(g)+0.25)/255, (float64(b)+0.25)/255),
	}
}

func open(t testing.TB, w *worker, doc orchestrator.Document) int {
	t.Helper()
	n, err := w.Open(context.Background(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantColour draws a page and fails unless all of it has this colour.
func wantColour(t testing.TB, w *worker, page int, r, g, b byte) {
	t.Helper()
	pixels, geometry, err := w.Draw(context.Background(), page)
	if err != nil {
		t.Fatal(err)
	}
	want := orchestrator.Geometry{WidthPt: 200, HeightPt: 100, CropBox: [4]float64{0, 0, 200, 100}}
	if geometry != want {
		t.Errorf("geometry %+v, want %+v", geometry, want)
	}
	if !bytes.Equal(pixels, bytes.Repeat([]byte{r, g, b}, width*height)) {
		t.Errorf("page %d is not of the colour %d,%d,%d; its first pixel is %v", page, r, g, b, pixels[:3])
	}
}

func wantError(t testing.TB, err error, stage orchestrator.Stage, page int, category orchestrator.Category) *orchestrator.PageError {
	t.Helper()
	var e *orchestrator.PageError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a page error", err)
	}
	if want := (orchestrator.PageRef{Path: "in/a.pdf", Page: page}); e.Ref != want || e.Stage != stage || e.Category != category {
		t.Errorf("got %v, %s, %s (%q, %v), want %v, %s, %s", e.Ref, e.Stage, e.Category, e.Message, e.Err, want, stage, category)
	}
	if e.Message == "" || strings.ContainsAny(e.Message, "\n\t") {
		t.Errorf("message %q is not one line", e.Message)
	}
	t.Logf("%v", e)
	return e
}

func TestDraw(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	if n := open(t, w, newDocument(t, pdftest.Simple("", plainPage(255, 0, 0), plainPage(0, 255, 0)).Bytes())); n != 2 {
		t.Errorf("%d pages, want 2", n)
	}
	wantColour(t, w, 2, 0, 255, 0)
	wantColour(t, w, 1, 255, 0, 0)
	open(t, w, newDocument(t, pdftest.Simple("", plainPage(0, 0, 255)).Bytes()))
	wantColour(t, w, 1, 0, 0, 255)
	if s := w.pool.Stats(); s.Pages != 3 || s.CPU <= 0 || s.Crashes != 0 || s.Kills != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestCategories(t *testing.T) {
	encrypted := pdftest.Simple("", plainPage(0, 0, 0))
	encrypted.Encrypt("sesame")
	one := pdftest.Simple("", plainPage(255, 0, 0)).Bytes()
	odd := func(box string) []byte {
		return pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox" + box}).Bytes()
	}
	opened := func(data []byte) func(*testing.T) orchestrator.Document {
		return func(t *testing.T) orchestrator.Document { return newDocument(t, data) }
	}
	w := newWorker(t, newPool(t, Config{MemoryLimit: 128 << 20}))
	pid := w.process.guarded.Pid()
	for _, c := range []struct {
		name     string
		doc      func(*testing.T) orchestrator.Document
		page     int // 0: it is Open that fails
		category orchestrator.Category
	}{
		{"text", opened([]byte("Dear reader,\n")), 0, orchestrator.CategoryNotPDF},
		{"empty", opened(nil), 0, orchestrator.CategoryEmpty},
		{"only a head", opened([]byte("%PDF-1.7\n")), 0, orchestrator.CategoryMalformed},
		{"encrypted", opened(encrypted.Bytes()), 0, orchestrator.CategoryEncrypted},
		{"no pages", opened(pdftest.Simple("").Bytes()), 0, orchestrator.CategoryNoPages},
		{"will not open", func(*testing.T) orchestrator.Document {
			return fileDocument("/does/not/exist.pdf")
		}, 0, orchestrator.CategoryUnreadable},
		{"directory", func(t *testing.T) orchestrator.Document { return fileDocument(t.TempDir()) }, 0, orchestrator.CategoryNotRegular},
		{"device", func(*testing.T) orchestrator.Document { return fileDocument("/dev/zero") }, 0, orchestrator.CategoryNotRegular},
		{"pipe", func(t *testing.T) orchestrator.Document {
			path := filepath.Join(t.TempDir(), "a.pdf")
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			doc := fileDocument(path)
			doc.Open = func() (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) }
			return doc
		}, 0, orchestrator.CategoryNotRegular},
		{"page 0", opened(one), 0, orchestrator.CategoryNoSuchPage},
		{"page 2", opened(one), 2, orchestrator.CategoryNoSuchPage},
		{"memory", opened(pdftest.Bomb(100_000)), 1, orchestrator.CategoryMemory},
		{"speck", opened(odd("[0 0 0.00001 0.00001]")), 1, orchestrator.CategoryPageSize},
		{"beyond all", opened(odd("[0 0 100000000000.0 100000000000.0]")), 1, orchestrator.CategoryPageSize},
		{"page that is none", opened([]byte(strings.Replace(string(one), "[3 0 R ]", "[9 0 R ]", 1))), 1, orchestrator.CategoryMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.Open(t.Context(), c.doc(t))
			stage := orchestrator.StageOpen
			if c.page > 0 || c.category == orchestrator.CategoryNoSuchPage {
				if err != nil {
					t.Fatal(err)
				}
				stage = orchestrator.StageRender
				_, _, err = w.Draw(t.Context(), c.page)
			}
			wantError(t, err, stage, c.page, c.category)
			// The worker lives and its next document is not touched.
			open(t, w, newDocument(t, one))
			wantColour(t, w, 1, 255, 0, 0)
		})
	}
	if got := w.process.guarded.Pid(); got != pid {
		t.Errorf("the process was replaced")
	}
}

// answering is a model that finds nothing on any page.
type answering struct{ orchestrator.Model }

func (answering) Info() orchestrator.ModelInfo { return orchestrator.ModelInfo{Name: "none"} }
func (answering) Release(*orchestrator.Slab)   {}
func (answering) Input() orchestrator.Input {
	return orchestrator.Input{Width: width, Height: height, MaxBatch: 1, Instances: 1}
}

func (answering) Infer(_ context.Context, _ *orchestrator.Slab, _ int, frames []orchestrator.Frame) ([]orchestrator.Verdict, error) {
	return make([]orchestrator.Verdict, len(frames)), nil
}

// TestDetectOfAPipe: the path that Detect is given may be a pipe that nobody
// writes to. It fails, holds no worker, and Close returns.
func TestDetectOfAPipe(t *testing.T) {
	d, err := orchestrator.New(orchestrator.Config{Model: answering{}, Renderer: newPool(t, Config{}), Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	pipe, file := filepath.Join(t.TempDir(), "pipe.pdf"), filepath.Join(t.TempDir(), "a.pdf")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.WriteFile(file, pdftest.Simple("", plainPage(0, 0, 255)).Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	held := time.AfterFunc(time.Minute, func() {
		t.Error("the worker waits for somebody to write to the pipe")
		if w, err := os.OpenFile(pipe, os.O_WRONLY, 0); err == nil {
			w.Close()
		}
	})
	defer held.Stop()
	_, err = d.Detect(t.Context(), pipe, 1)
	var e *orchestrator.PageError
	if !errors.As(err, &e) || e.Category != orchestrator.CategoryNotRegular {
		t.Errorf("a page of a pipe: %v", err)
	}
	if r, err := d.Detect(t.Context(), file, 1); err != nil || r.Status != orchestrator.StatusDone {
		t.Errorf("a page of the next document: %v, %v", r.Status, err)
	}
}

func TestPasswords(t *testing.T) {
	f := pdftest.Simple("", plainPage(0, 0, 255))
	f.Encrypt("sésame")
	w := newWorker(t, newPool(t, Config{Passwords: []string{"wrong"}}))
	_, err := w.Open(t.Context(), newDocument(t, f.Bytes()))
	wantError(t, err, orchestrator.StageOpen, 0, orchestrator.CategoryEncrypted)

	g := pdftest.Simple("", plainPage(0, 0, 255))
	g.Encrypt("sesame")
	many := append(slices.Repeat([]string{"open barley"}, 10_000), "sesame") // more than a message holds
	w = newWorker(t, newPool(t, Config{Passwords: many}))
	open(t, w, newDocument(t, g.Bytes()))
	wantColour(t, w, 1, 0, 0, 255)
}

func TestChangedFile(t *testing.T) {
	data := pdftest.Simple("", plainPage(255, 0, 0), plainPage(0, 255, 0)).Bytes()
	for _, c := range []struct {
		name   string
		change func(path string) error
	}{
		{"longer", func(path string) error { return os.WriteFile(path, append(data, "more"...), 0o600) }},
		{"shorter", func(path string) error { return os.Truncate(path, 10) }},
		{"touched", func(path string) error { return os.Chtimes(path, time.Now(), time.Unix(1, 0)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorker(t, newPool(t, Config{}))
			path := filepath.Join(t.TempDir(), "a.pdf")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			open(t, w, fileDocument(path))
			wantColour(t, w, 1, 255, 0, 0)
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			for _, page := range []int{2, 1} {
				_, _, err := w.Draw(t.Context(), page)
				wantError(t, err, orchestrator.StageRender, page, orchestrator.CategoryChanged)
			}
		})
	}
	t.Run("removed", func(t *testing.T) {
		w := newWorker(t, newPool(t, Config{}))
		path := filepath.Join(t.TempDir(), "a.pdf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		open(t, w, fileDocument(path))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantColour(t, w, 2, 0, 255, 0) // what is open stays
		_, err := w.Open(t.Context(), fileDocument(path))
		wantError(t, err, orchestrator.StageOpen, 0, orchestrator.CategoryUnreadable)
	})
	t.Run("replaced by another", func(t *testing.T) {
		w := newWorker(t, newPool(t, Config{}))
		path := filepath.Join(t.TempDir(), "a.pdf")
		for _, p := range []string{path, path + "2"} {
			if err := os.WriteFile(p, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		open(t, w, fileDocument(path))
		if err := os.Rename(path+"2", path); err != nil {
			t.Fatal(err)
		}
		wantColour(t, w, 2, 0, 255, 0)
	})
}

// Too many open files are not the document's fault.
func TestTooManyOpenFiles(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	var pe *orchestrator.PageError
	_, err := w.Open(t.Context(), orchestrator.Document{Path: "a.pdf", Open: func() (*os.File, error) { return nil, syscall.EMFILE }})
	if !errors.Is(err, syscall.EMFILE) || errors.As(err, &pe) {
		t.Errorf("got %#v", err)
	}
}

func TestManyDocumentsInParallel(t *testing.T) {
	pool := newPool(t, Config{})
	const documents, pages = 40, 3
	var docs []orchestrator.Document
	for i := range documents {
		var list []pdftest.Page
		for j := range pages {
			list = append(list, plainPage(byte(i), byte(j), 255-byte(i)))
		}
		docs = append(docs, newDocument(t, pdftest.Simple("", list...).Bytes()))
	}
	var group sync.WaitGroup
	for k := range 2 {
		w := newWorker(t, pool)
		group.Go(func() {
			for i := k; i < documents; i += 2 {
				if _, err := w.Open(context.Background(), docs[i]); err != nil {
					t.Error(err)
					return
				}
				for j := range pages {
					pixels, _, err := w.Draw(context.Background(), j+1)
					if err != nil {
						t.Error(err)
						return
					}
					if want := [3]byte{byte(i), byte(j), 255 - byte(i)}; [3]byte(pixels) != want {
						t.Errorf("document %d page %d begins with %v, want %v", i, j, pixels[:3], want)
					}
				}
			}
		})
	}
	group.Wait()
	if s := pool.Stats(); s.Pages != documents*pages {
		t.Errorf("stats %+v", s)
	}
}

func TestMisuse(t *testing.T) {
	if _, err := New(Config{}).NewWorker(t.Context(), 10, 10); err == nil {
		t.Error("a worker without a guard")
	}
	pool := newPool(t, Config{})
	for _, size := range [][2]int{{0, 10}, {10, -1}, {1 << 20, 10}} {
		if _, err := pool.NewWorker(t.Context(), size[0], size[1]); err == nil {
			t.Errorf("a worker for %v", size)
		}
	}
	_, err := newPool(t, Config{Sandbox: "requre"}).NewWorker(t.Context(), 10, 10)
	if err == nil || !strings.Contains(err.Error(), `sandbox "requre": it is auto, require or off`) {
		t.Errorf("a word that is no mode: %v", err)
	}
	// Too little for the process's own runtime, which then says much.
	starved := newPool(t, Config{})
	starved.cfg.MemoryLimit = 1<<20 - runtimeBytes
	_, err = starved.NewWorker(t.Context(), 10, 10)
	if err == nil || !strings.Contains(err.Error(), "cannot start a worker process") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a worker that cannot start: %v", err)
	}
	w := newWorker(t, pool)
	if _, _, err := w.Draw(t.Context(), 1); err == nil {
		t.Error("a page of no document")
	}
	_, err = w.Open(t.Context(), orchestrator.Document{Path: "in/a.pdf"}) // which nothing opens
	wantError(t, err, orchestrator.StageOpen, 0, orchestrator.CategoryUnreadable)
	w.Close()
	if _, err := w.Open(t.Context(), newDocument(t, nil)); err == nil {
		t.Error("a closed worker opened something")
	}
	if _, _, err := w.Draw(t.Context(), 1); err == nil {
		t.Error("a closed worker drew something")
	}
}

func TestMessagesGoToTheLog(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w := newWorker(t, newPool(t, Config{Logger: logger}))
	open(t, w, newDocument(t, pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 9 9]", Content: "/None Do"}).Bytes()))
	if _, _, err := w.Draw(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, "MuPDF") || !strings.Contains(got, "path=in/a.pdf page=1") {
		t.Errorf("log:\n%s", got)
	}
}

// Text that no font is there for is drawn as nothing, or as other letters; that is
// told once a document, whichever workers have it.
func TestMissedLetters(t *testing.T) {
	font := "/Resources<</Font<</F<</Type/Font/Subtype/Type0/BaseFont/HeiseiMin-W3/Encoding/UniJIS-UTF16-H/DescendantFonts[" +
		"<</Type/Font/Subtype/CIDFontType0/BaseFont/HeiseiMin-W3/CIDSystemInfo<</Registry(Adobe)/Ordering(Japan1)/Supplement 4>>/FontDescriptor<</Type/FontDescriptor/FontName/HeiseiMin-W3/Flags 6>>>>]>>>>>>"
	page := pdftest.Page{Attrs: "/MediaBox[0 0 200 100]" + font, Content: "BT /F 20 Tf 10 10 Td <65E5672C> Tj ET"}
	var log bytes.Buffer
	pool := newPool(t, Config{OtherFormats: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	workers := []*worker{newWorker(t, pool), newWorker(t, pool)}
	for name, want := range map[string]struct {
		data []byte
		told int
	}{
		"japanese.pdf": {pdftest.Simple("", page, page).Bytes(), 1},
		"arabic.txt":   {[]byte("سلام\n"), 1},
		"korean.html":  {[]byte("<p>한국어</p>"), 1},
		"latin.txt":    {[]byte("Größe – naïve • Ω Ж ☺ 😀\u00ad\u200b\n"), 0},
	} {
		for _, w := range workers {
			doc := newDocument(t, want.data)
			doc.Path = name
			for page := range open(t, w, doc) {
				if _, _, err := w.Draw(t.Context(), page+1); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := strings.Count(log.String(), "quire has none for its script\" path="+name); got != want.told {
			t.Errorf("%s: told %d times, want %d", name, got, want.told)
		}
	}
}
