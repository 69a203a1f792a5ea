package walk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"quire/orchestrator"
)

// A document says what it is known by later: size, time, and on request a digest
// of its content; of what is no regular file nothing.
func TestWhatADocumentIsKnownBy(t *testing.T) {
	dir := plant(t, "a.pdf", "copy.pdf", "fifo.pdf |", "link.pdf -> a.pdf", "nowhere.pdf -> gone", "other.pdf")
	when := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	if err := os.WriteFile(filepath.Join(dir, "copy.pdf"), []byte("a.pdf"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "a.pdf"), when, when); err != nil {
		t.Fatal(err)
	}
	for _, checksum := range []bool{false, true} {
		docs := map[string]orchestrator.Document{}
		for d := range newWalker(t, Config{Checksum: checksum}, dir).Documents(t.Context()) {
			docs[d.Path] = d
		}
		if len(docs) != 6 {
			t.Fatalf("%d documents", len(docs))
		}
		for path, d := range docs {
			regular := path != "fifo.pdf" && path != "nowhere.pdf"
			if (d.Size > 0) != regular || d.ModTime.IsZero() == regular || (d.Sum != "") != (regular && checksum) {
				t.Errorf("checksum %v: %s has size %d, time %v, digest %q", checksum, path, d.Size, d.ModTime, d.Sum)
			}
		}
		a := docs["a.pdf"]
		if !a.ModTime.Equal(when) || !docs["link.pdf"].ModTime.Equal(when) || docs["link.pdf"].Sum != a.Sum {
			t.Errorf("a link is not what it leads to: %+v, %+v", docs["link.pdf"], a)
		}
		if docs["copy.pdf"].Sum != a.Sum || checksum && docs["other.pdf"].Sum == a.Sum {
			t.Errorf("digests: %q, of a copy %q, of another file %q", a.Sum, docs["copy.pdf"].Sum, docs["other.pdf"].Sum)
		}
	}
}
