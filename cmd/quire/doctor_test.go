package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"quire/orchestrator/doctor"
	"quire/tritonclient/tritontest"
)

// finding and summary are the lines of --json, whole.
type finding struct {
	MessageType string `json:"message_type"`
	doctor.Finding
}

type summary struct {
	MessageType string `json:"message_type"`
	OK          int    `json:"ok"`
	Warn        int    `json:"warn"`
	Fail        int    `json:"fail"`
	ExitCode    int    `json:"exit_code"`
}

// examined runs quire doctor --json, checks each line against the schema, and
// returns the findings by check.
func examined(t *testing.T, wantCode int, args ...string) map[string]finding {
	t.Helper()
	code, stdout, stderr := call(t, append([]string{"doctor", "--json"}, args...)...)
	if code != wantCode {
		t.Errorf("code %d, want %d\n%s%s", code, wantCode, stdout, stderr)
	}
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	findings, count := map[string]finding{}, map[doctor.Status]int{}
	for _, line := range lines[:len(lines)-1] {
		var f finding
		strict(t, line, &f)
		if f.MessageType != "finding" || f.Text == "" || !regexp.MustCompile(`^[a-z_]+$`).MatchString(f.Check) {
			t.Errorf("line %s", line)
		}
		if f.Status == doctor.Fail && f.Remedy == "" {
			t.Errorf("no remedy: %s", line)
		}
		count[f.Status]++
		findings[f.Check] = f
	}
	var got summary
	strict(t, lines[len(lines)-1], &got)
	want := summary{"summary", count[doctor.OK], count[doctor.Warn], count[doctor.Fail], code}
	if got != want || want.OK+want.Warn+want.Fail != len(lines)-1 {
		t.Errorf("summary %+v, want %+v of %d lines", got, want, len(lines))
	}
	return findings
}

// strict reads JSON that must not hold more than v has.
func strict(t *testing.T, line string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("%s: more than one value", line)
	}
}

func wantFinding(t *testing.T, f finding, status doctor.Status, text, remedy string) {
	t.Helper()
	if f.Status != status || !strings.Contains(f.Text, text) || !strings.Contains(f.Remedy, remedy) {
		t.Errorf("%+v; want %s with %q and remedy %q", f, status, text, remedy)
	}
}

// fakePython puts a python3 on an otherwise empty PATH, which answers like a
// whole interpreter of a version.
func fakePython(t *testing.T, version string) {
	t.Helper()
	dir := t.TempDir()
	answer := `{"Version":"` + version + `","Implementation":"cpython","Executable":"/usr/bin/python3","Machine":"x86_64",` +
		`"Libc":"glibc 2.36","Venv":true,"Ensure":true,"Libpython":"/usr/lib/libpython3.so","Prefix":"/usr"}`
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte("#!/bin/sh\nprintf '%s' '"+answer+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("QUIRE_PYTHON", filepath.Join(dir, "python3"))
}

func TestDoctorPython(t *testing.T) {
	t.Setenv("QUIRE_CACHE", t.TempDir())
	fakePython(t, "3.9.2")
	got := examined(t, exitFailed)
	wantFinding(t, got["python"], doctor.Fail, "Python 3.9.2", "QUIRE_PYTHON")
	if _, ok := got["cache"]; ok {
		t.Error("went on without Python")
	}

	t.Setenv("QUIRE_PYTHON", "no-such-python")
	wantFinding(t, examined(t, exitFailed)["python"], doctor.Fail, "no-such-python", "--triton ADDR")
}

// Where nothing is installed that is said, and it stays so.
func TestDoctorInstallsNothing(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	t.Setenv("QUIRE_CACHE", cache)
	fakePython(t, "3.12.1")
	got := examined(t, exitDone)
	wantFinding(t, got["python"], doctor.OK, "3.12.1", "")
	wantFinding(t, got["cache"], doctor.OK, cache, "")
	wantFinding(t, got["embedded_server"], doctor.Warn, "not installed", "quire doctor --install")
	if _, err := os.Stat(cache); !os.IsNotExist(err) {
		t.Errorf("the cache directory was made: %v", err)
	}

	t.Setenv("QUIRE_CACHE", "/proc/self/nowhere")
	wantFinding(t, examined(t, exitFailed)["cache"], doctor.Fail, "/proc/self", "QUIRE_CACHE")

	t.Setenv("QUIRE_CACHE", "/tmp/my cache")
	wantFinding(t, examined(t, exitFailed)["cache"], doctor.Fail, "/tmp/my cache", "QUIRE_CACHE")
}

func TestDoctorServerThatIsNotThere(t *testing.T) {
	got := examined(t, exitServer, "--triton", "127.0.0.1:1")
	wantFinding(t, got["server"], doctor.Fail, "127.0.0.1:1", "8001")
	if _, ok := got["python"]; ok {
		t.Error("looked for Python, which a running server does not need")
	}
	wantFinding(t, examined(t, exitServer, "--triton", "a b\x00:x")["server"], doctor.Fail, "", "HOST:8001")
}

func TestDoctorServer(t *testing.T) {
	good := tritontest.Start(t, tritontest.Config{})
	without := tritontest.Start(t, tritontest.Config{NoSharedMemory: true})

	got := examined(t, exitDone, "--triton", good.Addr())
	wantFinding(t, got["server"], doctor.OK, good.Addr(), "")
	wantFinding(t, got["model"], doctor.OK, "pages of 608×800 pixels, batches up to 4, 1 instances, 10 classes", "")
	wantFinding(t, got["transport"], doctor.OK, "shared memory", "")
	wantFinding(t, got["sandbox"], doctor.OK, " and seccomp", "")
	// (1 instance + 1 + 1) requests of 4 pages of 1.46 MB.
	wantFinding(t, got["shared_memory"], doctor.OK, "17 MB wanted", "")

	got = examined(t, exitDone, "--triton", good.Addr()+", "+without.Addr())
	wantFinding(t, got["transport"], doctor.Warn, "gRPC messages to "+without.Addr(), "--allow-client-shm=true")
}

func TestDoctorModel(t *testing.T) {
	odd := tritontest.Layout(800, 608, 4)
	odd.Config.Input[0].Dims = []int64{3, 800, 608}
	server := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{odd}})
	got := examined(t, exitServer, "--triton", server.Addr())
	wantFinding(t, got["server"], doctor.OK, server.Addr(), "")
	wantFinding(t, got["model"], doctor.Fail, "[3,800,608]", "--load-model=layout")

	server.SetReady("layout", false)
	wantFinding(t, examined(t, exitServer, "--triton", server.Addr())["model"], doctor.Fail, "not ready", "--load-model=layout")

	other := tritontest.Layout(800, 608, 4)
	other.Name = "other"
	server = tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{other}})
	wantFinding(t, examined(t, exitServer, "--triton", server.Addr())["model"], doctor.Fail, "which has other", "--load-model=layout")
}

// What run says of several servers is what doctor does: one that works is enough,
// and each is asked for the version of the first.
func TestDoctorServers(t *testing.T) {
	good := tritontest.Start(t, tritontest.Config{})
	for _, list := range []string{"127.0.0.1:1," + good.Addr(), good.Addr() + ",127.0.0.1:1"} {
		wantFinding(t, examined(t, exitDone, "--triton", list)["server"], doctor.Warn, "127.0.0.1:1", "8001")
	}
	unloaded := tritontest.Start(t, tritontest.Config{})
	unloaded.SetReady("layout", false)
	wantFinding(t, examined(t, exitDone, "--triton", good.Addr()+","+unloaded.Addr())["model"], doctor.Warn, "not ready at "+unloaded.Addr(), "--load-model=layout")
	wantFinding(t, examined(t, exitServer, "--triton", unloaded.Addr()+",127.0.0.1:1")["server"], doctor.Fail, "127.0.0.1:1", "8001")

	// (2 + 2 + 1) requests of the smaller batch, 2 pages of 1.46 MB, as a run has them.
	small := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(800, 608, 2)}})
	wantFinding(t, examined(t, exitDone, "--triton", good.Addr()+","+small.Addr())["shared_memory"], doctor.OK, ", 14 MB wanted", "")

	newer := tritontest.Layout(800, 608, 4)
	newer.Version = "2"
	alone := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{newer}})
	wantFinding(t, examined(t, exitServer, "--triton", good.Addr()+","+alone.Addr())["same_model"], doctor.Fail, "model version (2, there 1)", "one model_repository")
	newer.Older = []string{"1"}
	both := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{newer}})
	got := examined(t, exitDone, "--triton", good.Addr()+","+both.Addr())
	wantFinding(t, got["model"], doctor.OK, "layout version 1", "")
	if f, ok := got["same_model"]; ok {
		t.Errorf("%+v", f)
	}
}

// A server that is there and turns this client away is not to be started.
func TestDoctorConnection(t *testing.T) {
	ca, other := tritontest.NewAuthority(t), tritontest.NewAuthority(t)
	file := write(t, string(other.PEM), t.TempDir(), "other.pem")
	secure := tritontest.Start(t, tritontest.Config{TLS: ca.ServerTLS(false, "triton.test")})
	// What a server that wants TLS may look like as well, by timing alone.
	resets, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resets.Close() })
	go func() {
		for {
			conn, err := resets.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1))
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	plain := tritontest.Start(t, tritontest.Config{})
	restricted := tritontest.Start(t, tritontest.Config{RestrictedKey: "team", RestrictedValue: "secret"})
	for _, c := range []struct {
		args         []string
		text, remedy string
	}{
		{[]string{secure.Addr(), "--tls-ca", file}, "x509:", "--tls-ca FILE"},
		{[]string{secure.Addr()}, "does it want TLS (--tls)", "--tls, or --tls-cert"},
		{[]string{resets.Addr().String()}, "does it want TLS (--tls)", "--tls, or --tls-cert"},
		{[]string{plain.Addr(), "--tls"}, "speaks without TLS", "leave --tls"},
	} {
		wantFinding(t, examined(t, exitServer, append([]string{"--triton"}, c.args...)...)["server"], doctor.Fail, c.text, c.remedy)
	}
	wantFinding(t, examined(t, exitServer, "--triton", restricted.Addr())["model"], doctor.Fail, "restricted", "--triton-header")
}

// The server that quire starts, for real.
func TestDoctorEmbedded(t *testing.T) {
	// Whoever comes first installs and builds, which has no deadline of a call.
	var out, errs bytes.Buffer
	if code := execute(t.Context(), []string{"quire", "doctor", "--install", "--model-repository", repository}, &out, &errs, stops{}); code != exitDone {
		t.Fatalf("code %d\n%s%s", code, out.String(), errs.String())
	}
	got := examined(t, exitDone, "--model-repository", repository)
	wantFinding(t, got["embedded_server"], doctor.OK, "installed in", "")
	wantFinding(t, got["server"], doctor.OK, "started by quire", "")
	wantFinding(t, got["model"], doctor.OK, "layout version 1", "")
	wantFinding(t, got["transport"], doctor.OK, "shared memory", "")
	// 24 MB of the server's, and (1 instance + 1 + 1) requests of 8 pages of 1.46 MB:
	// what Docker gives is enough, as it is for a run.
	wantFinding(t, got["shared_memory"], doctor.OK, " free, 57 MB wanted", "")

	wantFinding(t, examined(t, exitServer, "--model-repository", t.TempDir())["model"], doctor.Fail, "config.pbtxt", "--model-repository")
}

func TestDoctorUsage(t *testing.T) {
	for _, args := range [][]string{{"dir"}, {"--triton", "a:1", "--install"}, {"--triton", "a:1", "--model-repository", "r"}, {"--nothing"}} {
		if code, _, stderr := call(t, append([]string{"doctor"}, args...)...); code != exitUsage || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: code %d, %q", args, code, stderr)
		}
	}
}

// People get the same in words, and the remedy below what is wrong.
func TestDoctorText(t *testing.T) {
	code, stdout, _ := call(t, "doctor", "--triton", "127.0.0.1:1")
	lines := strings.Split(stdout, "\n")
	if code != exitServer || !strings.HasPrefix(lines[0], "fail  server") || !strings.Contains(lines[1], "-> start Triton there") ||
		!strings.Contains(stdout, "quire run would not work: ") {
		t.Errorf("code %d\n%s", code, stdout)
	}
}

func TestDoctorInterrupted(t *testing.T) {
	server := tritontest.Start(t, tritontest.Config{})
	stop := make(chan struct{})
	var once sync.Once
	server.Script(func(*tritontest.Call) tritontest.Fault {
		once.Do(func() { close(stop) })
		return tritontest.Fault{Hang: true}
	})
	var out, errs bytes.Buffer
	code := execute(t.Context(), []string{"quire", "doctor", "--triton", server.Addr()}, &out, &errs, stops{soft: stop})
	if code != exitInterrupted || strings.Contains(out.String(), "fail") || errs.String() != "quire: interrupted\n" {
		t.Errorf("code %d\n%s%s", code, out.String(), errs.String())
	}
}
