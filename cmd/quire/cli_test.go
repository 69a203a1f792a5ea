package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quire/orchestrator"
)

// call runs the program in this process.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	code = execute(ctx, append([]string{"quire"}, args...), &out, &errs, stops{})
	return code, out.String(), errs.String()
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.pdf"), []byte("%PDF"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"run"}, "no input"},
		{[]string{"run", dir}, "-o OUT"},
		{[]string{"run", empty, "-o", "x"}, "no PDF found"},
		{[]string{"run", filepath.Join(dir, "missing"), "-o", "x"}, "missing"},
		{[]string{"run", dir, "-o", "x", "--workers", "0"}, "at least 1"},
		{[]string{"run", dir, "-o", "x", "--batch", "many"}, "batch"},
		{[]string{"run", dir, "-o", "x", "--max-age", "-1s"}, "must not be negative"},
		{[]string{"run", dir, "-o", "x", "--threshold", "1.5"}, "below 1"},
		{[]string{"run", dir, "-o", "x", "--page-timeout", "0s"}, "above 0"},
		{[]string{"run", dir, "-o", "x", "--log-level", "loud"}, "debug, info, warn"},
		{[]string{"run", dir, "-o", "x", "--no-such-flag"}, "no-such-flag"},
		{[]string{"run", dir, "-o", "x", "--password-file", filepath.Join(dir, "none")}, "none"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--model-repository", "r"}, "contradict"},
		{[]string{"ran"}, `no command "ran"`},
	} {
		code, _, stderr := call(t, c.args...)
		if code != exitUsage || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: code %d, %q; want code 5 and one line with %q", c.args, code, stderr, c.says)
		}
	}
}

func TestFlagsMayFollowArguments(t *testing.T) {
	app := newApp(stops{})
	got := flagsFirst(app, []string{"quire", "run", "in", "-o", "out", "--include=*.x", "more", "--batch", "4", "--", "-odd.pdf"})
	want := []string{"quire", "run", "-o", "out", "--include=*.x", "--batch", "4", "--", "in", "more", "-odd.pdf"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestHelpTellsDefaultsVariablesAndExitCodes(t *testing.T) {
	code, stdout, _ := call(t, "run", "--help")
	for _, want := range []string{"--in-flight", "QUIRE_IN_FLIGHT", "default: 30s", "130 interrupted", "start one on the CPU"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("help (code %d) does not say %q:\n%s", code, want, stdout)
		}
	}
	for _, cmd := range newApp(stops{}).Commands {
		for _, f := range cmd.Flags {
			if !strings.Contains(f.String(), "$QUIRE_") {
				t.Errorf("%s: flag without an environment variable: %s", cmd.Name, f)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := call(t, "version")
	if code != 0 || !strings.HasPrefix(stdout, "quire "+version) {
		t.Errorf("code %d, %q", code, stdout)
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.pdf"), []byte("%PDF"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Port 1 on loopback: nothing listens there.
	code, _, stderr := call(t, "run", dir, "-o", filepath.Join(dir, "out"), "--triton", "127.0.0.1:1")
	if code != exitServer || !strings.Contains(stderr, "127.0.0.1:1") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("code %d, %q", code, stderr)
	}
}

func TestLastLineAddsUp(t *testing.T) {
	s := orchestrator.Summary{
		Documents: orchestrator.Counts{Done: 7, Partial: 1, Failed: 2},
		Pages:     orchestrator.Counts{Done: 100, Failed: 5}, Elapsed: 10 * time.Second,
	}
	want := "documents: 10 = 7 done + 1 partial + 2 failed + 0 skipped; pages: 105 = 100 done + 5 failed + 0 skipped + 0 cancelled; 10s, 10.5 pages/s; results in out"
	if got := lastLine(s, "out"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
