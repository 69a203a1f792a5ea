package modelconfig

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// repository makes a model repository with a model m, and returns its root.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "models")
	for name, text := range files {
		path := filepath.Join(root, "m", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func edit(t *testing.T, f *File, batch int32) *File {
	t.Helper()
	want := f.Config()
	want.MaxBatchSize = batch
	edited, err := f.Update(want)
	if err != nil {
		t.Fatal(err)
	}
	return edited
}

// tree lists the files of a repository.
func tree(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(root, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestOpen(t *testing.T) {
	root := repository(t, map[string]string{"config.pbtxt": "max_batch_size: 1", "configs/cpu.pbtxt": "max_batch_size: 2"})
	for name, want := range map[string]int32{"": 1, "cpu": 2, "gpu": 1} {
		f, err := Open(root, "m", name)
		if err != nil || f.Config().MaxBatchSize != want {
			t.Errorf("config %q: got %v, %v", name, f, err)
		}
	}
	// What lies beside is no model of the repository's.
	for _, beside := range []string{root, filepath.Dir(root)} {
		if err := os.WriteFile(filepath.Join(beside, "config.pbtxt"), []byte("max_batch_size: 3"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range [][3]string{{root, "n", ""}, {root, "..", ""}, {root, "m/..", ""}, {root, "m", "../config"}, {root + "x", "m", ""}} {
		if f, err := Open(test[0], test[1], test[2]); err == nil {
			t.Errorf("%q: got %s", test, f.Path())
		}
	}
}

func TestReplace(t *testing.T) {
	for _, name := range []string{"", "cpu"} {
		root := repository(t, map[string]string{"config.pbtxt": "max_batch_size: 1 # a\n", "configs/cpu.pbtxt": "max_batch_size: 1 # a\n", "1/model.onnx": ""})
		f, err := Open(root, "m", name)
		if err != nil {
			t.Fatal(err)
		}
		// More than a umask lets a new file have, and somebody else's.
		mode, owner := fs.FileMode(0o666), os.Geteuid()
		if err := os.Chmod(f.Path(), mode); err != nil {
			t.Fatal(err)
		}
		if other := 4321; os.Chown(f.Path(), other, -1) == nil { // root may, where there is such a user
			owner = other
		}
		before := tree(t, root)
		backup, err := f.Replace(edit(t, f, 8))
		if err != nil {
			t.Fatal(err)
		}
		now, err := Open(root, "m", name)
		if err != nil || now.Text() != "max_batch_size: 8 # a\n" {
			t.Errorf("the file is %q, %v", now.Text(), err)
		}
		if kept, err := os.ReadFile(backup); err != nil || string(kept) != f.Text() {
			t.Errorf("the backup is %q, %v", kept, err)
		}
		for _, path := range []string{now.Path(), backup} {
			var stat unix.Stat_t
			if err := unix.Stat(path, &stat); err != nil || fs.FileMode(stat.Mode).Perm() != mode || int(stat.Uid) != owner {
				t.Errorf("%s: the mode is %o, the owner %d, %v; want %o and %d", path, stat.Mode, stat.Uid, err, mode, owner)
			}
		}
		// Nothing is new in the model's directory, which a server watches.
		after := slices.DeleteFunc(tree(t, root), func(n string) bool { return filepath.Join(root, n) == backup })
		if filepath.Dir(backup) != root || !slices.Equal(after, before) {
			t.Errorf("backup %s; files %q, were %q", backup, after, before)
		}
	}
}

func TestReplaceNoticesAChange(t *testing.T) {
	root := repository(t, map[string]string{"config.pbtxt": "max_batch_size: 1"})
	f, err := Open(root, "m", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Path(), []byte("max_batch_size: 3"), 0o644); err != nil {
		t.Fatal(err)
	}
	if backup, err := f.Replace(edit(t, f, 8)); !errors.Is(err, ErrChanged) || backup != "" {
		t.Errorf("got %q, %v", backup, err)
	}
	if got := tree(t, root); !slices.Equal(got, []string{"m/config.pbtxt"}) {
		t.Errorf("left %q", got)
	}
	if now, err := Open(root, "m", ""); err != nil || now.Text() != "max_batch_size: 3" {
		t.Errorf("the file is %q, %v", now.Text(), err)
	}
	if _, err := mustParse(t, "max_batch_size: 1").Replace(f); err == nil {
		t.Error("a text without a file was written")
	}
	other, err := Open(repository(t, map[string]string{"config.pbtxt": "max_batch_size: 5"}), "m", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Replace(edit(t, f, 8)); err == nil {
		t.Error("the text of one file was written in the place of another")
	}
	if now, err := os.ReadFile(other.Path()); err != nil || string(now) != other.Text() {
		t.Errorf("the other file is %q, %v", now, err)
	}
}

// A link stays a link, and the file that it names is edited.
func TestReplaceThroughALink(t *testing.T) {
	root := repository(t, map[string]string{"1/model.onnx": ""})
	kept := filepath.Join(t.TempDir(), "layout.pbtxt")
	if err := os.WriteFile(kept, []byte("max_batch_size: 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root, "m", "config.pbtxt")
	if err := os.Symlink(kept, link); err != nil {
		t.Fatal(err)
	}
	f, err := Open(root, "m", "")
	if err != nil {
		t.Fatal(err)
	}
	backup, err := f.Replace(edit(t, f, 8))
	if err != nil || filepath.Dir(backup) != filepath.Dir(kept) {
		t.Errorf("backup %s, %v", backup, err)
	}
	if text, err := os.ReadFile(link); err != nil || string(text) != "max_batch_size: 8" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if to, err := os.Readlink(link); err != nil || to != kept {
		t.Errorf("the link is %s, %v", to, err)
	}
}

func TestReplaceInAReadOnlyRepository(t *testing.T) {
	refused := func(name string, f, edited *File) {
		t.Helper()
		backup, err := f.Replace(edited)
		if !errors.Is(err, ErrReadOnly) || backup != "" || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %q, %v", name, backup, err)
		}
		if now, err := os.ReadFile(f.Path()); err != nil || string(now) != f.Text() {
			t.Errorf("%s: the file is %q, %v", name, now, err)
		}
	}
	root := repository(t, map[string]string{"config.pbtxt": "max_batch_size: 1"})
	f, err := Open(root, "m", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.Path(), 0o444); err != nil {
		t.Fatal(err)
	}
	edited := edit(t, f, 8)
	refused("file", f, edited)
	if err := errors.Join(os.Chmod(f.Path(), 0o644), os.Chmod(root, 0o555)); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(root, 0o755)
	// Permissions do not hold for root, so this thread gives root's power away;
	// it ends with the goroutine, since nobody unlocks it.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
			return
		}
		refused("directory", f, edited)
	}()
	<-done
	if got := tree(t, root); !slices.Equal(got, []string{"m/config.pbtxt"}) {
		t.Errorf("left %q", got)
	}
}

func TestDiff(t *testing.T) {
	f := mustParse(t, "# one\nmax_batch_size: 1 # why\nname: \"x\"\n")
	want := "--- config.pbtxt\n+++ config.pbtxt\n@@ -1,3 +1,3 @@\n # one\n-max_batch_size: 1 # why\n+max_batch_size: 8 # why\n name: \"x\"\n"
	if got := f.Diff(edit(t, f, 8)); got != want {
		t.Errorf("got\n%s", got)
	}
}
