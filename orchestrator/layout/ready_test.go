package layout

import (
	"errors"
	"fmt"
	"testing"

	"quire/orchestrator"
	"quire/tritonclient/tritontest"
)

// A server that calls the model ready and fails its requests is waited for until
// it answers; one that answers, be it with a refusal, is there.
func TestReadyIsToAnswer(t *testing.T) {
	stub := tritontest.BackendError("Stub process 'layout_0_0' is not healthy.")
	for _, tt := range []struct {
		name  string
		fault tritontest.Fault
		asked int // until it is ready
	}{
		{"model's process dead", stub, 4},
		{"model fails", tritontest.BackendError("CUDA error: unspecified launch failure"), 4},
		{"stopping", tritontest.Stopping(), 4},
		{"queue full", tritontest.QueueFull(), 1},
		{"queue too slow", tritontest.QueueTimeout(), 1},
		{"not for this client", tritontest.Fail(7, "no"), 1},
		{"page too large", tritontest.Fail(8, "Received message larger than max (5 vs. 4)"), 1},
		{"another model by now", tritontest.Fail(3, "unexpected shape"), 1},
		{"unusable answer", tritontest.Truncated("boxes", 4), 1},
		{"well", tritontest.Fault{}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, m := open(t, tritontest.Config{}, Config{})
			s.Script(func(c *tritontest.Call) tritontest.Fault {
				if c.Method != "ModelInfer" || c.Index >= 3 {
					return tritontest.Fault{}
				}
				return tt.fault
			})
			if err := m.WaitReady(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if n := len(s.Calls("ModelInfer")); n != tt.asked {
				t.Errorf("ready after %d blank pages, want %d", n, tt.asked)
			}
		})
	}
}

// The engine is told when a server died with the pages in flight.
func TestLostIsTold(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		switch {
		case c.Method != "ModelInfer":
		case c.Index == 0:
			go s.Disconnect()
			return tritontest.Fault{Hang: true}
		case c.Index == 1:
			return tritontest.Stopping()
		}
		return tritontest.Fault{}
	})
	ctx := testContext(t)
	for _, lost := range []bool{true, false} {
		_, err := m.Infer(ctx, heapSlab(2), 0, frames(2))
		wantAction(t, err, orchestrator.ActionWait)
		if me, _ := errors.AsType[*orchestrator.ModelError](err); me.Lost != lost {
			t.Errorf("%v: Lost is %v", err, me.Lost)
		}
		if err := m.client.WaitModelReady(ctx, "layout", "", nil); err != nil {
			t.Fatal(err)
		}
	}
}

// What becomes of a question that has no pages says nothing about pages: none was
// lost with the server, and none is looked for.
func TestQuestionsBlameNoPage(t *testing.T) {
	for _, method := range []string{"SystemSharedMemoryRegister", "ModelMetadata", "ModelConfig"} {
		for _, cut := range []bool{true, false} {
			if !cut && method == "SystemSharedMemoryRegister" {
				continue // to fail is to refuse there
			}
			t.Run(fmt.Sprintf("%s cut %v", method, cut), func(t *testing.T) {
				s, m := open(t, tritontest.Config{}, Config{})
				ctx := testContext(t)
				slab := sharedSlab(t, m, 2)
				m.away.Add(1) // the server was away: its config is looked at first
				asked := len(s.Calls(method))
				s.Script(func(c *tritontest.Call) tritontest.Fault {
					switch {
					case c.Method != method || c.Index != asked:
						return tritontest.Fault{}
					case cut:
						s.Disconnect()
						return tritontest.Fault{Hang: true}
					}
					return tritontest.BackendError("failed")
				})
				_, err := m.Infer(ctx, slab, 0, frames(2))
				if me := wantAction(t, err, orchestrator.ActionWait); me.Lost {
					t.Errorf("no page was at the server: %v", me)
				}
				if err := m.WaitReady(ctx); err != nil {
					t.Fatal(err)
				}
				verdicts, err := m.Infer(ctx, slab, 0, frames(2))
				if err != nil {
					t.Fatal(err)
				}
				wantBoxes(t, verdicts, 0, 2)
			})
		}
	}
}

// A server that goes away while its config is looked at is looked at once more.
func TestAwayDuringALook(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	slab := sharedSlab(t, m, 1)
	looks := func() int { return len(s.Calls("ModelConfig")) }
	infer := func() error { _, err := m.Infer(testContext(t), slab, 0, frames(1)); return err }
	for _, first := range []func() error{infer, func() error { return m.Refresh(testContext(t)) }} {
		m.away.Add(1)
		before := looks()
		s.Script(func(c *tritontest.Call) tritontest.Fault {
			if c.Method == "ModelConfig" && c.Index == before {
				m.away.Add(1) // as another request finds
			}
			return tritontest.Fault{}
		})
		for i, call := range []func() error{first, infer, infer} {
			err := call()
			if got, want := looks()-before, []int{1, 2, 2}[i]; err != nil || got != want {
				t.Errorf("call %d: %d looks, want %d: %v", i+1, got, want, err)
			}
		}
	}
}
