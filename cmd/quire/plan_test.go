package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/plan"
	"quire/orchestrator/sink"
)

func TestPlanOfGoodDocuments(t *testing.T) {
	t.Setenv("QUIRE_CACHE", t.TempDir())
	code, stdout, stderr := call(t, "plan", "../../examples", "-o", filepath.Join(t.TempDir(), "to", "come"))
	for _, want := range []string{"documents: 5,", "pages: 16, counted in all 5 documents\n", "no rate measured yet with this server (embedded): run once", " free at "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
	if code != exitDone || stderr != "" {
		t.Errorf("code %d, %q", code, stderr)
	}

	// A run leaves its rate for the next plan.
	recordRate(serverChoice{}, orchestrator.ModelInfo{Name: "layout", Version: "1"},
		orchestrator.Summary{Pages: orchestrator.Counts{Done: 90, Failed: 10}, Elapsed: 50 * time.Second}, sink.Written{Documents: 3, Bytes: 200_000}, slog.New(slog.DiscardHandler))
	_, stdout, _ = call(t, "plan", "../../examples")
	for _, want := range []string{"time: about 8s, at the 2.0 pages/s of the last run with this server (embedded, model layout version 1, 100 pages, ", "the last run's 2.0 kB a page and 4.1 kB a document"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
	_, stdout, _ = call(t, "plan", "../../examples", "--triton", "gpu:8001")
	if !strings.Contains(stdout, "no rate measured yet with this server (gpu:8001)") {
		t.Errorf("another server's rate was taken:\n%s", stdout)
	}
}

// oddTree has every kind of input that cannot be opened, and two that can.
func oddTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	good, err := os.ReadFile("../../examples/form.pdf")
	err = errors.Join(err,
		os.Mkdir(filepath.Join(dir, "sub"), 0o700),
		os.WriteFile(filepath.Join(dir, "good.pdf"), good, 0o600),
		os.WriteFile(filepath.Join(dir, "sub", "GOOD.PDF"), good, 0o600),
		os.WriteFile(filepath.Join(dir, "sub", "empty.pdf"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "text.pdf"), []byte("not one"), 0o600),
		os.WriteFile(filepath.Join(dir, "bad name \xff.pdf"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("not asked for"), 0o600),
		os.Symlink("nowhere", filepath.Join(dir, "broken.pdf")),
		os.Symlink("/etc/hostname", filepath.Join(dir, "escape.pdf")),
		syscall.Mkfifo(filepath.Join(dir, "fifo.pdf"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPlanOfOddInputs(t *testing.T) {
	t.Setenv("QUIRE_CACHE", t.TempDir())
	dir := oddTree(t)
	code, stdout, stderr := call(t, "plan", dir)
	for _, want := range []string{
		"documents: 8,", "; 6 cannot be opened: 2 empty, 2 unreadable, 1 not_pdf, 1 not_regular\n",
		"\n  fifo.pdf: not_regular: ", "\n  broken.pdf: unreadable: ", "\n  sub/empty.pdf: empty: ", "\n  text.pdf: not_pdf: ",
		"counted in all 2 documents\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
	if code != exitSomeFailed || stderr != "" {
		t.Errorf("code %d, %q; want 3", code, stderr)
	}

	code, stdout, _ = call(t, "plan", dir, "--json")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	unreadable := map[string]string{}
	for i, line := range lines {
		var m struct {
			MessageType string `json:"message_type"`
			Path        string
			Category    string
			Documents   int
			Unreadable  map[string]int
			Pages       struct {
				Estimate int
				Exact    bool
			}
		}
		unmarshal(t, line, &m)
		if i < len(lines)-1 {
			unreadable[m.Path] = m.MessageType + " " + m.Category
		} else if m.MessageType != "plan" || m.Documents != 8 || m.Unreadable["empty"] != 2 || !m.Pages.Exact || m.Pages.Estimate != 2 {
			t.Errorf("last line: %s", line)
		}
	}
	want := map[string]string{
		"bad name %FF.pdf": "unreadable empty", "broken.pdf": "unreadable unreadable", "escape.pdf": "unreadable unreadable",
		"fifo.pdf": "unreadable not_regular", "sub/empty.pdf": "unreadable empty", "text.pdf": "unreadable not_pdf",
	}
	if fmt.Sprint(unreadable) != fmt.Sprint(want) || code != exitSomeFailed {
		t.Errorf("code %d, %v; want %v", code, unreadable, want)
	}

	code, stdout, _ = call(t, "plan", dir, "--exclude", "sub", "--include", "g*.pdf")
	if code != exitDone || !strings.Contains(stdout, "documents: 1,") {
		t.Errorf("with patterns: code %d\n%s", code, stdout)
	}

	write(t, "%PDF-1.7\n", dir, "torn.pdf")
	if _, stdout, _ = call(t, "plan", dir); !strings.Contains(stdout, "pages: 2, counted in the 2 of 3 documents that open\n") {
		t.Errorf("with one that does not open:\n%s", stdout)
	}
}

func TestPlanListIsBounded(t *testing.T) {
	t.Setenv("QUIRE_CACHE", t.TempDir())
	dir := t.TempDir()
	for i := range unreadableNames + 5 {
		write(t, "", dir, fmt.Sprintf("%02d.pdf", i))
	}
	code, stdout, _ := call(t, "plan", dir)
	if code != exitSomeFailed || strings.Count(stdout, ".pdf: empty: ") != unreadableNames || !strings.Contains(stdout, "\n  and 5 more: --json lists all\n") {
		t.Errorf("code %d\n%s", code, stdout)
	}
	_, stdout, _ = call(t, "plan", dir, "--json")
	if n := strings.Count(stdout, `"unreadable","path"`); n != unreadableNames+5 {
		t.Errorf("%d lines for %d documents", n, unreadableNames+5)
	}
}

func TestPlanUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"plan"}, "no input"},
		{[]string{"plan", t.TempDir()}, "no PDF found"},
		{[]string{"plan", "../../examples", "--sample", "0"}, "at least 1"},
		{[]string{"plan", "../../examples", "--sample-time", "0s"}, "above 0"},
		{[]string{"plan", "../../examples", "--triton", "a:1", "--model-repository", "r"}, "contradict"},
		{[]string{"plan", "../../examples", "--password-file", "none"}, "none"},
	} {
		code, stdout, stderr := call(t, c.args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: code %d, %q; want code 5 and one line with %q", c.args, code, stderr, c.says)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 99_400: "99.4 kB", 123_456: "123 kB", 5_500_000_000: "5.5 GB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestPlanText: what is known is told, what is guessed as a guess, and what is not
// known as that.
func TestPlanText(t *testing.T) {
	rate := &plan.Rate{Where: "embedded", Model: "layout", ModelVersion: "1", Pages: 1000, Seconds: 50, ResultBytes: 2_000_000, Measured: time.Date(2026, 1, 2, 12, 0, 0, 0, time.Local)}
	exact := plan.Estimate{Pages: 100, Low: 100, High: 100, Opened: 10, Of: 10}
	guess := plan.Estimate{Pages: 6000, Low: 5000, High: 7000, Opened: 5, Of: 10}
	failed := guess
	failed.Failed, failed.MoreFailed = 2, 3
	unknown := plan.Estimate{Of: 10}
	const head, last = "documents: 10, 3.5 kB\n", ", at the 20.0 pages/s of the last run with this server (embedded, model layout version 1, 1000 pages, 2026-01-02)\n"
	for name, c := range map[string]struct {
		pages plan.Estimate
		rate  *plan.Rate
		free  *int64
		want  string
	}{
		"exact": {exact, rate, nil, head + "pages: 100, counted in all 10 documents\ntime: about 5s" + last + "disk: about 241 kB of results, at the last run's 2.0 kB a page and 4.1 kB a document\n"},
		"guess": {guess, rate, new(int64(5e9)), head + "pages: about 6000, likely 5000 to 7000, from 5 of 10 documents\ntime: about 5m00s, likely 4m10s to 5m50s" + last +
			"disk: about 12.0 MB of results, at the last run's 2.0 kB a page and 4.1 kB a document\nspace: 5.0 GB free at out\n"},
		"failed": {failed, nil, new(int64(5e6)), head + "pages: about 6000, likely 5000 to 7000, from 5 of 10 documents (2 of them did not open; about 3 of the rest will not)\n" +
			"time: not known: no rate measured yet with this server (embedded): run once\ndisk: about 9.0 MB of results, at a usual 1.5 kB a page and 4.1 kB a document\n" +
			"space: 5.0 MB free at out, too little: free some, or name another directory with -o\n"},
		"unknown": {unknown, rate, new(int64(5)), head + "pages: not known: none of 10 documents was opened in time, see --sample-time\ntime: not known" + last + "space: 5 bytes free at out\n"},
	} {
		f := plan.Forecast{Inputs: plan.Inputs{Documents: 10, Bytes: 3456, Pages: c.pages}, Rate: c.rate, Where: "embedded", Output: "out", Free: c.free}
		var got strings.Builder
		if err := printPlan(&got, f, nil); err != nil || got.String() != c.want {
			t.Errorf("%s: %v, got\n%swant\n%s", name, err, got.String(), c.want)
		}
	}
}

func TestPlanEvents(t *testing.T) {
	line := func(event any) (m map[string]any) {
		t.Helper()
		data, err := json.Marshal(event)
		if err == nil {
			err = json.Unmarshal(data, &m)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		return m
	}
	m := line(unreadableOf(&orchestrator.PageError{
		Ref: orchestrator.PageRef{Path: "50%/\xff\n.pdf"}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryEmpty, Message: "the file is empty",
	}))
	for k, want := range map[string]any{
		"message_type": "unreadable", "path": "50%25/%FF\n.pdf", "path_encoding": "percent",
		"stage": "open", "category": "empty", "message": "the file is empty",
	} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}

	rate := plan.Rate{Where: "embedded", Host: "here", Model: "layout", ModelVersion: "1", Pages: 1000, Seconds: 50, ResultDocuments: 10, ResultBytes: 1_000_000}
	m = line(planEventOf(plan.Forecast{
		Inputs: plan.Inputs{
			Documents: 12, Bytes: 3456, Unreadable: map[orchestrator.Category]int64{orchestrator.CategoryEmpty: 2},
			Pages: plan.Estimate{Pages: 100, Low: 80, High: 120, Opened: 5, Of: 10, Failed: 1, MoreFailed: 1},
		},
		Rate: &rate, Where: "embedded", Output: "out", Free: new(int64(5e9)),
	}))
	pages, seconds, disk := m["pages"].(map[string]any), m["seconds"].(map[string]any), m["disk"].(map[string]any)
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"message_type", m["message_type"], "plan"},
		{"documents", m["documents"], 12.0},
		{"unreadable", m["unreadable"].(map[string]any)["empty"], 2.0},
		{"pages", pages["estimate"], 100.0},
		{"exact", pages["exact"], false},
		{"opened", pages["documents_opened"], 5.0},
		{"more", pages["more_unreadable_estimate"], 1.0},
		{"seconds", seconds["estimate"], 5.0},
		{"high", seconds["high"], 6.0},
		{"bytes", disk["bytes"], 100_000.0 + 12*4096},
		{"measured", disk["measured"], true},
		{"free", disk["free_bytes"], 5e9},
		{"fits", disk["fits"], true},
		{"output", disk["output"], "out"},
		{"rate", m["rate"].(map[string]any)["pages_per_second"], 20.0},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}

	m = line(planEventOf(plan.Forecast{Inputs: plan.Inputs{Documents: 1, Pages: plan.Estimate{Of: 1}}, Rate: &rate}))
	if m["rate"] == nil || m["seconds"] != nil {
		t.Errorf("a time for pages that nobody knows: %v", m)
	}
	m = line(planEventOf(plan.Forecast{Inputs: plan.Inputs{Documents: 1, Pages: plan.Estimate{Of: 1}}}))
	if m["rate"] != nil || m["seconds"] != nil || m["pages"].(map[string]any)["estimate"] != nil || m["disk"].(map[string]any)["output"] != nil {
		t.Errorf("what is not known is not null: %v", m)
	}
}
