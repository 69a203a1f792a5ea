package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quire/orchestrator/tune"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
	"quire/tritonclient/inferencepb"
)

// slowRepository is a model repository whose model behaves like a GPU, with a
// config made bad by hand. It returns the directory and the config's file.
func slowRepository(t *testing.T, g *guard.Guard) (dir, config string) {
	t.Helper()
	like, err := embedded.BenchRepository(embedded.Options{Guard: g}, 30*time.Millisecond, 500*time.Microsecond)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(like)); err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(dir, "layout", "configs", "cpu.pbtxt")
	text := read(t, config)
	text = strings.ReplaceAll(text, "max_batch_size: 16", "max_batch_size: 1  # by hand")
	text = strings.ReplaceAll(text, "dynamic_batching { }", "dynamic_batching {\n  # far too long\n  max_queue_delay_microseconds: 200000\n}")
	if !strings.Contains(text, "by hand") || !strings.Contains(text, "far too long") {
		t.Fatalf("%s is not as it was", config)
	}
	write(t, text, config)
	return dir, config
}

func servedConfig(t *testing.T, c *tritonclient.Client) *inferencepb.ModelConfig {
	t.Helper()
	config, err := c.ModelConfig(t.Context(), "layout", "")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestTune runs the program on a server that is not its own: interrupted and
// killed, it leaves no trace, with the help of doctor or of the next one; at its
// end the server serves what it did before, or the file that was written.
func TestTune(t *testing.T) {
	g := startedGuard(t)
	dir, config := slowRepository(t, g)
	server, err := embedded.Start(t.Context(), embedded.Config{Options: embedded.Options{Guard: g}, ModelRepository: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	client := connected(t, server.Addr())
	before, file := servedConfig(t, client), read(t, config)
	args := []string{"tune", examples, "--triton", server.Addr(), "--model-repository", dir, "--config-name", "cpu", "--budget", "10s", "--server-only"}
	onTrial := func() *tune.Leftover {
		t.Helper()
		l, err := tune.Find(t.Context(), client, "layout")
		if err != nil || l == nil {
			t.Fatalf("found %+v, %v", l, err)
		}
		return l
	}
	unchanged := func() {
		t.Helper()
		if now := servedConfig(t, client); !proto.Equal(now, before) {
			t.Errorf("served: %v\nbefore: %v", now, before)
		}
		if now := read(t, config); now != file {
			t.Errorf("the file is now\n%s", now)
		}
	}

	t.Run("interrupted", func(t *testing.T) {
		p := start(t, nil, args...)
		p.until("measuring 3 ")
		if !onTrial().Alive {
			t.Error("it is at work, and the note does not say so")
		}
		// Another one keeps off, and doctor too.
		if code, _, stderr := call(t, args...); code != exitServer || !strings.Contains(stderr, "another quire tune is at work") {
			t.Errorf("a second one: code %d, %s", code, stderr)
		}
		if _, stdout, _ := call(t, "doctor", "--triton", server.Addr()); !strings.Contains(stdout, "is at work on the model") {
			t.Errorf("doctor says\n%s", stdout)
		}
		gone := p.leavesNothing()
		p.signal(syscall.SIGINT)
		if code := p.wait(); code != exitInterrupted || !strings.HasSuffix(p.said(), "quire: interrupted: nothing is proposed, and the server is what it was") {
			t.Errorf("code %d\n%s", code, p.said())
		}
		gone()
		unchanged()
	})
	t.Run("interrupted twice", func(t *testing.T) {
		p := start(t, nil, args...)
		p.until("measuring 3 ")
		if err := server.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		p.signal(syscall.SIGINT)
		p.until("putting the server back")
		p.signal(syscall.SIGINT)
		code, said := p.wait(), p.said()
		if err := server.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(said, "\n")
		if last := lines[len(lines)-1]; code != exitInterrupted || !strings.HasPrefix(last, "quire: interrupted: the server is not back to what it was: ") ||
			!strings.HasSuffix(last, "quire doctor --triton "+server.Addr()+" puts it back") {
			t.Errorf("code %d\n%s", code, said)
		}
		if code, stdout, _ := call(t, "doctor", "--triton", server.Addr()); code != exitDone || !strings.Contains(stdout, "had left the model on trial settings") {
			t.Errorf("doctor: code %d,\n%s", code, stdout)
		}
		unchanged()
	})
	t.Run("killed", func(t *testing.T) {
		p := start(t, nil, args...)
		p.until("measuring 3 ")
		gone := p.leavesNothing()
		p.signal(syscall.SIGKILL)
		p.wait()
		gone()
		if onTrial().Alive {
			t.Error("it is dead, and the note does not say so")
		}
		if code, stdout, _ := call(t, "doctor", "--triton", server.Addr()); code != exitDone || !strings.Contains(stdout, "had left the model on trial settings") {
			t.Errorf("doctor: code %d,\n%s", code, stdout)
		}
		unchanged()
	})
	t.Run("killed, and another one where nothing can be written", func(t *testing.T) {
		p := start(t, nil, args...)
		p.until("measuring 3 ")
		p.signal(syscall.SIGKILL)
		p.wait()
		if onTrial().Alive {
			t.Error("it is dead, and the note does not say so")
		}
		if err := os.Chmod(config, 0o444); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := call(t, append(args, "--budget", "30s", "--write")...) // also where others compute
		if err := os.Chmod(config, 0o644); err != nil {
			t.Fatal(err)
		}
		if code != exitFailed || !strings.Contains(stderr, "had left model layout on trial settings") || !strings.Contains(stderr, "make the change where the repository is kept") ||
			!strings.Contains(stdout, "-max_batch_size: 1  # by hand") {
			t.Errorf("code %d\n%s\n%s", code, stdout, stderr)
		}
		unchanged()
	})
	t.Run("another repository", func(t *testing.T) {
		code, _, stderr := call(t, append(args, "--model-repository", t.TempDir())...)
		if code != exitUsage || !strings.Contains(stderr, "the config to change") || strings.Contains(stderr, "give that name with --config-name") {
			t.Errorf("code %d, %s", code, stderr)
		}
		unchanged()
	})
	t.Run("another config", func(t *testing.T) {
		other := t.TempDir()
		withoutName := append(slices.Clone(args), "--model-repository", other, "--config-name", "")
		says := func(want string) {
			t.Helper()
			if code, _, stderr := call(t, withoutName...); code != exitUsage || !strings.Contains(stderr, want) || !strings.Contains(stderr, "give that name with --config-name") {
				t.Errorf("code %d, %s", code, stderr)
			}
		}
		says("the config to change")
		if err := os.Mkdir(filepath.Join(other, "layout"), 0o755); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(file, "max_batch_size: 1 ", "max_batch_size: 8 ")
		write(t, text, other, "layout", "config.pbtxt")
		says("says max_batch_size 8, and the server serves with 1")
		unchanged()
	})
	t.Run("written", func(t *testing.T) {
		page := filepath.Join(t.TempDir(), "tune.html")
		code, stdout, stderr := call(t, append(args, "--budget", "30s", "--write", "--json", "--html", page)...) // also where others compute
		var report struct {
			Schema, Verdict string
			Local           bool `json:"server_on_this_machine"`
			Start, Chosen   struct {
				MaxBatch int `json:"max_batch_size"`
			}
		}
		if err := json.Unmarshal([]byte(stdout), &report); code != exitDone || err != nil || report.Schema != "quire-tune/1" || !report.Local {
			t.Fatalf("code %d, %v\n%s\n%s", code, err, stdout, stderr)
		}
		// 30.5 ms a page become a fraction of that.
		if report.Verdict != string(tune.VerdictChange) || report.Start.MaxBatch != 1 || report.Chosen.MaxBatch < 2 {
			t.Fatalf("%+v\n%s\n%s", report, stdout, stderr)
		}
		now := read(t, config)
		for _, want := range []string{"# by hand", "# far too long"} {
			if !strings.Contains(now, want) {
				t.Errorf("the comment %q is gone:\n%s", want, now)
			}
		}
		if got := int(servedConfig(t, client).GetMaxBatchSize()); got != report.Chosen.MaxBatch || strings.Contains(now, "max_batch_size: 1 ") {
			t.Errorf("chosen %d, served %d, file\n%s", report.Chosen.MaxBatch, got, now)
		}
		if !strings.Contains(stderr, "-max_batch_size: 1  # by hand") {
			t.Errorf("no diff in\n%s", stderr)
		}
		backups, err := filepath.Glob(filepath.Join(dir, "*.bak"))
		if err != nil || len(backups) != 1 || read(t, backups[0]) != file {
			t.Errorf("backups %v, %v", backups, err)
		}
		if html := read(t, page); !strings.Contains(html, "<svg") || strings.Contains(html, "src=") || strings.Contains(html, "href=\"http") {
			t.Errorf("the page has no picture, or wants the network:\n%.2000s", html)
		}
		if l, err := tune.Find(t.Context(), client, "layout"); err != nil || l != nil {
			t.Errorf("found %+v, %v", l, err)
		}
	})
}

// TestTuneOwnServer: without --triton a server is started, and without --write
// nothing is written.
func TestTuneOwnServer(t *testing.T) {
	g := startedGuard(t)
	dir, config := slowRepository(t, g)
	file := read(t, config)
	code, stdout, stderr := call(t, "tune", "--model-repository", dir, "--budget", "10s", "--fields", "max_batch,batch")
	if code != exitDone || !strings.Contains(stdout, "max_batch") || !strings.Contains(stdout, "pages/s") {
		t.Errorf("code %d\n%s\n%s", code, stdout, stderr)
	}
	if now := read(t, config); now != file {
		t.Errorf("the file is now\n%s", now)
	}
}

// TestHowLongTuneLasts: others do not take a search that tries everything for one
// that has ended.
func TestHowLongTuneLasts(t *testing.T) {
	cfg := tuneConfig{budget: time.Minute}
	if got := cfg.lasts(); got != time.Minute {
		t.Errorf("%v", got)
	}
	cfg.search.Exhaustive = true
	if got := cfg.lasts(); got != exhaustiveTime {
		t.Errorf("exhaustive: %v", got)
	}
}

func TestTuneUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--objective", "both"}, "throughput or latency"},
		{[]string{"--fields", "max_batch,colour"}, "colour"},
		{[]string{"--budget", "1s"}, "at least 10s"},
		{[]string{"--workers", "0"}, "at least 1"},
		{[]string{"--largest-batch", "0"}, "at least 1"},
		{[]string{"--max-p99", "0s"}, "above 0"},
		{[]string{"--max-gpu-mem", "0"}, "above 0"},
		{[]string{"--max-gpu-mem", "8"}, "metrics"},
		{[]string{"--triton", "h:1,i:1"}, "one server"},
		{[]string{"--triton", "h:1", "--write"}, "--model-repository"},
		{[]string{filepath.Join(t.TempDir(), "none")}, "none"},
	} {
		code, _, stderr := call(t, append([]string{"tune"}, c.args...)...)
		if code != exitUsage || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: code %d, %q; want code 5 and one line with %q", c.args, code, stderr, c.says)
		}
	}
}

// doctor can put back a trial, and not what somebody else has loaded over it.
func TestNotBack(t *testing.T) {
	replaced := notBack(fmt.Errorf("model m: %w", tune.ErrReplaced), "host:8001")
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, replaced.Error()},
		{errors.New("four windows cannot be used"), "four windows cannot be used; " + replaced.Error()},
		{serverError{fmt.Errorf("model m: %w", tune.ErrReplaced)}, replaced.Error()}, // said once
	} {
		// Behind an error that was told before and has no text.
		if got := errorLine("\n" + withLeft(c.err, replaced).Error()); got != c.want {
			t.Errorf("%v: %s", c.err, got)
		}
	}
	for _, c := range []struct {
		err    error
		doctor bool
	}{
		{fmt.Errorf("model m: %w", tune.ErrReplaced), false},
		{errors.New("connection refused"), true},
	} {
		err := notBack(c.err, "host:8001")
		if got := strings.Contains(err.Error(), "quire doctor --triton host:8001"); got != c.doctor || !errors.Is(err, c.err) || exitCode(err) != exitServer {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
