package layout

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

// Whether pixels travel or only the name of the memory they are in: the same
// answers, for any part of a slab.
func TestTransportsAgree(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	ctx := testContext(t)
	for name, slab := range map[string]*orchestrator.Slab{"shm": sharedSlab(t, m, 4), "grpc": heapSlab(4)} {
		for _, part := range [][2]int{{0, 4}, {0, 1}, {2, 2}, {3, 1}} {
			verdicts, err := m.Infer(ctx, slab, part[0], frames(part[1]))
			if err != nil {
				t.Fatalf("%s, pages %v: %v", name, part, err)
			}
			wantBoxes(t, verdicts, part[0], part[1])
		}
	}
	var shared, inBand int
	for _, call := range s.Calls("ModelInfer") {
		if call.Region != "" && call.Bytes == 0 {
			shared++
		}
		if call.Region == "" && call.Bytes == call.Batch*pageBytes {
			inBand++
		}
	}
	if n := len(s.Calls("SystemSharedMemoryRegister")); n != 2 {
		t.Errorf("registered %d times, want the probe and the one slab that is shared", n)
	}
	if shared != 4 || inBand != 4 {
		t.Errorf("%d requests through shared memory and %d in-band, want 4 and 4", shared, inBand)
	}
	if got, err := m.Infer(ctx, heapSlab(1), 0, nil); err != nil || len(got) != 0 {
		t.Errorf("no pages give %v, %v", got, err)
	}
}

func TestSlabIsRegisteredOnce(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	ctx := testContext(t)
	registered := func() int { return len(s.Calls("SystemSharedMemoryRegister")) - 1 } // the probe's

	slabs := []*orchestrator.Slab{sharedSlab(t, m, 4), sharedSlab(t, m, 4)}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			verdicts, err := m.Infer(ctx, slabs[i%2], i%4, frames(1))
			if err != nil {
				t.Error(err)
				return
			}
			wantBoxes(t, verdicts, i%4, 1)
		})
	}
	group.Wait()
	// What a batch has found out late is not held against a newer name.
	m.regions.forget(slabs[0], "an older name")
	if _, err := m.Infer(ctx, slabs[0], 0, frames(1)); err != nil {
		t.Error(err)
	}
	if registered() != 2 || len(s.Regions()) != 2 {
		t.Errorf("registered %d times for two slabs, and %q stand", registered(), s.Regions())
	}
	m.Release(slabs[0])
	m.Release(slabs[0]) // to release twice, or what was never used, is no fault
	m.Release(heapSlab(1))
	spellings.Lock()
	if n, kept := spellings.of[slabs[0].Key]; kept {
		t.Errorf("the key of a slab that is gone is remembered, %d times spelled", n)
	}
	spellings.Unlock()
	if n := len(m.regions.byKey); n != 1 {
		t.Errorf("%d slabs are remembered after the release of one of two", n)
	}
	if left := s.Regions(); len(left) != 1 || !strings.HasPrefix(left[0], strings.TrimPrefix(slabs[1].Key, "/")) {
		t.Errorf("%q stand after the release of one of two slabs", left)
	}
	if err := m.Close(); err != nil || len(s.Regions()) != 0 {
		t.Errorf("%q stand after Close (%v)", s.Regions(), err)
	}
}

// A slab that the server still reads, of a request that was given up here, is
// unregistered once it does not.
func TestBusySlabIsUnregistered(t *testing.T) {
	reading, done := make(chan struct{}), make(chan struct{})
	end := sync.OnceFunc(func() { close(done) })
	model := standIn(4)
	infer := model.Infer
	model.Infer = func(input []byte, n int) []tritontest.Output {
		close(reading)
		<-done
		return infer(input, n)
	}
	s, m := open(t, tritontest.Config{Models: []tritontest.Model{model}}, Config{})
	defer end()
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Method == "SystemSharedMemoryUnregister" && c.Index > 1 { // the probe's, and one that is refused
			end()
		}
		return tritontest.Fault{}
	})
	slab := sharedSlab(t, m, 1)
	ctx, giveUp := context.WithCancel(testContext(t))
	go func() { <-reading; giveUp() }()
	if _, err := m.Infer(ctx, slab, 0, frames(1)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.Release(slab)
	if left := s.Regions(); len(left) != 0 {
		t.Errorf("%q stand", left)
	}
}

// A server that cannot unregister a slab for another reason than that it reads it,
// as one that is gone, is not asked again.
func TestSlabIsUnregisteredOnce(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	slab := sharedSlab(t, m, 1)
	if _, err := m.Infer(testContext(t), slab, 0, frames(1)); err != nil {
		t.Fatal(err)
	}
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Method == "SystemSharedMemoryUnregister" {
			return tritontest.Stopping()
		}
		return tritontest.Fault{}
	})
	m.Release(slab)
	if n := len(s.Calls("SystemSharedMemoryUnregister")); n != 2 { // the probe's, and the slab's
		t.Errorf("asked %d times for the probe and one slab", n)
	}
}

// One server may have two addresses, or hold a region whose registration got no
// answer.
func TestSlabIsRegisteredTwiceAtOneServer(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	ctx := testContext(t)
	other, err := Open(ctx, dial(t, s), m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	slab := sharedSlab(t, m, 1)
	for _, m := range []*Model{m, other} {
		verdicts, err := m.Infer(ctx, slab, 0, frames(1))
		if err != nil {
			t.Fatal(err)
		}
		wantBoxes(t, verdicts, 0, 1)
	}
	for _, c := range s.Calls("ModelInfer") {
		if c.Region == "" {
			t.Error("went in-band")
		}
	}
	m.Release(slab)
	other.Release(slab)
	if left := s.Regions(); len(left) != 0 {
		t.Errorf("%q stand", left)
	}
}

func TestNoSharedMemory(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server tritontest.Config
		cfg    Config
		said   string
	}{
		{"server has it disabled", tritontest.Config{NoSharedMemory: true}, Config{}, "--allow-client-shm=true"},
		{"asked for in-band", tritontest.Config{}, Config{Transport: TransportInBand}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			tt.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			s, m := open(t, tt.server, tt.cfg)
			if m.Input().SharedMemory {
				t.Error("Input offers shared memory")
			}
			verdicts, err := m.Infer(testContext(t), sharedSlab(t, m, 2), 0, frames(2))
			if err != nil {
				t.Fatal(err)
			}
			wantBoxes(t, verdicts, 0, 2)
			if calls := s.Calls("ModelInfer"); len(calls) != 1 || calls[0].Region != "" {
				t.Errorf("calls: %+v", calls)
			}
			if lines := strings.Count(log.String(), "\n"); tt.said == "" && lines != 0 || tt.said != "" && (lines != 1 || !strings.Contains(log.String(), tt.said)) {
				t.Errorf("logged %q, want one line that says %q", log.String(), tt.said)
			}
		})
	}
}

// A server that was restarted knows no region: it is told again, at once.
func TestRegisteredAgainAfterRestart(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	ctx := testContext(t)
	slab := sharedSlab(t, m, 4)
	infer := func() ([]orchestrator.Verdict, error) { return m.Infer(ctx, slab, 0, frames(4)) }
	verdicts, err := infer()
	if err != nil {
		t.Fatal(err)
	}
	wantBoxes(t, verdicts, 0, 4)

	s.Stop()
	_, err = infer()
	wantAction(t, err, orchestrator.ActionWait)
	ready := make(chan error)
	go func() { ready <- m.WaitReady(ctx) }()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	if verdicts, err = infer(); err != nil {
		t.Fatal(err)
	}
	wantBoxes(t, verdicts, 0, 4)
	calls := s.Calls("ModelInfer")
	if last := calls[len(calls)-1]; last.Region == "" {
		t.Error("the slab went in-band after the restart")
	}
	if n := len(s.Regions()); n != 1 {
		t.Errorf("%d regions stand, want 1", n)
	}
}

// A server that comes back without shared memory gets the pixels in-band.
func TestSharedMemoryGoesAway(t *testing.T) {
	var log bytes.Buffer
	s, m := open(t, tritontest.Config{}, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx := testContext(t)
	slab := sharedSlab(t, m, 2)
	disabled := tritontest.Fail(12, "Client shared memory is disabled") // 12: UNIMPLEMENTED
	unknown := tritontest.Fail(5, "Unable to find shared memory region: 'x'")
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		switch {
		case c.Method == "SystemSharedMemoryRegister" && c.Index > 1:
			return disabled
		case c.Region != "" && c.Method == "ModelInfer" && c.Index > 0:
			return unknown
		}
		return tritontest.Fault{}
	})
	for range 3 {
		verdicts, err := m.Infer(ctx, slab, 0, frames(2))
		if err != nil {
			t.Fatal(err)
		}
		wantBoxes(t, verdicts, 0, 2)
	}
	m.regions.disallow(errors.New("told of by another batch too"))
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

func TestBadAnswers(t *testing.T) {
	const k = tritontest.Candidates
	second := []error{nil, errors.New("bad"), nil} // what is wanted of three pages
	tests := []struct {
		name  string
		fault tritontest.Fault
		want  string
	}{
		{"score NaN", tritontest.NaN("scores", k), "scores[0] is NaN"},
		{"score of padding NaN", tritontest.NaN("scores", k+7), "scores[7] is NaN"},
		{"score 7", tritontest.Float("scores", k+1, 7), "scores[1] is 7"},
		{"box NaN", tritontest.NaN("boxes", k*4+2), "boxes[0] is [1 1 NaN 6]"},
		{"label 10", tritontest.Int("labels", k, 10), "labels[0] is 10, and there are 10 labels"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, m := open(t, tritontest.Config{}, Config{})
			s.Script(func(c *tritontest.Call) tritontest.Fault {
				if c.Method == "ModelInfer" {
					return tt.fault
				}
				return tritontest.Fault{}
			})
			verdicts, err := m.Infer(testContext(t), heapSlab(3), 0, frames(3))
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range verdicts {
				if (v.Err != nil) != (second[i] != nil) {
					t.Errorf("page %d: %v", i, v.Err)
				}
			}
			if e := verdicts[1].Err; e == nil || e.Category != orchestrator.CategoryBadOutput || !strings.Contains(e.Message, tt.want) {
				t.Errorf("got %v, want bad_output that says %q", e, tt.want)
			}
		})
	}
}

// An answer that is wrong as a whole says nothing about which page is at fault:
// the batch is taken apart, and a single page fails with the evidence.
func TestUnusableAnswers(t *testing.T) {
	for name, fault := range map[string]tritontest.Fault{
		"missing output": tritontest.MissingOutput("scores"),
		"wrong shape":    tritontest.WrongShape("boxes", 1, 299, 4),
		"wrong datatype": tritontest.WrongDatatype("labels", "FP32"),
		"truncated":      tritontest.Truncated("boxes", 16),
		"doubled":        tritontest.DoubledOutput("labels"),
	} {
		t.Run(name, func(t *testing.T) {
			s, m := open(t, tritontest.Config{}, Config{})
			s.Script(func(c *tritontest.Call) tritontest.Fault {
				if c.Method == "ModelInfer" {
					return fault
				}
				return tritontest.Fault{}
			})
			_, err := m.Infer(testContext(t), heapSlab(3), 0, frames(3))
			wantAction(t, err, orchestrator.ActionBisect)
			verdicts, err := m.Infer(testContext(t), heapSlab(3), 0, frames(1))
			if err != nil {
				t.Fatal(err)
			}
			if e := verdicts[0].Err; e == nil || e.Category != orchestrator.CategoryBadOutput || !strings.Contains(e.Message, "not usable") {
				t.Errorf("got %v, want bad_output with the evidence", e)
			}
			asked := len(s.Calls("ModelInfer"))
			s.Script(func(c *tritontest.Call) tritontest.Fault {
				if c.Method == "ModelInfer" && c.Index == asked {
					return fault
				}
				return tritontest.Fault{}
			})
			if verdicts, err = m.Infer(testContext(t), heapSlab(3), 2, frames(1)); err != nil {
				t.Fatal(err)
			}
			wantBoxes(t, verdicts, 2, 1) // once is not held against the page
		})
	}
}

func TestActions(t *testing.T) {
	tests := []struct {
		name  string
		fault tritontest.Fault
		want  orchestrator.Action
	}{
		{"queue full", tritontest.QueueFull(), orchestrator.ActionShrink},
		{"queue timeout", tritontest.QueueTimeout(), orchestrator.ActionShrink},
		{"stopping", tritontest.Stopping(), orchestrator.ActionWait},
		{"connection cut", tritontest.Fault{Disconnect: true, Hang: true}, orchestrator.ActionWait},
		{"cancelled by the server", tritontest.Fail(1, "GRPC server is shutting down and has stopped accepting new requests."), orchestrator.ActionWait},
		{"reloading", tritontest.Reloading("layout"), orchestrator.ActionWait},
		{"model failed", tritontest.BackendError("out of memory"), orchestrator.ActionBisect},
		{"refused with the contract unchanged", tritontest.Fail(3, "unexpected shape"), orchestrator.ActionStop},
		{"too large", tritontest.Fail(8, "Received message larger than max (5 vs. 4)"), orchestrator.ActionStop},
		{"no answer in time", tritontest.Fail(4, "Deadline Exceeded"), orchestrator.ActionRetry},
		{"no idea", tritontest.Fail(10, "what?"), orchestrator.ActionRetry},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, m := open(t, tritontest.Config{}, Config{})
			s.Script(func(c *tritontest.Call) tritontest.Fault {
				if c.Method != "ModelInfer" || c.Index > 0 {
					return tritontest.Fault{}
				}
				if tt.fault.Disconnect {
					s.Disconnect()
					return tritontest.Fault{Hang: true}
				}
				return tt.fault
			})
			ctx := testContext(t)
			_, err := m.Infer(ctx, heapSlab(2), 0, frames(2))
			wantAction(t, err, tt.want)
			if err := m.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			verdicts, err := m.Infer(ctx, heapSlab(2), 0, frames(2)) // it was only this once
			if err != nil {
				t.Fatal(err)
			}
			wantBoxes(t, verdicts, 0, 2)
		})
	}
}

// A server that does not answer when a slab is to be registered is away; that is
// held against no page.
func TestRegisteringTakesTooLong(t *testing.T) {
	s := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{standIn(4)}})
	client, err := tritonclient.New(s.Addr(), tritonclient.Config{CallTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := testContext(t)
	m, err := Open(ctx, client, Config{SharedMemoryPrefix: prefix(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		return tritontest.Fault{Hang: c.Method == "SystemSharedMemoryRegister"}
	})
	_, err = m.Infer(ctx, sharedSlab(t, m, 2), 0, frames(2))
	wantAction(t, err, orchestrator.ActionWait)
}

// A probe that got no answer may have been registered all the same: it is
// unregistered also when everything was called off.
func TestProbeCalledOff(t *testing.T) {
	s := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{standIn(4)}})
	client, err := tritonclient.New(s.Addr(), tritonclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(testContext(t))
	var asked, undone string
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		switch c.Method {
		case "SystemSharedMemoryRegister":
			asked = c.Region
			cancel()
			return tritontest.Fault{Hang: true}
		case "SystemSharedMemoryUnregister":
			undone = c.Region
		}
		return tritontest.Fault{}
	})
	if _, err := Open(ctx, client, Config{SharedMemoryPrefix: prefix(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if asked == "" || undone != asked {
		t.Errorf("registered %q, unregistered %q", asked, undone)
	}
}

// Who waits for another batch to register the slab of both can be called off.
func TestWaitingForATurnCalledOff(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	slab := sharedSlab(t, m, 2)
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		return tritontest.Fault{Hang: c.Method == "SystemSharedMemoryRegister"}
	})
	registers, giveUp := context.WithTimeout(testContext(t), 5*time.Second)
	registered := make(chan error, 1)
	go func() {
		_, err := m.Infer(registers, slab, 0, frames(1))
		registered <- err
	}()
	if err := s.WaitCalls(testContext(t), "SystemSharedMemoryRegister", 2); err != nil { // the probe's, and this one
		t.Fatal(err)
	}
	off, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Infer(off, slab, 1, frames(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if registers.Err() != nil {
		t.Error("it waited for the other one")
	}
	giveUp()
	if err := <-registered; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestInferCalledOff(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	s.Script(func(c *tritontest.Call) tritontest.Fault { return tritontest.Fault{Hang: c.Method == "ModelInfer"} })
	ctx, cancel := context.WithCancel(testContext(t))
	go func() {
		_ = s.WaitCalls(ctx, "ModelInfer", 1)
		cancel()
	}()
	if _, err := m.Infer(ctx, sharedSlab(t, m, 2), 0, frames(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if err := m.WaitReady(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitReady gave %v, want the context's error", err)
	}
	if err := m.Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Refresh gave %v, want the context's error", err)
	}
}

func TestSlabMustFit(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	ctx := testContext(t)
	small := &orchestrator.Slab{Bytes: make([]byte, 4), Pages: 4, PageBytes: 1}
	for name, call := range map[string]func() error{
		"pages of another size": func() error { _, err := m.Infer(ctx, small, 0, frames(1)); return err },
		"beyond the slab":       func() error { _, err := m.Infer(ctx, heapSlab(3), 2, frames(2)); return err },
		"before the slab":       func() error { _, err := m.Infer(ctx, heapSlab(3), -1, frames(2)); return err },
	} {
		t.Run(name, func(t *testing.T) { wantAction(t, call(), orchestrator.ActionStop) })
	}
	if calls := s.Calls("ModelInfer"); len(calls) != 0 {
		t.Errorf("%d requests were sent", len(calls))
	}
}
