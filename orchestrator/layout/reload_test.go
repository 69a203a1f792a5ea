package layout

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"quire/orchestrator"
	"quire/tritonclient/tritontest"
)

// A reload with another batch size is taken; pages that were put together for
// the old one are sent back to be put together again.
func TestReloadedWithSmallerBatch(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	ctx := testContext(t)
	s.SetModel(standIn(2, "quire.in_flight", "5"))
	_, err := m.Infer(ctx, heapSlab(4), 0, frames(4))
	wantAction(t, err, orchestrator.ActionRefresh)
	if got := m.Input().MaxBatch; got != 4 {
		t.Errorf("MaxBatch became %d outside Refresh", got)
	}
	if err := m.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if in := m.Input(); in.MaxBatch != 2 || in.InFlight != 5 {
		t.Errorf("Input is %+v after Refresh", in)
	}
	_, err = m.Infer(ctx, heapSlab(4), 0, frames(4)) // a batch that was sealed before
	wantAction(t, err, orchestrator.ActionRefresh)
	verdicts, err := m.Infer(ctx, heapSlab(4), 2, frames(2))
	if err != nil {
		t.Fatal(err)
	}
	wantBoxes(t, verdicts, 2, 2)
}

// A model that is away for a while and comes back as it was.
func TestModelAway(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	ctx := testContext(t)
	s.SetReady("layout", false)
	_, err := m.Infer(ctx, heapSlab(2), 0, frames(2))
	wantAction(t, err, orchestrator.ActionWait)
	wantAction(t, m.Refresh(ctx), orchestrator.ActionWait) // not yet
	s.SetReady("layout", true)
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	infer := func(looks int) {
		t.Helper()
		before := len(s.Calls("ModelConfig"))
		verdicts, err := m.Infer(ctx, heapSlab(2), 0, frames(2))
		if err != nil {
			t.Fatal(err)
		}
		wantBoxes(t, verdicts, 0, 2)
		if n := len(s.Calls("ModelConfig")) - before; n != looks {
			t.Errorf("looked %d times whether it is the same model, want %d", n, looks)
		}
	}
	infer(1) // it may have come back as another one
	infer(0)
	s.SetReady("layout", false)
	_, err = m.Infer(ctx, heapSlab(2), 0, frames(2))
	wantAction(t, err, orchestrator.ActionWait)
	s.SetReady("layout", true)
	if err := m.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	infer(0) // that was a look
}

// What comes back under the same name and would answer differently is refused:
// one run has one model. It is noticed even when the requests still fit.
func TestModelChanged(t *testing.T) {
	larger := tritontest.Layout(2*height, width, 4)
	newer := standIn(4)
	newer.Version = "2"
	tests := []struct {
		name  string
		model tritontest.Model
		want  string
	}{
		{"raster", larger, fmt.Sprintf("page height (%d, was %d)", 2*height, height)},
		{"version", newer, "version 1 is gone, served is 2"},
		{"labels", standIn(4, "quire.labels", "a,b,c"), "labels (a,b,c, was text,"},
		{"threshold", standIn(4, "quire.score_threshold", "0.7"), "score threshold (0.7, was 0.5)"},
		{"overlap", standIn(4, "quire.nms_iou", "0.7"), "overlap threshold (0.7, was 0.5)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, m := open(t, tritontest.Config{}, Config{})
			ctx := testContext(t)
			s.Stop()
			_, err := m.Infer(ctx, heapSlab(2), 0, frames(2))
			wantAction(t, err, orchestrator.ActionWait)
			s.SetModel(tt.model)
			if err := errors.Join(s.Restart(), m.WaitReady(ctx)); err != nil {
				t.Fatal(err)
			}
			_, err = m.Infer(ctx, heapSlab(2), 0, frames(2))
			if me, ok := errors.AsType[*orchestrator.ModelError](err); !ok || me.Action != orchestrator.ActionRefresh && me.Action != orchestrator.ActionStop {
				t.Fatalf("got %v, want to be sent to Refresh", err)
			}
			me := wantAction(t, m.Refresh(ctx), orchestrator.ActionStop)
			if !strings.Contains(me.Message, tt.want) {
				t.Errorf("%q does not say %q", me.Message, tt.want)
			}
		})
	}
}
