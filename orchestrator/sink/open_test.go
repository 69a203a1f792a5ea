package sink

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quire/orchestrator"
)

func TestLeftoversAreSwept(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, workDirectory), 0o777))
	for _, name := range []string{"temp-00000007", "temp-piece-0001", "keep-me"} {
		check(t, os.WriteFile(filepath.Join(dir, workDirectory, name), []byte("old"), 0o666))
	}
	check(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o666))
	tree := openTree(t, dir)
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	finish(t, tree)
	check(t, tree.Close())
	check(t, tree.Close())
	want := []string{".quire/finished.jsonl", ".quire/keep-me", ".quire/lock", "a.pdf.json", "failed.jsonl", "notes.txt", "run.json"}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}

func TestSecondRunIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := openTree(t, dir)
	_, err := Open(Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by another run (process %d)", os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v, want a refusal that names the directory and the process", err)
	}
	write(t, first, "a.pdf", donePage("a.pdf", 1)) // the first is not disturbed
	check(t, first.Close())
	check(t, openTree(t, dir).Close())
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o666))
	locked := filepath.Join(dir, "locked")
	check(t, os.Mkdir(locked, 0o555))
	blocked := filepath.Join(dir, "blocked")
	check(t, os.MkdirAll(filepath.Join(blocked, "run.json", "x"), 0o777))
	foreign := filepath.Join(dir, "foreign")
	check(t, os.Mkdir(foreign, 0o777))
	check(t, os.WriteFile(filepath.Join(foreign, "run.json"), []byte(`{"mine":1}`), 0o666))
	tests := []struct {
		name, dir string
		want      []string
	}{
		{"nothing named", "", []string{"-o"}},
		{"a file", file, []string{file, "not a directory", "-o"}},
		{"below a file", filepath.Join(file, "out"), []string{file, "not a directory", "-o"}},
		{"not writable", locked, []string{locked, "permission denied", "make it writable"}},
		{"something in the way", blocked, []string{filepath.Join(blocked, "run.json"), "exists", "move away"}},
		{"run.json of another program", foreign, []string{filepath.Join(foreign, "run.json"), "not quire's", "-o"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := asNobody(func() error {
				tree, err := Open(Config{Dir: tt.dir})
				if err != nil {
					return err
				}
				defer tree.Close()
				return tree.Start(t.Context(), testModel, nil)
			}, tt.dir == locked)
			if err == nil {
				t.Fatal("opened")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has more than one line", err)
			}
		})
	}
	if there, err := os.ReadDir(foreign); err != nil || len(there) != 1 {
		t.Errorf("%v; in the directory of another program it leaves %v", err, there)
	}
}

// asNobody runs f without root's right to pass over file permissions, so that
// tests see the same as root and as anyone. Linux keeps that right for each
// thread (setfsuid(2)).
func asNobody(f func() error, drop bool) error {
	if drop && os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = syscall.Setfsuid(65534)
		defer func() { _ = syscall.Setfsuid(0) }()
	}
	return f()
}

// A result never goes through a link out of the output directory.
func TestLinksDoNotLeadOut(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	check(t, os.Symlink(outside, filepath.Join(dir, "sub")))
	tree := openTree(t, dir)
	path := "sub/a.pdf"
	begin(t, tree, path, 1)
	page(t, tree, donePage(path, 1))
	if err := end(t.Context(), tree, orchestrator.DocumentResult{Path: path, Status: orchestrator.StatusDone, PageCount: 1, Done: 1}); err == nil || !strings.Contains(err.Error(), "in the place of the link") {
		t.Errorf("through a link: %v", err)
	}
	if got := files(t, outside); len(got) != 0 {
		t.Errorf("outside: %q", got)
	}
}
