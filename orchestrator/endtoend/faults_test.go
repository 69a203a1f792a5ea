package endtoend

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
)

// TestDetectOneByOne: a caller that awaits each page is answered at once, though
// a batch would wait 10 s for company.
func TestDetectOneByOne(t *testing.T) {
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{MaxAge: 10 * time.Second}, render.Config{})
	for page := 1; page <= 7; page++ {
		start := time.Now()
		r, err := d.Detect(t.Context(), examples+"/report.pdf", page)
		if err != nil || len(r.Regions) == 0 || r.Ref.Page != page {
			t.Fatalf("page %d: %+v, %v", page, r, err)
		}
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("page %d took %v: it waited for company", page, took)
		}
	}
	if s := d.Stats(); s.Sealed["age"] != 0 || s.Sealed["idle"] == 0 {
		t.Errorf("batches were sealed by %v", s.Sealed)
	}
}

// TestManyCallers: many goroutines, few buffers.
func TestManyCallers(t *testing.T) {
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{InFlight: 2}, render.Config{})
	in := m.Input()
	if got, most := d.MemoryBound(), int64((2+1)*in.MaxBatch+2*d.Settings().Workers)*int64(in.PageBytes()); got != most {
		t.Errorf("bound %d, want %d", got, most)
	}
	buffers := func() (bytes int64) {
		names, _ := filepath.Glob("/dev/shm/" + d.Settings().SharedMemoryPrefix + "slab-*")
		for _, name := range names {
			if info, err := os.Stat(name); err == nil {
				bytes += info.Size()
			}
		}
		return bytes
	}
	const n = 10_000
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, cancelled := 0, 0
	for i := range n {
		wg.Go(func() {
			r, err := d.Detect(ctx, examples+"/report.pdf", i%7+1)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && r.Ref.Page == i%7+1 && len(r.Regions) > 0:
				done++
				if got, most := buffers(), d.MemoryBound(); got == 0 || got > most {
					t.Errorf("%d bytes of page buffers, the bound is %d", got, most)
				}
				if done == 100 {
					cancel() // the rest frees its places at once
				}
			case errors.Is(err, context.Canceled):
				cancelled++
			default:
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	cancel()
	if done < 100 || done+cancelled != n {
		t.Errorf("%d done, %d cancelled of %d", done, cancelled, n)
	}
	if s := d.Stats(); s.Admitted != 0 || s.Queued != 0 {
		t.Errorf("after the last call: %+v", s)
	}
	// A worker that was copying pixels into a page's place when the page was
	// cancelled gives the place up when it has copied them.
	until(t, "every place is given up", func() bool { return d.Stats().Filling == 0 })
}

func TestDetectBatchOfImages(t *testing.T) {
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{}, render.Config{})
	page, err := d.Detect(t.Context(), examples+"/paper.pdf", 1)
	if err != nil {
		t.Fatal(err)
	}
	pixels, _ := rasters(t, 1216, 1600) // twice the size the model wants
	p := pixels[1]                      // form.pdf has one page, then comes paper.pdf
	img := image.NewRGBA(image.Rect(0, 0, 1216, 1600))
	for i := range len(p) / 3 {
		copy(img.Pix[4*i:], p[3*i:3*i+3])
		img.Pix[4*i+3] = 255
	}
	got, err := d.DetectBatch(t.Context(), []image.Image{img, img.SubImage(image.Rect(0, 0, 1216, 800))})
	if err != nil {
		t.Fatal(err)
	}
	matched := 0
	for _, want := range page.Regions {
		box := want.BBox
		for i := range box {
			box[i] *= [2]float64{1216 / page.Geometry.WidthPt, 1600 / page.Geometry.HeightPt}[i%2]
		}
		for _, r := range got[0].Regions {
			if r.Label == want.Label && iou(r.BBox, box) > 0.8 {
				matched++
				break
			}
		}
	}
	if matched < len(page.Regions)*8/10 {
		t.Errorf("the picture of the page has %d of the page's %d regions", matched, len(page.Regions))
	}
	for _, r := range got[1].Regions {
		if r.BBox[3] > 800 {
			t.Errorf("box %v outside an image of 800 rows", r.BBox)
		}
	}
}

// TestBatchingIsReal reads the server's own statistics after a run over many
// documents.
func TestBatchingIsReal(t *testing.T) {
	dir := odd.MakeMany(t, 40)
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{}, render.Config{})
	client, err := tritonclient.New(theServer.Addr(), tritonclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	statistics := func() tritonclient.ModelStatistics {
		stats, err := client.Statistics(t.Context(), "layout", "")
		if err != nil {
			t.Fatal(err)
		}
		return stats
	}
	// What another test has cancelled may still be computed, and counted, ahead
	// of this page.
	if _, err := d.Detect(t.Context(), examples+"/report.pdf", 1); err != nil {
		t.Fatal(err)
	}
	before := statistics()
	for still := 0; still < 50; still++ {
		now := statistics()
		if now.Inferences != before.Inferences {
			before, still = now, 0
		}
	}
	s, err := runTo(t, t.Context(), d, m, dir, t.TempDir())
	if err != nil || s.Pages.Done != 40 {
		t.Fatalf("%+v, %v", s, err)
	}
	// The server counts an execution a moment after it has answered.
	var delta tritonclient.ModelStatistics
	until(t, "the server has counted all pages", func() bool {
		var ok bool
		if delta, ok = statistics().Since(before); !ok {
			t.Fatal("the counters went back")
		}
		return delta.Inferences >= 40
	})
	var pages, executions, larger uint64
	for _, b := range delta.Batches {
		n := b.ComputeInfer.Count
		pages += b.Size * n
		executions += n
		if b.Size > 1 {
			larger += n
		}
	}
	// One-page documents: every batch above 1 has pages of several.
	if pages != 40 || larger == 0 {
		t.Errorf("the server executed %d pages, %d executions above one page", pages, larger)
	}
	if delta.Inferences != pages || delta.Executions != executions || delta.Fail.Count != 0 || delta.ComputeInfer.Mean() <= 0 || delta.LastInference.IsZero() {
		t.Errorf("the server's statistics do not agree with each other: %+v", delta)
	}
	t.Logf("quire's batches %v, the server's executions %+v", d.Stats().Sizes, delta.Batches)
}

// TestOddDocumentsTouchNoOther: pages that never finish, bombs, broken and
// encrypted files beside good ones; the accounts add up and each good page is
// done.
func TestOddDocumentsTouchNoOther(t *testing.T) {
	set := odd.Make(t, "good.pdf", "mixed.pdf", "never_finishes.pdf", "bomb.pdf", "encrypted_user.pdf", "truncated.pdf", "zero_byte.pdf", "not_pdf.pdf", "no_pages.pdf", "twin_plain.pdf", "loop_glyph.pdf", "loop_parent.pdf", "loop_object_stream.pdf", "largest_page.pdf")
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{}, render.Config{PageTimeout: 2 * time.Second})
	out := t.TempDir()
	s, err := runTo(t, t.Context(), d, m, set.Dir, out)
	if err != nil {
		t.Fatal(err)
	}
	docs := results(t, out)
	if int64(len(docs)) != s.Documents.Ended() || len(docs) != len(set.Documents) || s.Documents.Cancelled+s.Pages.Cancelled != 0 {
		t.Errorf("%d documents, %d results, %+v", len(set.Documents), len(docs), s)
	}
	var done, failed int64
	for name, want := range set.Documents {
		doc := docs[name]
		if doc == nil {
			t.Errorf("%s has no result", name)
			continue
		}
		category := ""
		if doc.Error != nil {
			category = string(doc.Error.Category)
		}
		if !want.Ends.Allow(string(doc.Status), category) {
			t.Errorf("%s ended as %s %s, right is one of %v", name, doc.Status, category, want.Ends)
		}
		for i, p := range doc.Pages {
			category := ""
			if p.Error != nil {
				category = string(p.Error.Category)
				failed++
			} else {
				done++
			}
			if i < len(want.Pages) && !want.Pages[i].Ends.Allow(string(p.Status), category) {
				t.Errorf("%s page %d ended as %s %s, right is one of %v", name, p.PageNo, p.Status, category, want.Pages[i].Ends)
			}
		}
	}
	if done != s.Pages.Done || failed != s.Pages.Failed {
		t.Errorf("results have %d done and %d failed pages, the summary %+v", done, failed, s.Pages)
	}
}

// TestWorkersKilledInMidRun kills render workers while they draw. No page is
// lost: the one in hand is drawn again.
func TestWorkersKilledInMidRun(t *testing.T) {
	dir := odd.MakeMany(t, 150)
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{Workers: 2}, render.Config{})
	type end struct {
		s   orchestrator.Summary
		err error
	}
	ended := make(chan end, 1)
	var progress orchestrator.Progress
	out := t.TempDir()
	go func() {
		s, err := runWith(t, context.WithoutCancel(t.Context()), d, m, dir, out, &progress)
		ended <- end{s, err}
	}()
	kills := 0
	for at := int64(10); at <= 100; at += 15 {
		if !reach(t, &progress, at, nil) {
			break
		}
		for _, pid := range workers(t) {
			syscall.Kill(pid, syscall.SIGKILL)
			kills++
			break
		}
	}
	e := <-ended
	// Each page in hand had its second try.
	if e.err != nil || e.s.Pages != (orchestrator.Counts{Done: 150}) || e.s.Documents != (orchestrator.Counts{Done: 150}) {
		t.Errorf("%+v, %v", e.s, e.err)
	}
	if kills < 5 {
		t.Errorf("only %d kills", kills)
	}
}

// reach waits until so many pages have ended, or stop is closed.
func reach(t *testing.T, p *orchestrator.Progress, pages int64, stop <-chan struct{}) bool {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		if p.Now().Pages.Ended() >= pages {
			return true
		}
		select {
		case <-tick.C:
		case <-stop:
			return false
		case <-deadline:
			t.Fatalf("no %d pages in 2 minutes: %+v", pages, p.Now())
		}
	}
}

// workers are the render workers of this test binary.
func workers(t *testing.T) []int {
	t.Helper()
	return slices.DeleteFunc(children(t, theGuard.Pid()), func(pid int) bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || string(name) != "quire-render\x00"
	})
}

// children are the live child processes of a process.
func children(t *testing.T, parent int) (pids []int) {
	t.Helper()
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(after); len(fields) > 1 && fields[1] == strconv.Itoa(parent) && fields[0] != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// poisoned is a copy of the repository whose model fails pages that begin with
// a magic word; see tritonclient/embedded/testdata/poison.
func poisoned(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, subtree(t, repository, "layout")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(root, "layout/configs/cpu.pbtxt")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), `backend: "onnxruntime"`, `backend: "python"`, 1)
	if changed == string(text) {
		t.Fatal("the config names no backend")
	}
	if err := os.WriteFile(config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("../../tritonclient/embedded/testdata/poison/model.py")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "layout/1/model.py"), code, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func subtree(t *testing.T, root, dir string) fs.FS {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, dir), os.DirFS(filepath.Join(root, dir))); err != nil {
		t.Fatal(err)
	}
	return os.DirFS(copied)
}

// TestPoisonedPages: one client sends pages that make the backend fail, another
// good ones, at the same time. Only the poisoned pages fail, in either client, and
// neither waits for the other's.
func TestPoisonedPages(t *testing.T) {
	server, err := embedded.Start(t.Context(), embedded.Config{Options: setup(), ModelRepository: poisoned(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	good := detector(t, model(t, server.Addr(), layout.Config{}), orchestrator.Config{InFlight: 3}, render.Config{})
	bad := detector(t, model(t, server.Addr(), layout.Config{}), orchestrator.Config{InFlight: 3}, render.Config{})
	blank := func(poison string) image.Image {
		img := image.NewRGBA(image.Rect(0, 0, 608, 800))
		for i := range img.Pix {
			img.Pix[i] = 255
		}
		for i := range len(poison) { // the bytes of RGB, alpha left out
			img.Pix[i/3*4+i%3] = poison[i]
		}
		return img
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for round := range 6 {
			images := make([]image.Image, 8)
			for i := range images {
				images[i] = blank("")
			}
			if _, err := good.DetectBatch(t.Context(), images); err != nil {
				t.Errorf("good client, round %d: %v", round, err)
			}
		}
	})
	wg.Go(func() {
		for round := range 6 {
			images := make([]image.Image, 8)
			want := make([]orchestrator.Category, 8)
			for i := range images {
				images[i] = blank("")
				switch (i + round) % 8 {
				case 2:
					images[i], want[i] = blank("quire-poisoned-page:E"), orchestrator.CategoryServer
				case 5:
					images[i], want[i] = blank("quire-poisoned-page:N"), orchestrator.CategoryBadOutput
				}
			}
			results, _ := bad.DetectBatch(t.Context(), images)
			for i, r := range results {
				switch {
				case want[i] == "" && r.Status != orchestrator.StatusDone:
					t.Errorf("round %d: good page %d beside poisoned ones: %v", round, i, r.Err)
				case want[i] != "" && (r.Err == nil || r.Err.Category != want[i]):
					t.Errorf("round %d: poisoned page %d ended as %s, %v; want %s", round, i, r.Status, r.Err, want[i])
				}
			}
		}
	})
	wg.Wait()
	if s := good.Stats().Pages; s != (orchestrator.Counts{Done: 48}) {
		t.Errorf("the good client: %+v", s)
	}
	if s := bad.Stats().Pages; s != (orchestrator.Counts{Done: 36, Failed: 12}) {
		t.Errorf("the bad client: %+v", s)
	}

	// A request does not wait for a page of another that began before it.
	wg.Go(func() {
		if _, err := bad.DetectBatch(t.Context(), []image.Image{blank("quire-poisoned-page:H"), blank("")}); err != nil {
			t.Errorf("a page that waits for another request: %v", err)
		}
	})
	until(t, "the page that waits is at the server", func() bool { return bad.Stats().InFlight > 0 })
	if _, err := good.DetectBatch(t.Context(), []image.Image{blank("quire-poisoned-page:G")}); err != nil {
		t.Errorf("a request beside one that waits: %v", err)
	}
	wg.Wait()
}
