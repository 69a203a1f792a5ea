package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"quire/orchestrator"
)

// A run goes on where the one before has stopped, does again what has changed
// and says so, and knows what is not among its inputs any more.
func TestGoingOn(t *testing.T) {
	server := instantServer(t, 30)
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	for _, args := range [][]string{
		{"--many", filepath.Join(in, "many"), "60"},
		{"--long", filepath.Join(in, "long.pdf"), "200"},
		{filepath.Join(in, "odd"), "missing_page.pdf", "not_pdf.pdf", "encrypted_user.pdf"},
	} {
		makeOdd(t, args...)
	}
	const documents, failed = 60 + 1 + 3, 2
	run := func(more ...string) *program {
		t.Helper()
		return start(t, nil, append([]string{"run", in, "-o", out, "--triton", server.Addr(), "--batch", "4"}, more...)...)
	}
	// to runs to the end, and returns the account.
	to := func(code int, more ...string) (account, *program) {
		t.Helper()
		p := run(more...)
		if got := p.wait(); got != code {
			t.Fatalf("%v: exit code %d, want %d", more, got, code)
		}
		return p.accounts(), p
	}

	// Stopped in the middle of the long document, and refused meanwhile.
	p := run()
	p.await("pages", func() bool {
		segments, _ := filepath.Glob(out + "/.quire/pages-*")
		for _, name := range segments {
			if info, err := os.Stat(name); err == nil && info.Size() > 20_000 {
				return true
			}
		}
		return false
	})
	second := run()
	if code := second.wait(); code != exitFailed || !strings.Contains(second.said(), fmt.Sprintf("in use by another run (process %d)", p.Process.Pid)) {
		t.Errorf("a second run: exit code %d", code)
	}
	p.signal(syscall.SIGINT)
	p.until("stopping: ")
	if code := p.wait(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	first := p.accounts()
	if first.pagesDone == 0 || first.pagesCancelled == 0 {
		t.Errorf("nothing was interrupted: %+v", first)
	}
	second2, _ := to(exitSomeFailed)
	done, pagesDone := second2.inAll()
	if second2.documents != documents || second2.skipped != first.done+first.partial+first.failed || done != documents-1-failed ||
		second2.resumed+second2.pagesSkipped < first.pagesDone || second2.redone != "" {
		t.Errorf("interrupted as %+v, and gone on as %+v", first, second2)
	}
	whole := contents(t, out)

	// Nothing is left to do. What had failed still has.
	a, _ := to(exitSomeFailed)
	if a.skipped != documents || a.pagesDone+a.pagesFailed > 0 || a.failedBefore != failed || a.partialBefore != 1 || a.pagesDoneBefore != pagesDone {
		t.Errorf("over what stands: %+v", a)
	}
	if names := differ(contents(t, out), whole); len(names) > 0 {
		t.Errorf("a run without work left something else: %v", names)
	}

	// Failed pages alone are done again.
	a, _ = to(exitSomeFailed, "--retry-failed")
	if a.skipped != documents-failed-1 || a.redone != "3 failed before" || a.resumed != 2 || a.pagesFailed != 1 {
		t.Errorf("--retry-failed: %+v", a)
	}
	if names := differ(contents(t, out), whole); len(names) > 0 {
		t.Errorf("--retry-failed left something else: %v", names)
	}
	words := write(t, "quire\n", t.TempDir(), "words")
	a, _ = to(exitSomeFailed, "--password-file", words)
	if a.skipped != documents-1 || a.redone != "1 encrypted" || a.done != 1 {
		t.Errorf("with a password: %+v", a)
	}

	// One input is touched, one changed, one is gone, and one is new.
	many, err := filepath.Glob(in + "/many/*/*.pdf")
	if err != nil || len(many) < 50 {
		t.Fatalf("%d documents, %v", len(many), err)
	}
	later := time.Now().Add(time.Hour)
	odd := filepath.Join(in, "odd/missing_page.pdf")
	data, err := os.ReadFile(odd)
	for _, err := range []error{
		err, os.Chtimes(many[0], later, later), os.WriteFile(many[1], data, 0o666),
		os.Remove(filepath.Join(in, "long.pdf")), os.WriteFile(filepath.Join(in, "new.pdf"), data, 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a, p = to(exitSomeFailed)
	if a.documents != documents || a.redone != "2 changed" || a.partial != 2 || a.done != 1 {
		t.Errorf("after changes: %+v", a)
	}
	if said := p.said(); !strings.Contains(said, "1 result of a document that is not among the inputs: long.pdf; --prune removes them") {
		t.Errorf("it says nothing of what is gone: %s", said)
	}
	a, p = to(exitSomeFailed, "--prune", "--checksum")
	if a.skipped != documents || !strings.Contains(p.said(), "; 1 removed") {
		t.Errorf("--prune: %+v", a)
	}
	if _, err := os.Stat(filepath.Join(out, "long.pdf.json")); !os.IsNotExist(err) {
		t.Errorf("--prune left it: %v", err)
	}
	// With the contents known, a touch changes nothing.
	if err := os.Chtimes(many[2], later, later); err != nil {
		t.Fatal(err)
	}
	if a, _ = to(exitSomeFailed, "--checksum"); a.skipped != documents {
		t.Errorf("--checksum: %+v", a)
	}

	// told is to with another threshold, as the events have it.
	told := func() (documents []documentEvent, last summaryEvent) {
		t.Helper()
		p := run("--threshold", "0.96", "--json")
		if code := p.wait(); code != exitSomeFailed {
			t.Errorf("exit code %d", code)
		}
		for line := range strings.Lines(p.stdout.String()) {
			var e documentEvent
			unmarshal(t, line, &e)
			switch e.MessageType {
			case "document":
				documents = append(documents, e)
			case "summary":
				unmarshal(t, line, &last)
			}
		}
		return documents, last
	}
	// That makes other results, of everything.
	events, last := told()
	redone := 0
	for _, e := range events {
		if e.Redone == orchestrator.RedoneOptions {
			redone++
		}
	}
	if redone != documents || last.Redone[orchestrator.RedoneOptions] != documents || last.Documents.Skipped != 0 {
		t.Errorf("%d documents redone: %+v", redone, last)
	}
	events, last = told()
	skipped := 0
	for _, e := range events {
		if e.Status == orchestrator.StatusSkipped && e.Before != nil && e.Before.Status != "" && e.Pages.Skipped == e.Before.Pages.Done+e.Before.Pages.Failed {
			skipped++
		}
	}
	if skipped != documents || last.Documents.Skipped != documents || last.DocumentsBefore.Failed == 0 || last.Pages.Skipped != last.PagesBefore.Done+last.PagesBefore.Failed {
		t.Errorf("%d documents skipped: %+v", skipped, last)
	}
}

// What a build that was killed has left, and what Python leaves, makes no other
// model of one.
func TestContentOf(t *testing.T) {
	digest := func(names ...string) string {
		t.Helper()
		files := fstest.MapFS{}
		for _, name := range names {
			files[name] = &fstest.MapFile{Data: []byte("content of " + name)}
		}
		d, err := contentOf(files)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	model := digest("model.onnx")
	if got := digest("model.onnx", ".model-x1.tmp", ".part/model.onnx", "__pycache__/model.pyc"); got != model {
		t.Errorf("leftovers make %s of %s", got, model)
	}
	if digest("model.onnx", "weights/part.bin") == model || digest("model2.onnx") == model {
		t.Error("another model has the same digest")
	}
	if _, err := contentOf(os.DirFS(filepath.Join(t.TempDir(), "none"))); err == nil {
		t.Error("a model that is not there has a digest")
	}
}
