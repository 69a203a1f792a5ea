package layout

import (
	"errors"
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
