package odd

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMakeWritesWhatTheManifestNames(t *testing.T) {
	set := Make(t)
	if len(set.Documents) < 40 {
		t.Fatalf("made %d documents, want all of them", len(set.Documents))
	}
	for _, name := range set.Names() {
		document := set.Documents[name]
		info, err := os.Stat(set.Path(name))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Size() > 1<<20 {
			t.Errorf("%s is %d bytes; an odd document is a small one", name, info.Size())
		}
		if document.What == "" || len(document.Ends) == 0 {
			t.Errorf("%s: what it is or how it ends is not said: %+v", name, document)
		}
		if document.PageCount != nil && *document.PageCount != len(document.Pages) {
			t.Errorf("%s: %d pages, of which %d are described", name, *document.PageCount, len(document.Pages))
		}
		for i, page := range document.Pages {
			if len(page.Ends) == 0 {
				t.Errorf("%s page %d: no end", name, i+1)
			}
			if _, known := set.Documents[page.SameAs]; page.SameAs != "" && !known {
				t.Errorf("%s page %d is the same as %s, which is not there", name, i+1, page.SameAs)
			}
		}
	}
}

func TestMakeIsRepeatable(t *testing.T) {
	names := []string{"mixed.pdf", "encrypted_user.pdf", "bomb.pdf", "twin_all.pdf"}
	first, second := Make(t, names...), Make(t, names...)
	if !slices.Equal(first.Names(), slices.Sorted(slices.Values(names))) {
		t.Errorf("asked for %v, the manifest has %v", names, first.Names())
	}
	for _, name := range names {
		a, errA := os.ReadFile(first.Path(name))
		b, errB := os.ReadFile(second.Path(name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: two calls wrote different bytes (%v, %v)", name, errA, errB)
		}
	}
}

func TestMakeManyAndLong(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(MakeMany(t, 205), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		seen[string(data)] = true
		return err
	})
	if err != nil || len(seen) != 205 {
		t.Errorf("%d different documents of 205 (%v)", len(seen), err)
	}
	data, err := os.ReadFile(MakeLong(t, 300))
	if err != nil || bytes.Count(data, []byte("/Type /Page ")) != 300 {
		t.Errorf("%d pages of 300 (%v)", bytes.Count(data, []byte("/Type /Page ")), err)
	}
}

func TestEndsAllow(t *testing.T) {
	ends := Ends{"done", "failed:timeout"}
	for _, c := range []struct {
		status, category string
		want             bool
	}{
		{"done", "", true},
		{"failed", "timeout", true},
		{"failed", "memory", false},
		{"failed", "", false},
		{"cancelled", "", false},
	} {
		if got := ends.Allow(c.status, c.category); got != c.want {
			t.Errorf("Allow(%q, %q) = %v", c.status, c.category, got)
		}
	}
}
