package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quire/orchestrator"
	"quire/orchestrator/sink"
)

// resultFiles are the names of the results below out.
func resultFiles(t *testing.T, out string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(out, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // not made yet
			return nil
		case err != nil:
			return err
		case e.Name() == ".quire":
			return fs.SkipDir
		case strings.HasSuffix(path, ".pdf.json"):
			names = append(names, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// results reads the results below out, all of which must be whole, by path.
func results(t *testing.T, out string) map[string]*sink.Document {
	t.Helper()
	docs := map[string]*sink.Document{}
	for _, name := range resultFiles(t, out) {
		doc, err := sink.ReadDocument(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		docs[doc.Source.Path] = doc
	}
	return docs
}

// onlyResults checks that a run left no work files in out.
func onlyResults(t *testing.T, out string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(out, ".quire"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			t.Errorf("left in the work directory: %s", e.Name())
		}
	}
}

// account is the last line of a run, read back.
type account struct {
	documents, done, partial, failed, skipped, cancelled        int
	pages, pagesDone, pagesFailed, pagesSkipped, pagesCancelled int
}

var accountLine = regexp.MustCompile(`^documents: (\d+) = (\d+) done \+ (\d+) partial \+ (\d+) failed \+ (\d+) skipped(?: \+ (\d+) cancelled)?; pages: (\d+) = (\d+) done \+ (\d+) failed \+ (\d+) skipped \+ (\d+) cancelled; \S+, \S+ pages/s; results in \S+\n$`)

// accounts reads standard output, which must be one line that adds up.
func (p *program) accounts() (a account) {
	p.t.Helper()
	m := accountLine.FindStringSubmatch(p.stdout.String())
	if m == nil {
		p.t.Fatalf("standard output is no account: %q", p.stdout.String())
	}
	for i, n := range []*int{&a.documents, &a.done, &a.partial, &a.failed, &a.skipped, &a.cancelled, &a.pages, &a.pagesDone, &a.pagesFailed, &a.pagesSkipped, &a.pagesCancelled} {
		if m[i+1] != "" {
			fmt.Sscan(m[i+1], n)
		}
	}
	if a.documents != a.done+a.partial+a.failed+a.skipped+a.cancelled {
		p.t.Errorf("documents do not add up: %+v", a)
	}
	if a.pages != a.pagesDone+a.pagesFailed+a.pagesSkipped+a.pagesCancelled {
		p.t.Errorf("pages do not add up: %+v", a)
	}
	return a
}

// contents are the files below dir but for the lock, which holds a process ID.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && e.Name() != "lock" {
			files[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The main job: every document gets its result, and the same ones again.
func TestRun(t *testing.T) {
	inputs, err := filepath.Glob(examples + "/*.pdf")
	if err != nil || len(inputs) < 5 {
		t.Fatalf("examples: %v, %v", inputs, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	var first map[string][]byte
	for range 2 {
		p := start(t, nil, "run", examples, "-o", out, "--model-repository", repository)
		p.until("starting a Triton Inference Server on the CPU")
		p.until("model layout version 1 at 127.0.0.1:")
		gone := p.leavesNothing()
		if code := p.wait(); code != exitDone {
			t.Fatalf("exit code %d", code)
		}
		gone()
		onlyResults(t, out)
		a, docs := p.accounts(), results(t, out)
		if a.documents != len(inputs) || a.done != len(inputs) || a.pages != a.pagesDone || a.pages < len(inputs) {
			t.Errorf("%d documents: %+v", len(inputs), a)
		}
		for _, in := range inputs {
			doc := docs[filepath.Base(in)]
			if doc == nil || doc.Status != orchestrator.StatusDone || len(doc.Pages) == 0 || len(doc.Pages[0].Regions) == 0 {
				t.Errorf("%s: %+v", in, doc)
			}
		}
		now := contents(t, out)
		if first == nil {
			first = now
			continue
		}
		if !maps.EqualFunc(first, now, bytes.Equal) {
			t.Errorf("the second run left something else: %v and %v", slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(now)))
		}
	}
}

// Two runs at once have two servers, and what is wrong with the documents of
// one does not touch the other. Their pages travel in two ways, and the answers
// are the same.
func TestTwoRunsAtOnce(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o777); err != nil {
		t.Fatal(err)
	}
	form, err := os.ReadFile(examples + "/form.pdf")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"good.pdf": form, "bro ken.pdf": []byte("%PDF-1.7\nnothing of the kind\n"), "empty.pdf": nil} {
		if err := os.WriteFile(filepath.Join(in, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	a := start(t, nil, "run", examples, "-o", good, "--model-repository", repository)
	b := start(t, nil, "run", in, "-o", bad, "--model-repository", repository, "--transport", "grpc")
	x, y := a.until("(started by quire)"), b.until("(started by quire)")
	if x == y {
		t.Errorf("both say %q", x)
	}
	if !strings.HasSuffix(x, "in shared memory") || !strings.HasSuffix(y, "in the requests") {
		t.Errorf("transports: %q, %q", x, y)
	}
	if code := a.wait(); code != exitDone {
		t.Errorf("the good ones: exit code %d", code)
	}
	if code := b.wait(); code != exitSomeFailed {
		t.Errorf("the bad ones: exit code %d", code)
	}
	if got := b.accounts(); got.documents != 3 || got.done != 1 || got.failed != 2 || got.pagesDone != got.pages {
		t.Errorf("%+v", got)
	}
	if docs := results(t, bad); len(docs) != 3 || docs["bro ken.pdf"] == nil || docs["bro ken.pdf"].Status != orchestrator.StatusFailed {
		t.Errorf("results: %v", docs)
	} else if one := results(t, good)["form.pdf"]; !reflect.DeepEqual(docs["good.pdf"].Pages, one.Pages) || len(one.Pages) == 0 {
		t.Errorf("in the requests:\n%+v\nin shared memory:\n%+v", docs["good.pdf"].Pages, one.Pages)
	}
	var failed []string
	data, err := os.ReadFile(filepath.Join(bad, "failed.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var f struct{ Path, Stage, Category, Message string }
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Stage != "open" || f.Message == "" {
			t.Errorf("failed.jsonl: %q, %v", line, err)
		}
		failed = append(failed, f.Path+" "+f.Category)
	}
	if len(failed) != 2 || !strings.HasPrefix(failed[0], "bro ken.pdf ") || failed[1] != "empty.pdf empty" {
		t.Errorf("failed.jsonl names %q", failed)
	}
}

// The first interrupt lets drawn pages finish; nothing stays behind.
func TestInterrupt(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	p := start(t, nil, "run", must(t, manyDocuments), "-o", out, "--model-repository", repository)
	for range 3 {
		p.untilNewResult(out)
	}
	gone := p.leavesNothing()
	p.signal(syscall.SIGINT)
	p.until("stopping: ")
	if code := p.wait(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	gone()
	onlyResults(t, out)
	a, docs := p.accounts(), results(t, out)
	if a.done < 3 || a.done >= manyPages || a.pagesDone != a.done || a.failed+a.partial+a.pagesFailed > 0 || len(docs) != a.done {
		t.Errorf("%d results: %+v", len(docs), a)
	}
	if _, err := os.Stat(filepath.Join(out, "failed.jsonl")); err != nil {
		t.Error(err)
	}
	if lines := strings.Split(p.said(), "\n"); !strings.Contains(lines[len(lines)-1], "quire: interrupted: ") {
		t.Errorf("its last word is %q", lines[len(lines)-1])
	}
}

// The second interrupt ends a run that the first cannot: its server hangs.
func TestSecondInterrupt(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	p := start(t, nil, "run", must(t, manyDocuments), "-o", out, "--model-repository", repository)
	p.untilNewResult(out)
	gone := p.leavesNothing()
	for _, pid := range p.named(nameServer) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(syscall.SIGTERM)
	p.until("stopping: ")
	p.signal(syscall.SIGINT)
	if code := p.wait(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	gone()
	onlyResults(t, out)
	if a, docs := p.accounts(), results(t, out); len(docs) != a.done || a.pagesDone != a.done || a.documents >= manyPages {
		t.Errorf("%d results: %+v", len(docs), a)
	}
}

// An interrupt before the first page ends everything at once, whatever the
// set-up is doing, and leaves nothing half made.
func TestInterruptedSetup(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "cache")
	unbuilt := filepath.Join(t.TempDir(), "repository")
	if err := os.CopyFS(unbuilt, os.DirFS(repository)); err != nil {
		t.Fatal(err)
	}
	version := filepath.Join(unbuilt, "layout", "1")
	if err := os.RemoveAll(version); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, repository, cache, says string }{
		{"installing", repository, fresh, "making a virtual environment"},
		{"building the model", unbuilt, "", "building the layout model"},
		{"starting the server", repository, "", "starting a Triton"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var env []string
			if test.cache != "" {
				env = []string{"QUIRE_CACHE=" + test.cache}
			}
			p := start(t, env, "run", examples, "-o", filepath.Join(t.TempDir(), "out"), "--model-repository", test.repository)
			p.until(test.says)
			gone := p.leavesNothing()
			p.signal(syscall.SIGINT)
			if code := p.wait(); code != exitInterrupted {
				t.Errorf("exit code %d", code)
			}
			gone()
			if p.stdout.Len() > 0 {
				t.Errorf("standard output: %q", p.stdout.String())
			}
		})
	}
	if done, _ := filepath.Glob(fresh + "/env/*/complete"); len(done) > 0 {
		t.Errorf("an environment that was interrupted counts as complete: %v", done)
	}
	if left, _ := filepath.Glob(version + "/*"); len(left) > 0 {
		t.Errorf("half a model: %v", left)
	}
}
