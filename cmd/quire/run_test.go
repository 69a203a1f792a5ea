package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

// onlyResults checks that a run left no work files in out, but for what the next
// one goes on with.
func onlyResults(t *testing.T, out string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(out, ".quire"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" && e.Name() != "finished.jsonl" && !strings.HasPrefix(e.Name(), "left-") {
			t.Errorf("left in the work directory: %s", e.Name())
		}
	}
}

// account is the last line of a run, read back.
type account struct {
	documents, done, partial, failed, skipped, cancelled        int
	pages, pagesDone, pagesFailed, pagesSkipped, pagesCancelled int
	// How what was skipped had ended.
	doneBefore, partialBefore, failedBefore, pagesDoneBefore, pagesFailedBefore int

	resumed int    // pages
	redone  string // why
}

// inAll are the documents and the pages that are done now, whichever run did
// them.
func (a account) inAll() (done, pagesDone int) {
	return a.done + a.doneBefore, a.pagesDone + a.pagesDoneBefore
}

var accountLine = regexp.MustCompile(`^documents: (\d+) = (\d+) done \+ (\d+) partial \+ (\d+) failed \+ (\d+) skipped(?: \+ (\d+) cancelled)?; pages: (\d+) = (\d+) done \+ (\d+) failed \+ (\d+) skipped \+ (\d+) cancelled` +
	`(?:; skipped: (\d+) done \+ (\d+) partial \+ (\d+) failed before, with pages: (\d+) done \+ (\d+) failed)?(?:; resumed: (\d+) pages?)?(?:; redone: ([^;]*))?; \S+, \S+ pages/s; results in \S+\n$`)

// accounts reads standard output, which must be one line that adds up.
func (p *program) accounts() (a account) {
	p.t.Helper()
	m := accountLine.FindStringSubmatch(p.stdout.String())
	if m == nil {
		p.t.Fatalf("standard output is no account: %q", p.stdout.String())
	}
	for i, n := range []*int{
		&a.documents, &a.done, &a.partial, &a.failed, &a.skipped, &a.cancelled, &a.pages, &a.pagesDone, &a.pagesFailed, &a.pagesSkipped, &a.pagesCancelled,
		&a.doneBefore, &a.partialBefore, &a.failedBefore, &a.pagesDoneBefore, &a.pagesFailedBefore, &a.resumed,
	} {
		if m[i+1] != "" {
			fmt.Sscan(m[i+1], n)
		}
	}
	a.redone = m[len(m)-1]
	if a.documents != a.done+a.partial+a.failed+a.skipped+a.cancelled {
		p.t.Errorf("documents do not add up: %+v", a)
	}
	if a.pages != a.pagesDone+a.pagesFailed+a.pagesSkipped+a.pagesCancelled {
		p.t.Errorf("pages do not add up: %+v", a)
	}
	if a.skipped != a.doneBefore+a.partialBefore+a.failedBefore || a.pagesSkipped != a.pagesDoneBefore+a.pagesFailedBefore {
		p.t.Errorf("what was skipped does not add up: %+v", a)
	}
	return a
}

// contents are the result files below dir, failed.jsonl, and run.json but for
// its account.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.Name() == ".quire":
			return fs.SkipDir
		case !e.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		text := string(data)
		if e.Name() == "run.json" {
			text, _, _ = strings.Cut(text, `  "account"`)
		}
		name, _ := filepath.Rel(dir, path)
		files[name] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// differ tells which of two sets of contents differ.
func differ(a, b map[string]string) (names []string) {
	for name, content := range a {
		if other, ok := b[name]; !ok || other != content {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// The main job: every document gets its result, and the same one again when
// that is asked for.
func TestRun(t *testing.T) {
	inputs, err := filepath.Glob(examples + "/*.pdf")
	if err != nil || len(inputs) < 5 {
		t.Fatalf("examples: %v, %v", inputs, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	var first map[string]string
	for _, more := range [][]string{nil, nil, {"--fresh"}} {
		p := start(t, nil, append([]string{"run", examples, "-o", out, "--model-repository", repository}, more...)...)
		p.until("starting a Triton Inference Server on the CPU")
		idle := first != nil && more == nil
		if idle { // it may end before anybody looks, once it has a model
			p.await(nameServer, func() bool { return len(p.named(nameServer)) > 0 })
		} else {
			p.until("model layout version 1 at 127.0.0.1:")
		}
		gone := p.leavesNothing()
		if code := p.wait(); code != exitDone {
			t.Fatalf("exit code %d", code)
		}
		gone()
		onlyResults(t, out)
		a, docs := p.accounts(), results(t, out)
		done, pagesDone := a.inAll()
		if a.documents != len(inputs) || done != len(inputs) || a.pages != pagesDone || a.pages < len(inputs) {
			t.Errorf("%d documents: %+v", len(inputs), a)
		}
		if idle && a.skipped != len(inputs) || !idle && a.done != len(inputs) {
			t.Errorf("run %v: %+v", more, a)
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
		} else if other := differ(first, now); len(other) > 0 {
			t.Errorf("run %v left something else: %v", more, other)
		}
	}

	// README.md shows the beginning of a result, wrapped; numbers may differ a
	// little from one processor to the next.
	_, shown, _ := strings.Cut(read(t, root, "README.md"), "```json\n")
	shown, _, _ = strings.Cut(shown, "```")
	plain := func(text string) string {
		text = regexp.MustCompile(`sha256:[^"]+|\d+\.\d+`).ReplaceAllString(text, "…")
		return strings.Join(strings.Fields(text), "")
	}
	if got := plain(first["slides.pdf.json"]); len(shown) < 500 || !strings.HasPrefix(got, plain(shown)) {
		t.Errorf("README.md shows\n%s\nand it begins with\n%.1000s", shown, first["slides.pdf.json"])
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
	write(t, read(t, examples, "form.pdf"), in, "good.pdf")
	write(t, "%PDF-1.7\nnothing of the kind\n", in, "bro ken.pdf")
	write(t, "", in, "empty.pdf")
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
	for line := range strings.Lines(read(t, bad, "failed.jsonl")) {
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

// The first interrupt lets drawn pages finish; nothing stays behind. So does the
// end of the terminal.
func TestInterrupt(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) { interrupt(t, signal) })
	}
}

func interrupt(t *testing.T, signal syscall.Signal) {
	out := filepath.Join(t.TempDir(), "out")
	p := start(t, nil, "run", must(t, manyDocuments), "-o", out, "--model-repository", repository)
	for range 3 {
		p.untilNewResult(out)
	}
	gone := p.leavesNothing()
	p.signal(signal)
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

// When nobody reads the events any more the run ends in order, and what it had
// in work is no suspect of a crash.
func TestReaderThatGoesAway(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	p := startTo(t, write, nil, "run", must(t, manyDocuments), "-o", out, "--json", "--model-repository", repository)
	write.Close()
	if line, err := bufio.NewReaderSize(read, 16).ReadString('\n'); err != nil || !strings.Contains(line, `"start"`) {
		t.Errorf("read %q, %v", line, err)
	}
	gone := p.leavesNothing()
	read.Close()
	if code := p.wait(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	gone()
	onlyResults(t, out)
	if said := p.said(); !strings.Contains(said, "the events cannot be written (write /dev/stdout: broken pipe): run the same command again") {
		t.Errorf("it said\n%s", said)
	}
	if len(results(t, out)) >= manyPages {
		t.Error("the run went on to its end")
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
