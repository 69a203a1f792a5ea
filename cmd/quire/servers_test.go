package main

import (
	"path/filepath"
	"strings"
	"testing"

	"quire/orchestrator"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/tritontest"
)

// A run on two servers says what each has done, to machines and to people; one on
// servers with different models does not start, and says where and in what they
// differ; doctor says so too.
func TestServersOfARun(t *testing.T) {
	a, b := tritontest.Start(t, tritontest.Config{}), tritontest.Start(t, tritontest.Config{NoSharedMemory: true})
	both := a.Addr() + "," + b.Addr()
	code, stdout, stderr := call(t, "run", root+"/examples", "-o", filepath.Join(t.TempDir(), "out"), "--triton", both, "--batch", "1", "--json")
	if code != exitDone {
		t.Fatalf("code %d: %s", code, stderr)
	}
	var start startEvent
	var summary summaryEvent
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	for line, into := range map[string]any{lines[0]: &start, lines[len(lines)-1]: &summary} {
		unmarshal(t, line, into)
	}
	if s := start.Servers; len(s) != 2 || start.Server != both || s[0].Server != a.Addr() || !*s[0].SharedMemory || s[1].Server != b.Addr() || *s[1].SharedMemory {
		t.Errorf("%s", lines[0])
	}
	pages := int64(0)
	for _, s := range summary.Servers {
		pages += *s.Pages
		if s.State != orchestrator.EndpointUp || *s.Pages == 0 || *s.InFlight != 0 || *s.Window != 2 {
			t.Errorf("%s", lines[len(lines)-1])
		}
	}
	if pages != summary.Pages.Done || len(summary.Servers) != 2 {
		t.Errorf("%s", lines[len(lines)-1])
	}
	code, _, stderr = call(t, "run", root+"/examples/slides.pdf", "-o", filepath.Join(t.TempDir(), "out"), "--triton", both)
	if code != exitDone || !strings.Contains(stderr, "in shared memory for 1 of 2 servers") || !strings.Contains(stderr, "servers: "+a.Addr()) {
		t.Errorf("code %d: %s", code, stderr)
	}

	other := tritontest.Layout(800, 608, 4)
	other.Config.Parameters["quire.score_threshold"] = &inferencepb.ModelParameter{StringValue: "0.7"}
	c := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{other}})
	for _, command := range [][]string{
		{"run", root + "/examples/slides.pdf", "-o", filepath.Join(t.TempDir(), "out"), "--triton", a.Addr() + "," + c.Addr()},
		{"doctor", "--triton", a.Addr() + "," + c.Addr()},
	} {
		code, stdout, stderr = call(t, command...)
		if said := stdout + stderr; code != exitServer || !strings.Contains(said, c.Addr()+" is not the one at "+a.Addr()+": score threshold (0.7, there 0.5)") {
			t.Errorf("code %d: %s", code, said)
		}
	}
}
