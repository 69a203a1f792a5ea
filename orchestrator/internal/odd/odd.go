// Package odd makes odd PDF documents for tests: pages that never finish,
// bombs, broken and encrypted files, absurd pages, and twins. It runs
// scripts/make_odd.py, which needs python3 (3.10 or later) on PATH and no
// package. What cannot be made fails the test; nothing is ever skipped.
package odd

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Set is a directory of documents that were made for one test.
type Set struct {
	// Dir holds the documents and manifest.json; it goes with the test.
	Dir string
	// Documents are the manifest's entries by file name.
	Documents map[string]Document
}

// Path is where the named document lies.
func (s Set) Path(name string) string { return filepath.Join(s.Dir, name) }

// Names gives the documents' names, sorted.
func (s Set) Names() []string {
	names := make([]string, 0, len(s.Documents))
	for name := range s.Documents {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Document says what a document is and how it should end.
type Document struct {
	// What describes it in a few words.
	What string `json:"what"`
	// Ends are the right ends of the document as a whole. Without a category,
	// failed means that it opened and that every page failed.
	Ends Ends `json:"ends"`
	// PageCount is nil when the document should not open, or when there is no
	// one right answer.
	PageCount *int `json:"page_count"`
	// Pages has one entry a page, from the first on, if the document opens.
	Pages []Page `json:"pages"`
}

// Page says how a page should end, and what it looks like.
type Page struct {
	Ends Ends `json:"ends"`
	// WidthPt and HeightPt are the displayed page in points, or zero where the
	// geometry does not matter; then Rotation and CropBox do not either.
	WidthPt  float64 `json:"width_pt"`
	HeightPt float64 `json:"height_pt"`
	// Rotation is clockwise, in degrees, from 0 to 270.
	Rotation int `json:"rotation"`
	// CropBox is x0,y0,x1,y1 in the page's own user space, cut to the MediaBox.
	CropBox [4]float64 `json:"crop_box"`
	// SameAs names a document whose first page shows the same picture at the
	// same place of the displayed page; empty for none.
	SameAs string `json:"same_as"`
}

// Ends are the ways to end that are right, any one of them: "done", "partial",
// "failed", or "failed:CATEGORY".
type Ends []string

// Allow tells whether this status is right, with this category when it is
// failed; category is empty where there is none.
func (e Ends) Allow(status, category string) bool {
	if category != "" {
		status += ":" + category
	}
	return slices.Contains(e, status)
}

// Make writes the named documents, or all of them, into a directory of the test.
func Make(t testing.TB, names ...string) Set {
	t.Helper()
	dir := t.TempDir()
	run(t, append([]string{dir}, names...)...)
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	set := Set{Dir: dir}
	if err := json.Unmarshal(manifest, &set.Documents); err != nil {
		t.Fatalf("manifest of the odd documents: %v", err)
	}
	return set
}

// MakeMany writes n documents of one page each into sub-directories of the
// directory that it returns.
func MakeMany(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "--many", dir, strconv.Itoa(n))
	return dir
}

// MakeLong writes one document of n pages and returns its path.
func MakeLong(t testing.TB, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "long.pdf")
	run(t, "--long", path, strconv.Itoa(n))
	return path
}

func run(t testing.TB, args ...string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("the odd documents need python3 (3.10 or later) on PATH; install it and run the test again")
	}
	// -B and -E: leave no bytecode beside the script, and let nothing of the
	// user's environment change what is written.
	command := exec.CommandContext(t.Context(), python, append([]string{"-B", "-E", script(t)}, args...)...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("make_odd.py %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// script finds scripts/make_odd.py in the module that holds the test's
// directory: go test runs in it, also with -trimpath.
func script(t testing.TB) string {
	t.Helper()
	start, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "scripts", "make_odd.py")
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod above %s: run the tests inside quire's source tree", start)
		}
	}
}
