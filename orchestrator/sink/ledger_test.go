package sink

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quire/orchestrator"
)

func testRecord(path string, bytes int64) record {
	text, encoding := PathText(path)
	return record{Status: orchestrator.StatusDone, Path: text, PathEncoding: encoding, identity: identity{Size: 1, Model: "m", Options: "o"}, Bytes: bytes}
}

// openTestLedger opens the ledger in dir; lost counts what it finds damaged.
func openTestLedger(t *testing.T, dir string, lost *int64) *ledger {
	t.Helper()
	l, err := openLedger(&disk{Root: tempRoot(t, dir)}, func(_ string, n int64) { *lost += n })
	if err == nil {
		err = l.merge()
	}
	check(t, err)
	t.Cleanup(l.close)
	return l
}

// inOrder tells the paths of the ledger as it lies on the disk.
func inOrder(t *testing.T, dir string) (paths []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, ledgerName))
	check(t, err)
	bodies, r := readLines(t, data)
	if r.lost > 0 {
		t.Errorf("%d bytes of the ledger are no lines", r.lost)
	}
	for i, body := range bodies {
		r, ok, err := parseRecord([]byte(body))
		check(t, err)
		if ok != (i > 0) {
			t.Errorf("line %d is %s", i, body)
		}
		if ok {
			paths = append(paths, r.path)
		}
	}
	return paths
}

// manyPaths are paths as they occur, near each other.
func manyPaths(rnd *rand.Rand, n int) []string {
	seen := map[string]bool{}
	var paths []string
	for len(paths) < n {
		var parts []string
		for range 1 + rnd.IntN(3) {
			parts = append(parts, []string{"a", "a.b", "a b", "b\xff", "ä%", "z"}[rnd.IntN(6)]+strings.Repeat("x", rnd.IntN(3)))
		}
		p := strings.Join(parts, "/") + fmt.Sprintf("%d.pdf", rnd.IntN(50))
		if !seen[p] {
			seen[p] = true
			paths = append(paths, p)
		}
	}
	return paths
}

// What could not be noted leaves nothing that looks like damage.
func TestFailedNoteLeavesNothing(t *testing.T) {
	for _, step := range []string{"write", "sync"} {
		dir, lost := t.TempDir(), int64(0)
		l := openTestLedger(t, dir, &lost)
		check(t, l.add([]record{testRecord("a.pdf", 1)}, true))
		l.disk.fault = func(at, name string) error {
			if at == step && name == recentName {
				return &os.PathError{Op: at, Path: name, Err: syscall.ENOSPC}
			}
			return nil
		}
		if err := l.add([]record{testRecord("b.pdf", 1), testRecord("c.pdf", 1)}, true); !isFull(err) {
			t.Errorf("%s: %v", step, err)
		}
		l.close()
		openTestLedger(t, dir, &lost)
		if got := inOrder(t, dir); lost > 0 || !slices.Equal(got, []string{"a.pdf"}) {
			t.Errorf("%s: %d bytes lost, %q", step, lost, got)
		}
	}
}

// The ledger's order is that of a walk: name by name.
func TestLedgerOrderIsTheWalks(t *testing.T) {
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 1))
	var paths []string
	for _, p := range manyPaths(rnd, 200) {
		name := filepath.Join(dir, p)
		check(t, os.MkdirAll(filepath.Dir(name), 0o777))
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	check(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, strings.TrimPrefix(p, dir+"/"))
		}
		return err
	}))
	if len(paths) != 200 || !slices.IsSortedFunc(paths, comparePaths) {
		t.Errorf("%d paths, which are in another order: %q", len(paths), paths)
	}
}

// Every document is found that is there and none that is not, in whatever order
// they are asked for, over several runs, also when sorting takes the disk.
func TestLedger(t *testing.T) {
	defer func(was int) { sortBytes = was }(sortBytes)
	for _, sortBytes = range []int{8 << 20, 2000} {
		dir := t.TempDir()
		rnd := rand.New(rand.NewPCG(2, uint64(sortBytes)))
		all := manyPaths(rnd, 600)
		there := map[string]int64{}
		var lost int64
		for run := range 6 {
			l := openTestLedger(t, dir, &lost)
			// Asked in order as a walk asks, but for some.
			ask := slices.Clone(all)
			slices.SortFunc(ask, comparePaths)
			switch run % 3 {
			case 1:
				rnd.Shuffle(len(ask), func(i, j int) { ask[i], ask[j] = ask[j], ask[i] })
			case 2:
				ask = append(ask[300:], ask[:300]...)
			}
			asked := map[string]bool{}
			for i, p := range ask {
				if rnd.IntN(10) == 0 {
					continue
				}
				asked[p] = true
				r, ok, err := l.find(p)
				check(t, err)
				if was, known := there[p]; ok != known || ok && r.Bytes != was {
					t.Fatalf("run %d: %q is %v %d, want %v %d", run, p, ok, r.Bytes, known, was)
				}
				if i%3 == 0 {
					continue
				}
				r = testRecord(p, int64(1000*run+i))
				there[p] = r.Bytes
				if rnd.IntN(8) == 0 {
					r.Status = statusGone
					delete(there, p)
				}
				check(t, l.add([]record{r}, i%5 == 0))
			}
			unseen := 0
			check(t, l.unseen(func(r record) error {
				if asked[r.path] {
					t.Errorf("run %d: %q was asked for", run, r.path)
				}
				unseen++
				return nil
			}))
			if run%2 == 0 { // else it is killed, and the next one does that
				check(t, l.merge())
				got := inOrder(t, dir)
				if len(got) != len(there) || !slices.IsSortedFunc(got, comparePaths) {
					t.Fatalf("run %d: %d documents in the ledger, want %d", run, len(got), len(there))
				}
			}
			l.close()
			names, err := filepath.Glob(dir + "/" + tempPrefix + "*")
			check(t, err)
			if len(names) > 0 {
				t.Errorf("left %q", names)
			}
		}
		if lost > 0 {
			t.Errorf("%d bytes lost", lost)
		}
	}
}

// Damage costs the documents that it meets, and no other; it is told of, and
// gone after the next run.
func TestDamagedLedger(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	paths := manyPaths(rnd, 100)
	slices.SortFunc(paths, comparePaths)
	var lost int64
	base := t.TempDir()
	l := openTestLedger(t, base, &lost)
	for i, p := range paths {
		check(t, l.add([]record{testRecord(p, int64(i))}, false))
		if i == 70 {
			check(t, l.merge())
		}
	}
	l.close()
	whole, written := map[string][]byte{}, map[string]bool{}
	for _, name := range []string{ledgerName, recentName} {
		data, err := os.ReadFile(filepath.Join(base, name))
		check(t, err)
		whole[name] = data
		for line := range bytes.Lines(data) {
			written[string(line)] = true
		}
	}
	for round := range 100 {
		dir := t.TempDir()
		lost = 0
		damaged := 0
		for name, data := range whole {
			if round%3 != 0 || name == recentName {
				data = damage(rnd, data)
			}
			check(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
			for line := range bytes.Lines(data) {
				if !written[string(line)] {
					damaged += len(line)
				}
			}
		}
		intact := map[string]bool{}
		for _, name := range []string{ledgerName, recentName} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			check(t, err)
			for line := range bytes.Lines(data) {
				if body, ok := openLine(bytes.TrimSuffix(bytes.Clone(line), []byte("\n"))); ok && written[string(line)] {
					if r, ok, _ := parseRecord(body); ok {
						intact[r.path] = true
					}
				}
			}
		}
		l := openTestLedger(t, dir, &lost)
		for i, p := range paths {
			r, ok, err := l.find(p)
			check(t, err)
			if ok != intact[p] || ok && r.Bytes != int64(i) {
				t.Fatalf("round %d: %q is %v %d", round, p, ok, r.Bytes)
			}
		}
		l.close()
		if (lost > 0) != (damaged > 0) {
			t.Fatalf("round %d: %d bytes said to be lost, %d are", round, lost, damaged)
		}
		if got := inOrder(t, dir); len(got) != len(intact) {
			t.Fatalf("round %d: %d documents, want %d", round, len(got), len(intact))
		}
	}
}

// So it is when no run was killed, and the ledger is read as it lies: in whatever
// order it is asked, each document that is whole is found, and what is not is told
// of, once.
func TestDamagedLedgerAlone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	paths := manyPaths(rnd, 300)
	var lost int64
	base := t.TempDir()
	l := openTestLedger(t, base, &lost)
	for i, p := range paths {
		check(t, l.add([]record{testRecord(p, int64(i))}, false))
	}
	check(t, l.merge())
	l.close()
	whole, err := os.ReadFile(filepath.Join(base, ledgerName))
	check(t, err)
	for round := range 60 {
		dir := t.TempDir()
		data := damage(rnd, whole)
		check(t, os.WriteFile(filepath.Join(dir, ledgerName), data, 0o666))
		intact := map[string]bool{}
		bodies, r := readLines(t, bytes.Clone(data))
		for _, body := range bodies {
			if r, ok, _ := parseRecord([]byte(body)); ok {
				intact[r.path] = true
			}
		}
		lost = 0
		l := openTestLedger(t, dir, &lost)
		ask := func(i int) {
			found, ok, err := l.find(paths[i])
			if check(t, err); ok != intact[paths[i]] || ok && found.Bytes != int64(i) {
				t.Fatalf("round %d: %q is %v %d", round, paths[i], ok, found.Bytes)
			}
		}
		for _, i := range rnd.Perm(len(paths)) {
			ask(i)
		}
		l.close()
		// Jumps meet damage or do not; who goes through in order meets all of it.
		l = openTestLedger(t, dir, &lost)
		order := make([]int, len(paths))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return comparePaths(paths[a], paths[b]) })
		lost = 0
		for _, i := range order {
			ask(i)
		}
		l.close()
		if lost > r.lost || (lost > 0) != (r.lost > 0) {
			t.Fatalf("round %d: %d bytes said to be lost, %d are", round, lost, r.lost)
		}
	}
}

// A ledger of another version is not read as if it were ours.
func TestLedgerOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, workDirectory), 0o777))
	check(t, os.WriteFile(filepath.Join(dir, workDirectory, ledgerName), appendLine(nil, []byte(`{"schema":"quire-finished/9"}`)), 0o666))
	tree, err := Open(Config{Dir: dir})
	check(t, err)
	defer tree.Close()
	if err := tree.Start(t.Context(), testModel, nil); err == nil || !strings.Contains(err.Error(), "another version") || !strings.Contains(err.Error(), "quire-finished/9") {
		t.Errorf("got %v", err)
	}
}

// A run over what stands reads one small record a document.
func BenchmarkStands(b *testing.B) {
	dir := b.TempDir()
	const documents = 10_000
	run := func() (skipped int) {
		tree, err := Open(Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		defer tree.Close()
		if err := tree.Start(b.Context(), testModel, nil); err != nil {
			b.Fatal(err)
		}
		ctx := context.Background()
		for i := range documents {
			path := fmt.Sprintf("%03d/%05d.pdf", i/100, i)
			past, err := tree.Begin(ctx, document(path))
			if err != nil {
				b.Fatal(err)
			}
			d := orchestrator.DocumentResult{Path: path, Status: orchestrator.StatusSkipped}
			if past.Result == nil {
				_ = tree.Opened(ctx, document(path), 1)
				_ = tree.Page(ctx, donePage(path, 1))
				d = orchestrator.DocumentResult{Path: path, Status: orchestrator.StatusDone, PageCount: 1, Done: 1}
			} else {
				skipped++
			}
			if err := tree.End(ctx, d, func(err error) {
				if err != nil {
					b.Error(err)
				}
			}); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := tree.Finish(ctx, orchestrator.Summary{}, nil, nil); err != nil {
			b.Fatal(err)
		}
		return skipped
	}
	run()
	for b.Loop() {
		if n := run(); n != documents {
			b.Fatalf("%d documents stood", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/documents, "µs/document")
}
