package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quire/orchestrator"
)

// Twenty kills in the middle of runs. What a killed quire leaves is whole
// results and no process; a killed worker costs its page at most; a killed
// server, or the model's process in it, costs nothing.
func TestKills(t *testing.T) {
	const quire = "quire"
	many := must(t, manyDocuments)
	var out string
	kills := 0
	for i, victims := range [][]string{
		{nameWorker, nameServer, nameWorker, nameWorker, quire},
		{nameStub, nameWorker, nameWorker, nameWorker, quire},
		{nameWorker, nameWorker, nameServer, nameWorker, quire},
		{nameWorker, nameStub, nameWorker, nameServer, nameWorker},
	} {
		if i < 3 { // the last one finishes what the one before has left
			out = filepath.Join(t.TempDir(), "out")
		}
		p := start(t, nil, "run", many, "-o", out, "--model-repository", repository)
		p.until("model layout version")
		workers := 0
		for _, victim := range victims {
			p.untilNewResult(out)
			kills++
			switch victim {
			case quire:
				gone := p.leavesNothing()
				p.signal(syscall.SIGKILL)
				if code := p.wait(); code != -1 {
					t.Errorf("exit code %d of what was killed", code)
				}
				gone()
				results(t, out) // reads them all
			case nameServer, nameStub:
				p.kill(victim)
				line := p.until("the embedded Triton ended and is started again")
				if strings.Contains(line, "the process of a model ended") != (victim == nameStub) {
					t.Errorf("the end of a %s: %s", victim, line)
				}
				p.until("the embedded Triton is back")
			default:
				p.kill(victim)
				workers++
			}
		}
		if victims[len(victims)-1] == quire {
			continue
		}
		gone := p.leavesNothing()
		code := p.wait()
		gone()
		a, docs := p.accounts(), results(t, out)
		if done, _ := a.inAll(); a.documents != manyPages || done+a.failed+a.failedBefore != manyPages || a.failed > workers || len(docs) != manyPages {
			t.Errorf("%d results: %+v", len(docs), a)
		}
		if want := map[bool]int{true: exitSomeFailed, false: exitDone}[a.failed+a.failedBefore > 0]; code != want {
			t.Errorf("exit code %d, want %d", code, want)
		}
		for path, doc := range docs {
			if doc.Status == orchestrator.StatusDone {
				continue
			}
			err := doc.Error
			if err == nil && len(doc.Pages) == 1 {
				err = doc.Pages[0].Error
			}
			if err == nil || err.Category != orchestrator.CategoryCrash {
				t.Errorf("%s: %+v", path, err)
			}
		}
		onlyResults(t, out)
	}
	if kills != 20 {
		t.Errorf("%d kills", kills)
	}
}

// With quire and its guard killed at once nobody is there to end the rest, and it
// ends by itself, whatever it is doing.
func TestKilledTogether(t *testing.T) {
	for _, moment := range []string{"while the model loads", "in mid-run"} {
		t.Run(moment, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			p := start(t, nil, "run", must(t, manyDocuments), "-o", out, "--model-repository", repository)
			p.await("a stub", func() bool { return len(p.named(nameStub)) > 0 })
			if moment == "in mid-run" {
				p.untilNewResult(out)
			}
			var pids []int
			for _, c := range p.children() {
				pids = append(pids, c.pid)
			}
			gone := watch(t, pids...)
			guards := p.named(nameGuard)
			p.signal(syscall.SIGSTOP) // so that it does not hear of the guard's end
			for _, guard := range guards {
				if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
			p.signal(syscall.SIGKILL)
			p.wait()
			gone()
		})
	}
}

// Without its guard quire cannot go on, says so, and leaves nothing.
func TestKilledGuard(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	p := start(t, nil, "run", must(t, manyDocuments), "-o", out, "--model-repository", repository)
	p.untilNewResult(out)
	gone := p.leavesNothing()
	p.kill(nameGuard)
	if code := p.wait(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	gone()
	lines := strings.Split(p.said(), "\n")
	if last := lines[len(lines)-1]; strings.Count(last, "the guard process ended unexpectedly") != 1 {
		t.Errorf("its last word is %q", last)
	}
	if a, docs := p.accounts(), results(t, out); a.pagesDone != a.done || len(docs) < a.done {
		t.Errorf("%d results: %+v", len(docs), a)
	}
}
