package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
	"quire/orchestrator/sink"
	"quire/tritonclient/tritontest"
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
	write(t, "%PDF", dir, "a.pdf")
	latin1 := write(t, "gr\xfcn\n", dir, "latin1.txt")
	empty := t.TempDir()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"run"}, "no input"},
		{[]string{"run", dir}, "-o OUT"},
		{[]string{"run", dir, "-o"}, "-o"},
		{[]string{"run", "help", "-o", "x"}, "help"},
		{[]string{"run", "", "-o", "x"}, "empty string"},
		{[]string{"run", dir, "-o", "x", "--password-file", latin1}, "not UTF-8"},
		{[]string{"run", dir, "-o", "x", "--threshold", "NaN"}, "below 1"},
		{[]string{"run", empty, "-o", "x"}, "no PDF found"},
		{[]string{"run", filepath.Join(dir, "missing"), "-o", "x"}, "missing"},
		{[]string{"run", dir, "-o", "x", "--workers", "0"}, "at least 1"},
		{[]string{"run", dir, "-o", "x", "--batch", "many"}, "batch"},
		{[]string{"run", dir, "-o", "x", "--in-flight", "9223372036854775807"}, "--in-flight 9223372036854775807: no machine"},
		{[]string{"run", dir, "-o", "x", "--max-age", "-1s"}, "must not be negative"},
		{[]string{"run", dir, "-o", "x", "--threshold", "1.5"}, "below 1"},
		{[]string{"run", dir, "-o", "x", "--page-timeout", "0s"}, "above 0"},
		{[]string{"run", dir, "-o", "x", "--log-level", "loud"}, "debug, info, warn"},
		{[]string{"run", dir, "-o", "x", "--no-such-flag"}, "no-such-flag"},
		{[]string{"run", dir, "-o", "x", "--password-file", filepath.Join(dir, "none")}, "none"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--model-repository", "r"}, "contradict"},
		{[]string{"run", dir, "-o", "x", "--model-repository", filepath.Join(dir, "none")}, "no such directory"},
		{[]string{"run", dir, "-o", "x", "--sandbox", "strict"}, "auto, require or off"},
		{[]string{"run", dir, "-o", "x", "--transport", "mail"}, "auto, shm or grpc"},
		{[]string{"run", dir, "-o", "x", "--server-wait", "0s"}, "above 0"},
		{[]string{"run", dir, "-o", "x", "--tls"}, "name it with --triton"},
		{[]string{"run", dir, "-o", "x", "--triton-header", "a=secret"}, "name it with --triton"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--triton-header", "=secret"}, "KEY=VALUE"},
		{[]string{"run", dir, "-o", "x", "--model-repository", latin1}, "no such directory"},
		{[]string{"run", dir, "-o", "x", "--fresh", "--retry-failed"}, "contradict"},
		{[]string{"run", dir, "-o", "x", "--disk-wait", "-1s"}, "must not be negative"},
		{[]string{"run", dir, "-o", "x", "--threshold", "1"}, "below 1"},
		{[]string{"run", dir, "-o", "x", "--threshold", "-0.1"}, "at least 0"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--tls-ca", filepath.Join(dir, "none")}, "none"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--tls-ca", filepath.Join(dir, "a.pdf")}, "--tls-ca: " + filepath.Join(dir, "a.pdf") + ": there is no PEM certificate"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--tls-ca", "/dev/null"}, "--tls-ca: /dev/null: there is no PEM certificate"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--tls-cert", "/dev/null", "--tls-key", "/dev/null"}, "--tls-key: /dev/null and /dev/null: "},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--tls-cert", "c"}, "go together"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--triton-header", "secret"}, "KEY=VALUE"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--triton-header", "A=1", "--triton-header", "a=2"}, "twice"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1", "--triton-header", "a b=secret"}, `header "a b"`},
		{[]string{"doctor", "--triton", "a:1", "--tls-key", "k"}, "go together"},
		{[]string{"bench", "--model", "huge"}, "layout, instant or gpu-like"},
		{[]string{"bench", "--model", "instant", "--triton", "a:1"}, "quire's own"},
		{[]string{"bench", "--triton", "a:1,b:1", dir}, "about one server"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1,b"}, "b: it is HOST:PORT"},
		{[]string{"run", dir, "-o", "x", "--triton", "a:1,a:1"}, "twice"},
		{[]string{"run", dir, "-o", "x", "--triton", "https://a:8001"}, "https://a:8001: it is HOST:PORT without a scheme"},
		{[]string{"doctor", "--triton", "dns:///a"}, "dns:///NAME:PORT"},
		{[]string{"stats", "--triton", "a:1,"}, "an address is missing"},
		{[]string{"bench", "--curve", dir}, "leave DIR out"},
		{[]string{"bench", "--perf-analyzer", filepath.Join(dir, "none")}, "none"},
		{[]string{"bench", "--repeat", "0"}, "at least 1"},
		{[]string{"bench", "--pages", "-1"}, "at least 1"},
		{[]string{"bench", "--min-time", "0s"}, "above 0"},
		{[]string{"bench", "--budget", "-1s"}, "must not be negative"},
		{[]string{"bench", empty}, "no PDF found"},
		{[]string{"bench", filepath.Join(dir, "missing")}, "missing"},
		{[]string{"stats"}, "add --triton"},
		{[]string{"stats", "--triton", "a:1,b:1", "--metrics", "http://a:2/metrics"}, "one for each"},
		{[]string{"stats", "--triton", "a:1", "--interval", "0s"}, "at least 10ms"},
		{[]string{"stats", "--triton", "a:1", "--count", "-1"}, "must not be negative"},
		{[]string{"stats", "--triton", "a:1", "b:1"}, "takes no arguments"},
		{[]string{"verify", empty}, "no PDF found"},
		{[]string{"verify", "--pages", "0"}, "at least 1"},
		{[]string{"verify", "--batch", "0"}, "at least 1"},
		{[]string{"verify", "--tolerance", "-1"}, "must not be negative"},
		{[]string{"verify", "--score-tolerance", "NaN"}, "must not be negative"},
		{[]string{"verify", "--tolerance", "Inf"}, "must be finite"},
		{[]string{"verify", "--score-tolerance", "1e999"}, "score-tolerance"},
		{[]string{"verify", "--score-tolerance", "+Inf"}, "must be finite"},
		{[]string{"ran"}, `no command "ran"`},
		{[]string{"help", "ran"}, "ran"},
	} {
		code, _, stderr := call(t, c.args...)
		if code != exitUsage || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: code %d, %q; want code 5 and one line with %q", c.args, code, stderr, c.says)
		}
		if strings.Contains(stderr, "secret") {
			t.Errorf("%v: %q tells a secret", c.args, stderr)
		}
	}
}

func TestPasswordFile(t *testing.T) {
	name := write(t, "\ufeffone\r\n\n two\nthree", t.TempDir(), "words")
	var in inputs
	app := &cli.App{Flags: inputFlags(), Action: func(c *cli.Context) (err error) {
		in, err = inputsFrom(c, nil)
		return err
	}}
	if err := app.Run([]string{"quire", "--password-file", name}); err != nil || !slices.Equal(in.passwords, []string{"one", " two", "three"}) {
		t.Errorf("%q, %v", in.passwords, err)
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

func TestHelp(t *testing.T) {
	code, stdout, _ := call(t, "run", "--help")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for line := range strings.Lines(stdout) {
		if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("wider than a terminal: %q", line)
		}
	}
	words := strings.Join(strings.Fields(stdout), " ")
	for _, want := range []string{"-o, --output DIR write results", "default: 30s", "default: warn", "default: start one on the CPU", exitCodesHelp} {
		if !strings.Contains(words, strings.Join(strings.Fields(want), " ")) {
			t.Errorf("the help does not say %q:\n%s", want, stdout)
		}
	}
	// What is there to be copied stands on a line of its own.
	if _, stdout, _ := call(t, "completion", "--help"); !strings.Contains(stdout, "\n     quire completion bash > ~/.local/share/bash-completion/completions/quire\n") {
		t.Errorf("a command that cannot be copied:\n%s", stdout)
	}
	// What has no default here is off, or required, or empty.
	noDefault := []string{"output", "exclude", "password-file", "triton-header"}
	for _, cmd := range newApp(stops{}).Commands {
		_, stdout, _ := call(t, cmd.Name, "--help")
		_, words, _ := strings.Cut(strings.Join(strings.Fields(stdout), " "), "OPTIONS: ")
		for _, f := range cmd.Flags {
			name := f.Names()[0]
			_, isSwitch := f.(*cli.BoolFlag)
			variable := "QUIRE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			_, entry, _ := strings.Cut(words, "--"+name+" ")
			entry, _, _ = strings.Cut(entry, "]")
			// A flag that means something else elsewhere has the command in its
			// variable's name.
			own := strings.Replace(variable, "QUIRE_", "QUIRE_"+strings.ToUpper(cmd.Name)+"_", 1)
			if !strings.HasSuffix(entry, "[$"+variable) && !strings.HasSuffix(entry, "[$"+own) {
				t.Errorf("--%s: no environment variable %s in %q", name, variable, entry)
			}
			none := isSwitch || slices.Contains(noDefault, name) || strings.Contains(entry, "(required)")
			if strings.Contains(entry, "(default: ") == none {
				t.Errorf("--%s: default missing, or unexpected, in %q", name, entry)
			}
		}
	}
	for _, args := range [][]string{{}, {"help"}, {"help", "run"}, {"version", "--help"}, {"run", "in", "-h"}} {
		if code, stdout, _ := call(t, args...); code != 0 || !strings.Contains(stdout, exitCodesHelp) {
			t.Errorf("%q: exit code %d, %s", args, code, stdout)
		}
	}
}

// TestRunConfig: what the flags become, where 0 and nothing said are not the same.
func TestRunConfig(t *testing.T) {
	dir := t.TempDir()
	file := write(t, "%PDF", dir, "a.scan")
	repository := filepath.Join(dir, "repository")
	if err := os.Mkdir(repository, 0o700); err != nil {
		t.Fatal(err)
	}
	const wait = 10 * time.Minute // as --help has it
	for _, c := range []struct {
		args      []string
		diskWait  time.Duration
		threshold float64
		other     bool // formats than PDF
		where     string
	}{
		{[]string{dir}, wait, 0, false, "embedded"},
		{[]string{"--disk-wait", "0s", "--threshold", "0", dir}, -1, -1, false, "embedded"},
		{[]string{"--disk-wait", "5s", "--threshold", "0.25", dir}, 5 * time.Second, 0.25, false, "embedded"},
		{[]string{"--include", "*.png", dir}, wait, 0, true, "embedded"},
		{[]string{"--exclude", "*.png", dir}, wait, 0, false, "embedded"},
		{[]string{dir, file}, wait, 0, true, "embedded"},
		{[]string{filepath.Join(dir, "missing")}, wait, 0, false, "embedded"},
		{[]string{"--triton", "a:1", dir}, wait, 0, false, "a:1"},
		{[]string{"--model-repository", repository, dir}, wait, 0, false, "embedded, " + repository},
		{[]string{"--fresh", dir}, wait, 0, false, "embedded"},
		{[]string{"--retry-failed", dir}, wait, 0, false, "embedded"},
	} {
		app := newApp(stops{})
		var cfg runConfig
		for _, command := range app.Commands {
			if command.Name == "run" {
				command.Action = func(c *cli.Context) (err error) {
					cfg, err = runConfigOf(c)
					return err
				}
			}
		}
		if err := app.Run(append([]string{"quire", "run", "-o", "x"}, c.args...)); err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		if cfg.diskWait != c.diskWait || cfg.threshold != c.threshold || cfg.otherFormats() != c.other || cfg.server.where() != c.where {
			t.Errorf("%q: wait %v, threshold %v, other formats %t, %s", c.args, cfg.diskWait, cfg.threshold, cfg.otherFormats(), cfg.server.where())
		}
	}
}

// A variable stands for its flag, and the flag wins.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.pdf", "b.PDF", "c.txt"} {
		write(t, "%PDF", dir, name)
	}
	for _, c := range []struct {
		name, value string
		args        []string
		says        string
	}{
		{"QUIRE_OUTPUT", filepath.Join(dir, "out"), []string{"--workers", "0"}, "--workers 0"},
		{"QUIRE_WORKERS", "0", []string{"-o", "x"}, "--workers 0"},
		{"QUIRE_WORKERS", "2", []string{"-o", "x", "--workers", "-3"}, "--workers -3"},
		{"QUIRE_BATCH", "few", []string{"-o", "x"}, "few"},
		{"QUIRE_IN_FLIGHT", "0", []string{"-o", "x"}, "--in-flight 0"},
		{"QUIRE_MAX_AGE", "-1s", []string{"-o", "x"}, "--max-age -1s"},
		{"QUIRE_PAGE_TIMEOUT", "0s", []string{"-o", "x"}, "--page-timeout 0s"},
		{"QUIRE_THRESHOLD", "7", []string{"-o", "x"}, "--threshold 7"},
		{"QUIRE_LOG_LEVEL", "loud", []string{"-o", "x"}, "--log-level loud"},
		{"QUIRE_PASSWORD_FILE", "/none", []string{"-o", "x"}, "/none"},
		{"QUIRE_MODEL_REPOSITORY", "/none", []string{"-o", "x"}, "--model-repository /none"},
		{"QUIRE_TRITON", "h:1", []string{"-o", "x", "--model-repository", dir}, "contradict"},
		{"QUIRE_INCLUDE", "*.{ps,eps}", []string{"-o", "x"}, "no PDF found"},
		{"QUIRE_EXCLUDE", "*.{pdf,PDF}", []string{"-o", "x"}, "no PDF found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.name, c.value)
			code, _, stderr := call(t, append([]string{"run", dir}, c.args...)...)
			if code != exitUsage || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, %q; want 5 and %q", code, stderr, c.says)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	for want, errs := range map[int][]error{
		exitDone:        {nil},
		exitFailed:      {errors.New("x"), context.Canceled, fmt.Errorf("x: %w", &exec.ExitError{}), usageError{syscall.EMFILE}, errors.Join(quietError{exitSomeFailed}, errors.New("x"))},
		exitSomeFailed:  {quietError{exitSomeFailed}},
		exitServer:      {serverError{errors.New("x")}, serverError{&exec.ExitError{}}, fmt.Errorf("x: %w", &orchestrator.ServerError{Message: "x"})},
		exitUsage:       {usageError{errors.New("x")}, cli.Exit("x", 3)},
		exitInterrupted: {orchestrator.ErrInterrupted, errors.Join(orchestrator.ErrInterrupted, errors.New("x")), serverError{orchestrator.ErrInterrupted}},
	} {
		for _, err := range errs {
			if got := exitCode(err); got != want {
				t.Errorf("%v: exit code %d, want %d", err, got, want)
			}
		}
	}
}

// Whatever could not be opened, it is told what helps.
func TestTooManyFiles(t *testing.T) {
	for errno, want := range map[error]string{syscall.EMFILE: "ulimit -n 4096", syscall.ENFILE: "fs.file-max"} {
		if err := withRemedy(nil, usageError{fmt.Errorf("input a: %w", errno)}); !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestNoScratchDirectory(t *testing.T) {
	t.Setenv("TMPDIR", "/proc/self/nowhere")
	for _, command := range []string{"bench", "tune", "verify"} {
		if code, _, stderr := call(t, command); code != exitFailed || !strings.Contains(stderr, "/proc/self/nowhere") || !strings.Contains(stderr, "TMPDIR") {
			t.Errorf("%s: code %d, %q", command, code, stderr)
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
	write(t, "%PDF", dir, "a.pdf")
	// Port 1 on loopback: nothing listens there.
	code, _, stderr := call(t, "run", dir, "-o", filepath.Join(dir, "out"), "--triton", "127.0.0.1:1")
	if code != exitServer || !strings.Contains(stderr, "127.0.0.1:1") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("code %d, %q", code, stderr)
	}
}

// More than a machine can hold is refused before anything is taken, with what
// helps; it is no wrong usage, since another machine could.
func TestNoRoomForBatches(t *testing.T) {
	dir := t.TempDir()
	write(t, "%PDF", dir, "a.pdf")
	server := tritontest.Start(t, tritontest.Config{})
	for transport, want := range map[string]string{
		"shm":  "quire: /dev/shm is too small for 2147483648 batches of .* are free: make /dev/shm larger \\(a container: --shm-size=1g\\), or send less at once with --batch and --in-flight, or use --transport grpc",
		"grpc": "quire: the memory is too small for 2147483648 batches of .* are free: send less at once with --batch and --in-flight",
	} {
		for _, args := range [][]string{{"run", dir, "-o", filepath.Join(dir, "out")}, {"bench", filepath.Join("..", "..", "examples")}} {
			code, _, stderr := call(t, append(args, "--triton", server.Addr(), "--transport", transport, "--in-flight", "2147483647")...)
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			if last := lines[len(lines)-1]; code != exitFailed || !regexp.MustCompile("^"+want+"$").MatchString(last) {
				t.Errorf("%s, %s: code %d, %q", args[0], transport, code, stderr)
			}
		}
	}
	code, _, stderr := call(t, "run", dir, "-o", filepath.Join(dir, "out"), "--triton", server.Addr(), "--batch", "64")
	if code != exitUsage || !strings.Contains(stderr, "max_batch_size") {
		t.Errorf("a batch that is too large: code %d, %q", code, stderr)
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
	s.Documents.Skipped, s.Pages.Skipped, s.Resumed = 5, 31, 5
	s.DocumentsBefore, s.PagesBefore = orchestrator.Counts{Done: 4, Partial: 1}, orchestrator.Counts{Done: 30, Failed: 1}
	s.Redone = map[orchestrator.Redone]int64{orchestrator.RedoneModel: 2, orchestrator.RedoneInput: 1}
	want = "documents: 15 = 7 done + 1 partial + 2 failed + 5 skipped; pages: 136 = 100 done + 5 failed + 31 skipped + 0 cancelled; " +
		"skipped: 4 done + 1 partial + 0 failed before, with pages: 30 done + 1 failed; resumed: 5 pages; redone: 1 changed + 2 another model; 10s, 10.0 pages/s; results in out"
	if got := lastLine(s, "out"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestVanishedLine(t *testing.T) {
	screen := &strings.Builder{}
	told := &text{screen: newScreen(screen)}
	for _, name := range []string{"a.pdf", "b.pdf", "c.pdf", "d.pdf", "e.pdf"} {
		told.vanished(name)
	}
	for _, c := range []struct {
		v     sink.Vanished
		names []string
		want  string
	}{
		{sink.Vanished{}, nil, ""},
		{sink.Vanished{Found: 1}, []string{"a.pdf"}, "1 result of a document that is not among the inputs: a.pdf; --prune removes them"},
		{sink.Vanished{Found: 3, Pruned: 3}, told.gone, "3 results of documents that are not among the inputs: a.pdf, b.pdf, c.pdf; 3 removed"},
		{sink.Vanished{Found: 5, Kept: "the inputs could not be listed"}, told.gone, "5 results of documents that are not among the inputs: a.pdf, b.pdf, c.pdf, …; not removed, since the inputs could not be listed"},
	} {
		if got := vanishedLine(c.v, c.names); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestServersLine(t *testing.T) {
	s := orchestrator.Stats{Endpoints: []orchestrator.EndpointStats{
		{Name: "a:1", State: orchestrator.EndpointUp, Pages: 12}, {Name: "b:1", State: orchestrator.EndpointAway, Pages: 1},
	}}
	if got, want := serversLine(s), "servers: a:1 12 pages, b:1 1 page (away)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRequestsLine(t *testing.T) {
	s := orchestrator.Stats{Sizes: []int64{0, 1, 0, 0, 9}, Sealed: map[string]int64{"size": 9, "age": 0, "idle": 1}}
	if got, want := requestsLine(s), "requests: 10, 3.7 pages on average (1 of 1, 9 of 4), sealed 1 by idle, 9 by size"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := requestsLine(orchestrator.Stats{}); got != "" {
		t.Errorf("a run without a request: %q", got)
	}
}
