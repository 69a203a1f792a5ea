package sink

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"quire/orchestrator"
)

func TestWritten(t *testing.T) {
	start, dir := time.Now(), t.TempDir()
	tree := openTree(t, dir)
	if w := tree.Written(); w != (Written{}) {
		t.Errorf("%+v before anything was written", w)
	}
	write(t, tree, "a.pdf", donePage("a.pdf", 1), failedPage("a.pdf", 2))
	write(t, tree, "sub/b.pdf", donePage("sub/b.pdf", 1))
	begin(t, tree, "c.pdf", 3)
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "c.pdf", Status: orchestrator.StatusCancelled, PageCount: 3, Cancelled: 3}))
	var want int64
	for _, name := range []string{"a.pdf.json", "sub/b.pdf.json"} {
		info, err := os.Stat(filepath.Join(dir, name))
		check(t, err)
		want += info.Size()
	}
	if w := tree.Written(); w.Documents != 2 || w.Bytes != want || w.First.Before(start) || w.First.After(time.Now()) {
		t.Errorf("%+v; two results have %d bytes", w, want)
	}
}
