package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"quire/tritonclient/inferencepb"
	"quire/tritonclient/tritontest"
)

// verifyJSON runs quire verify --json.
func verifyJSON(t *testing.T, wantCode int, args ...string) (v verified) {
	t.Helper()
	code, stdout, stderr := call(t, append([]string{"verify", "--json"}, args...)...)
	if code != wantCode || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("%q: code %d, wanted %d\n%s%s", args, code, wantCode, stdout, stderr)
	}
	unmarshal(t, stdout, &v)
	return v
}

// TestVerify asks the real server about the samples. Its answers depend on
// nothing, and are the reference pipeline's.
func TestVerify(t *testing.T) {
	v := verifyJSON(t, exitDone, "--model-repository", repository, "--pages", "6", "--batch", "3")
	if !v.Within || !v.SamplePages || v.Pages != 6 || v.Documents < 2 || v.Batch != 3 || v.Model != "layout" || v.Version != "1" || v.Server == "" || v.ServerVersion == "" {
		t.Errorf("%+v", v)
	}
	if len(v.Batches) != 4 {
		t.Fatalf("%+v", v.Batches)
	}
	for _, c := range v.Batches {
		if !c.Identical || c.Pages != 6 || c.Regions < 20 {
			t.Errorf("%+v", c)
		}
	}
	if r := v.Reference; r == nil || !r.Within || r.Pages != 6 || r.Regions < 20 || r.ShiftPixels > 0.1 || r.ScoreDrift > 0.001 || len(v.Source) != 64 {
		t.Errorf("reference: %+v", v.Reference)
	}
	if tr := v.Transport; tr.Compared != 6 || tr.Requests != 2 || tr.Different+tr.Unsteady != 0 {
		t.Errorf("transports: %+v", tr)
	}
}

// A server whose boxes depend on the size of the batch, and one that reads
// shared memory wrongly.
func TestVerifyTellsWhatIsWrong(t *testing.T) {
	good := tritontest.Layout(800, 608, 4)
	model := good
	model.Infer = func(pages []byte, n int) []tritontest.Output {
		out := good.Infer(pages, n)
		if n == 4 {
			// 160.0 for 128.0 and the like: a bit of the first edge.
			for i := range n {
				out[0].Raw[i*tritontest.Candidates*16+2] ^= 0x20
			}
		}
		return out
	}
	server := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{model}})
	pages := []string{filepath.Join(examples, "paper.pdf"), filepath.Join(examples, "slides.pdf")}
	args := append([]string{"--triton", server.Addr()}, pages...)
	v := verifyJSON(t, exitSomeFailed, args...)
	if v.SamplePages || v.Documents != 2 || v.Pages != 7 || v.Within || v.Transport.Different != 0 || v.Transport.Compared != 7 {
		t.Errorf("%+v", v)
	}
	for i, c := range v.Batches {
		// Each request alone is right: the fake does not merge them.
		if c.Within != (i == 3) || c.Identical != (i == 3) || i < 3 && c.ShiftPixels < 1 {
			t.Errorf("%+v", c)
		}
	}
	if v.Reference != nil || !strings.Contains(v.NoReference, "quire.source_sha256") {
		t.Errorf("reference %+v, %q", v.Reference, v.NoReference)
	}
	code, stdout, _ := call(t, append([]string{"verify"}, args...)...)
	for _, want := range []string{
		"model layout version 1, Triton 2.51.0 at " + server.Addr(), "7 pages, 2 documents", "batches of 4, mixed", "BEYOND; worst is ", "identical",
		"no reference for this model", "the same bytes", "answers differ by more than the tolerance: 0.5 pixels",
	} {
		if code != exitSomeFailed || !strings.Contains(stdout, want) {
			t.Errorf("code %d, no %q in\n%s", code, want, stdout)
		}
	}
	verifyJSON(t, exitDone, append(args, "--tolerance", "300")...)
	verifyJSON(t, exitDone, append(args, "--batch", "2")...)

	server.SetModel(good)
	server.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Region == "" {
			return tritontest.Fault{}
		}
		return tritontest.Fault{Edit: func(m *inferencepb.ModelInferResponse) { m.RawOutputContents[1][0] ^= 1 }}
	})
	if v := verifyJSON(t, exitSomeFailed, args...); v.Transport.Different == 0 || !v.Batches[0].Within {
		t.Errorf("%+v, %+v", v.Transport, v.Batches)
	}
	if v := verifyJSON(t, exitDone, append(args, "--transport", "grpc")...); v.Transport.Compared != 0 || v.Transport.Reason != "--transport is grpc" {
		t.Errorf("%+v", v.Transport)
	}
}

// What was not compared is not called within the tolerance, and pages without a
// region are not passed over in silence.
func TestVerifyOfNothing(t *testing.T) {
	model := tritontest.Layout(800, 608, 4)
	blind := model.Infer
	model.Infer = func(pages []byte, n int) []tritontest.Output { return blind(bytes.Repeat([]byte{255}, len(pages)), n) }
	server := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{model}})
	args := []string{"--triton", server.Addr(), "--pages", "2"}
	v := verifyJSON(t, exitDone, args...)
	if !v.Within || v.Regions != 0 || v.Pages != 2 || v.Batches[0].Pages != 4 {
		t.Errorf("%+v", v)
	}
	if _, stdout, _ := call(t, append([]string{"verify"}, args...)...); !strings.Contains(stdout, "no region was found on any page\n") || !strings.Contains(stdout, "all answers are within") {
		t.Error(stdout)
	}
	args = append(args, "--batch", "1", "--transport", "grpc")
	if v := verifyJSON(t, exitFailed, args...); v.Within {
		t.Errorf("%+v", v)
	}
	code, stdout, stderr := call(t, append([]string{"verify"}, args...)...)
	if code != exitFailed || !strings.Contains(stdout, "\nnothing was compared: ") || strings.Contains(stdout, "within the tolerance") ||
		!strings.Contains(stderr, server.Addr()+": nothing was compared: try --batch 2 or more, or --transport auto\n") {
		t.Errorf("code %d\n%s%s", code, stdout, stderr)
	}
}

// Of several servers each is asked for the version that a run asks for, in every way.
func TestVerifyOneVersion(t *testing.T) {
	older := tritontest.Start(t, tritontest.Config{})
	newer := tritontest.Layout(800, 608, 4)
	newer.Version, newer.Older = "2", []string{"1"}
	both := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{newer}})
	var mu sync.Mutex
	asked := map[string]int{}
	both.Script(func(c *tritontest.Call) tritontest.Fault {
		if r, ok := c.Request.(*inferencepb.ModelInferRequest); ok {
			mu.Lock()
			defer mu.Unlock()
			asked[r.GetModelVersion()]++
		}
		return tritontest.Fault{}
	})
	if code, stdout, stderr := call(t, "verify", "--triton", older.Addr()+","+both.Addr(), "--pages", "4"); code != exitDone {
		t.Errorf("code %d\n%s%s", code, stdout, stderr)
	}
	if len(asked) != 1 || asked["1"] == 0 {
		t.Errorf("requests by version: %v", asked)
	}
}

func TestVerifyWithoutSharedMemory(t *testing.T) {
	server := tritontest.Start(t, tritontest.Config{NoSharedMemory: true})
	v := verifyJSON(t, exitDone, "--triton", server.Addr()+",127.0.0.1:1", "--pages", "2", filepath.Join(examples, "form.pdf"))
	if v.Server != server.Addr() {
		t.Errorf("verified %s, and says %s", server.Addr(), v.Server)
	}
	if v.Pages != 1 || v.Transport.Compared != 0 || !strings.Contains(v.Transport.Reason, "disabled") {
		t.Errorf("%+v", v)
	}
	server.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Method == "ModelInfer" {
			return tritontest.QueueFull()
		}
		return tritontest.Fault{}
	})
	code, _, stderr := call(t, "verify", "--triton", server.Addr(), "--pages", "1")
	if code != exitServer || !strings.Contains(stderr, "queue") {
		t.Errorf("code %d: %s", code, stderr)
	}
}
