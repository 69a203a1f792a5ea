//go:build linux

package mupdf

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"quire/orchestrator/render/internal/pdftest"
)

// benchFiles are the PDFs under the directory that QUIRE_BENCH_PDFS names, or
// one made page of rules and squares.
func benchFiles(b *testing.B) []string {
	dir := os.Getenv("QUIRE_BENCH_PDFS")
	if dir == "" {
		content := "0.5 w "
		for i := range 2000 {
			content += fmt.Sprintf("%d %d m %d %d l S %d %d 3 3 re f ", i%600, i%790, (i*7)%600, (i*13)%790, (i*31)%600, (i*17)%790)
		}
		path := filepath.Join(b.TempDir(), "made.pdf")
		data := pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 612 792]", Content: content}).Bytes()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			b.Fatal(err)
		}
		return []string{path}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.pdf"))
	if err != nil || len(files) == 0 {
		b.Fatalf("no PDF in %s (%v)", dir, err)
	}
	return files
}

// BenchmarkDraw draws every page of every file once an iteration, documents
// one after another as a worker does.
func BenchmarkDraw(b *testing.B) {
	files := benchFiles(b)
	e := newEngine(b)
	const w, h = 608, 800
	most, err := strconv.Atoi(os.Getenv("QUIRE_BENCH_PAGES"))
	if err != nil {
		most = 20
	}
	rgb := make([]byte, w*h*3)
	pages, failed := 0, 0
	before := rusage(b)
	for b.Loop() {
		for _, path := range files {
			f, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			n, err := e.Open(f, PDF, nil)
			if err != nil {
				failed++
				continue
			}
			for i := range min(n, most) {
				timer := time.AfterFunc(10*time.Second, e.Abort)
				_, err := e.Draw(i, w, h, false, rgb)
				timer.Stop()
				e.Resume()
				pages++
				if err != nil {
					failed++
				}
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(pages), "ms/page")
	b.ReportMetric(float64(failed)/float64(b.N), "failures/op")
	after := rusage(b)
	b.ReportMetric((after-before).Seconds()*1e3/float64(pages), "cpu-ms/page")
}

func rusage(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
