package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quire/tritonclient/embedded"
)

// make torture sets the first, and a seed to repeat what it found the second.
var (
	rounds = flag.Int("rounds", 6, "how many runs TestKilledRunsResume kills")
	seed   = flag.Uint64("seed", 0, "what its moments are drawn from; 0: the time")
)

// ledger is what an output directory knows of finished documents.
const ledger = ".quire/finished.jsonl"

// A batch is small here, so that little is on its way.
const (
	tortureBatch    = 4
	tortureInFlight = 2
	// onTheWay bounds the pages that the server has answered and the journal
	// does not have: requests in flight, results on their way to the one
	// goroutine that writes them, and the one in its hand.
	onTheWay = tortureBatch*tortureInFlight + 2*tortureBatch + 1
)

// instantServer starts a server whose model computes nothing, and takes so many
// milliseconds for each batch. It outlives the runs of a test.
func instantServer(t *testing.T, batchMS int) *embedded.Server {
	t.Helper()
	repository := t.TempDir()
	if err := os.CopyFS(repository, os.DirFS("../../scripts/bench_repository/instant")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(repository, "layout/configs/cpu.pbtxt")
	data := read(t, config)
	const was = `"bench.batch_ms" value { string_value: "0" }`
	text := strings.Replace(data, was, strings.Replace(was, `"0"`, fmt.Sprintf(`"%d"`, batchMS), 1), 1)
	if batchMS > 0 && text == data {
		t.Fatal("the model's config was not changed")
	}
	write(t, text, config)
	server, err := embedded.Start(t.Context(), embedded.Config{Options: embedded.Options{Guard: startedGuard(t)}, ModelRepository: repository})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// tortureDocuments are short and long documents, and some that fail.
func tortureDocuments(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"--many", filepath.Join(dir, "many"), "80"},
		{"--long", filepath.Join(dir, "long.pdf"), "150"},
		{"--long", filepath.Join(dir, "sub/long.pdf"), "100"},
		{filepath.Join(dir, "odd"), "good.pdf", "missing_page.pdf", "zero_byte.pdf", "not_pdf.pdf", "no_pages.pdf", "encrypted_user.pdf"},
	} {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o777); err != nil {
			t.Fatal(err)
		}
		makeOdd(t, args...)
	}
	return dir
}

// Runs that are killed at random moments, once or twice, and resumed, leave what
// an unbroken run leaves, in every byte, the ledger too; the accounts are the same,
// and no page is done again but those that were on their way. Killed are the
// program, its guard, a worker and the server.
func TestKilledRunsResume(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *seed)
	rnd := rand.New(rand.NewPCG(*seed, 0))
	docs, server := tortureDocuments(t), instantServer(t, 0)
	client := connected(t, server.Addr())
	answered := func() uint64 {
		t.Helper()
		s, err := client.Statistics(t.Context(), "layout", "")
		if err != nil {
			t.Fatal(err)
		}
		return s.Inferences
	}
	run := func(out string) *program {
		t.Helper()
		return start(t, nil, "run", docs, "-o", out, "--triton", server.Addr(),
			"--batch", fmt.Sprint(tortureBatch), "--in-flight", fmt.Sprint(tortureInFlight), "--workers", "2")
	}

	whole := filepath.Join(t.TempDir(), "whole")
	begun := time.Now()
	p := run(whole)
	code := p.wait()
	took := time.Since(begun)
	account, want, wantLedger := p.accounts(), contents(t, whole), read(t, whole, ledger)
	pages := uint64(account.pagesDone)
	if code != exitSomeFailed || account.documents < 80 || account.partial == 0 || answered() != pages {
		t.Fatalf("the unbroken run: exit code %d, %+v, the server answered %d pages", code, account, answered())
	}

	// alive lets a part of the time of a run go by, and tells whether the run
	// still goes on.
	alive := func(p *program) bool {
		moment := time.NewTimer(time.Duration(rnd.Int64N(int64(took))))
		defer moment.Stop()
		select {
		case <-p.ended:
			return false
		case <-moment.C:
			return true
		}
	}
	// Whoever goes, the same command is to bring the run to its end: the program is
	// started again, the server too, and a worker is the program's own business.
	victims := []string{nameQuire, nameQuire, nameGuard, nameQuire, nameWorker, nameServer}
	kills, again := map[string]int{}, uint64(0)
	for round := range *rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			var p *program
			var out string
			var before uint64
			first := victims[round%len(victims)]
			for p == nil || !alive(p) || !p.has(first) { // too early or too late: once more
				if p != nil {
					p.wait()
				}
				out = filepath.Join(t.TempDir(), "out")
				before = answered()
				p = run(out)
			}
			programs, servers := uint64(0), 0
			kill := func(victim string) {
				kills[victim]++
				switch victim {
				case nameServer:
					servers++
					if err := server.Restart(t.Context()); err != nil { // which kills it
						t.Error(err)
					}
					return
				case nameQuire:
					p.signal(syscall.SIGKILL)
				default:
					for _, pid := range p.named(victim) {
						_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
						break
					}
				}
				if victim == nameWorker {
					return
				}
				p.wait()
				programs++
				if _, err := os.Stat(out); err == nil {
					for name, content := range contents(t, out) {
						if name != "run.json" && name != "failed.jsonl" && content != want[name] {
							t.Errorf("after the kill %s is %q", name, content)
						}
					}
				}
				p = run(out)
			}
			kill(first)
			if second := victims[rnd.IntN(len(victims))]; rnd.IntN(2) == 1 && alive(p) && p.has(second) {
				kill(second)
			}
			if code := p.wait(); code != exitSomeFailed {
				t.Errorf("exit code %d", code)
			}
			if names := differ(contents(t, out), want); len(names) > 0 {
				t.Errorf("other than after an unbroken run: %v", names)
			}
			if got := read(t, out, ledger); got != wantLedger {
				t.Errorf("the ledger is not that of an unbroken run:\n%s", got)
			}
			onlyResults(t, out)
			if left, _ := filepath.Glob(out + "/.quire/left-*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			a := p.accounts()
			done, pagesDone := a.inAll()
			if a.documents != account.documents || done != account.done || a.partial+a.partialBefore != account.partial || a.failed+a.failedBefore != account.failed ||
				a.pages != account.pages || pagesDone != account.pagesDone || a.pagesFailed+a.pagesFailedBefore != account.pagesFailed {
				t.Errorf("the account is %+v, of an unbroken run %+v", a, account)
			}
			if servers > 0 {
				return // its counters are gone with it
			}
			more := answered() - before - pages
			again += more
			if more > programs*onTheWay {
				t.Errorf("%d pages were done again after %d kills, more than %d on their way each time", more, programs, onTheWay)
			}
		})
	}
	t.Logf("kills: %v; %d pages were done again", kills, again)
	for _, victim := range victims[:min(*rounds, len(victims))] {
		if kills[victim] == 0 {
			t.Errorf("no %s was killed", victim)
		}
	}
}

// nameQuire stands for the program itself.
const nameQuire = "quire"

// has tells whether there is somebody of that name to kill. A server is there when
// the run has found it; before that a run without one says so at once, and ends.
func (p *program) has(victim string) bool {
	p.t.Helper()
	switch victim {
	case nameQuire:
		return true
	case nameServer:
		return strings.Contains(p.said(), "quire: model layout")
	}
	return len(p.named(victim)) > 0
}
