//go:build linux

package render

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
)

// benchDocuments are the PDFs of the directory that QUIRE_BENCH_PDFS names, or
// one made document.
func benchDocuments(b *testing.B) []orchestrator.Document {
	dir := os.Getenv("QUIRE_BENCH_PDFS")
	if dir == "" {
		content := "0.5 w "
		for i := range 2000 {
			content += fmt.Sprintf("%d %d m %d %d l S %d %d 3 3 re f ", i%600, i%790, (i*7)%600, (i*13)%790, (i*31)%600, (i*17)%790)
		}
		page := pdftest.Page{Attrs: "/MediaBox[0 0 612 792]", Content: content}
		return []orchestrator.Document{newDocument(b, pdftest.Simple("", page, page, page, page).Bytes())}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.pdf"))
	if err != nil || len(files) == 0 {
		b.Fatalf("no PDF in %s (%v)", dir, err)
	}
	var docs []orchestrator.Document
	for _, f := range files {
		docs = append(docs, fileDocument(f))
	}
	return docs
}

// BenchmarkWorkers draws the first 20 pages of every document once an
// iteration, with as many workers as QUIRE_BENCH_WORKERS says (1).
func BenchmarkWorkers(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("QUIRE_BENCH_WORKERS"))
	if err != nil {
		n = 1
	}
	docs := benchDocuments(b)
	pool := newPool(b, Config{})
	var workers []orchestrator.RenderWorker
	for range n {
		w, err := pool.NewWorker(context.Background(), 608, 800)
		if err != nil {
			b.Fatal(err)
		}
		defer w.Close()
		workers = append(workers, w)
	}
	var failed atomic.Int64
	count := func(err error) {
		var e *orchestrator.PageError
		if errors.As(err, &e) {
			failed.Add(1)
		} else if err != nil {
			b.Error(err)
		}
	}
	for b.Loop() {
		var next atomic.Int64
		var group sync.WaitGroup
		for _, w := range workers {
			group.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(docs)); i = next.Add(1) - 1 {
					pages, err := w.Open(context.Background(), docs[i])
					count(err)
					for page := range min(pages, 20) {
						_, _, err := w.Draw(context.Background(), page+1)
						count(err)
					}
				}
			})
		}
		group.Wait()
	}
	s := pool.Stats()
	pages := float64(s.Pages)
	b.ReportMetric(b.Elapsed().Seconds()*1e3/pages, "ms/page")
	b.ReportMetric(s.CPU.Seconds()*1e3/pages, "cpu-ms/page")
	b.ReportMetric(float64(failed.Load())/float64(b.N), "failures/op")
	b.ReportMetric(float64(s.Crashes+s.Kills), "crashes")
}

// BenchmarkStart starts and ends a worker.
func BenchmarkStart(b *testing.B) {
	pool := newPool(b, Config{})
	for b.Loop() {
		w, err := pool.NewWorker(context.Background(), 608, 800)
		if err != nil {
			b.Fatal(err)
		}
		w.Close()
	}
}
