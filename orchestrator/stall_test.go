package orchestrator

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// gatedDocs yields its documents once a gate is open.
type gatedDocs struct {
	docs
	gate <-chan struct{}
}

func (d gatedDocs) Documents(ctx context.Context) iter.Seq[Document] {
	return func(yield func(Document) bool) {
		<-d.gate
		d.docs.Documents(ctx)(yield)
	}
}

// TestStallIsSaid: whatever holds everything up for a minute is named, in the
// log and in Stats, and is forgotten when it is over.
func TestStallIsSaid(t *testing.T) {
	for _, tt := range []struct {
		name string
		hold func(gate <-chan struct{}, m *fakeModel, r *fakeRenderer, s *fakeSink, src *Source)
		want []string
	}{
		{"an answer", func(gate <-chan struct{}, m *fakeModel, _ *fakeRenderer, _ *fakeSink, _ *Source) {
			m.ask = func(context.Context, []seenPage) error { <-gate; return nil }
		}, []string{"the server to answer 2 requests", "the oldest, from d000.pdf page"}},
		{"a full queue", func(gate <-chan struct{}, m *fakeModel, _ *fakeRenderer, _ *fakeSink, _ *Source) {
			m.ask = func(context.Context, []seenPage) error {
				select {
				case <-gate:
					return nil
				default:
					return &ModelError{Action: ActionShrink, Message: "Exceeds maximum queue size"}
				}
			}
		}, []string{"the server to answer", "last trouble: Exceeds maximum queue size"}},
		{"a server that is away", func(gate <-chan struct{}, m *fakeModel, _ *fakeRenderer, _ *fakeSink, _ *Source) {
			m.ask = func(context.Context, []seenPage) error {
				select {
				case <-gate:
					return nil
				default:
					return &ModelError{Action: ActionWait, Message: "connection refused"}
				}
			}
			m.ready = func(context.Context) error { <-gate; return nil }
		}, []string{"the server to come back, for 1m", "connection refused"}},
		{"a worker", func(gate <-chan struct{}, _ *fakeModel, r *fakeRenderer, _ *fakeSink, _ *Source) {
			r.start = func() error { <-gate; return nil }
		}, []string{"a render worker to start, for 1m"}},
		{"a page", func(gate <-chan struct{}, _ *fakeModel, r *fakeRenderer, _ *fakeSink, _ *Source) {
			r.draw = func(context.Context, string, int) error { <-gate; return nil }
		}, []string{"a page to be drawn, d000.pdf page 1, for 1m"}},
		{"the results", func(gate <-chan struct{}, _ *fakeModel, _ *fakeRenderer, s *fakeSink, _ *Source) {
			s.fail = func(PageResult) error { <-gate; return nil }
		}, []string{"a result to be written, of d0"}},
		{"the inputs", func(gate <-chan struct{}, _ *fakeModel, _ *fakeRenderer, _ *fakeSink, src *Source) {
			*src = gatedDocs{(*src).(docs), gate}
		}, []string{"the next document to be listed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				list, count := manyDocs(3, 40)
				m, r, sink, source := newFakeModel(), &fakeRenderer{pages: count}, newFakeSink(t), Source(list)
				tt.hold(gate, m, r, sink, &source)
				var log bytes.Buffer
				d := newDetector(t, Config{Model: m, Renderer: r, Workers: 1, InferTimeout: time.Hour, ServerWait: 2 * time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				ended := make(chan Summary)
				go func() {
					sum, err := d.Run(t.Context(), Job{Source: source, Sink: sink})
					if err != nil {
						t.Error(err)
					}
					ended <- sum
				}()
				time.Sleep(50 * time.Second)
				if s := d.Stats(); s.Stall != "" {
					t.Errorf("after 50 s: %q", s.Stall)
				}
				time.Sleep(25 * time.Second)
				s := d.Stats()
				for _, want := range tt.want {
					if !strings.Contains(s.Stall, want) {
						t.Errorf("%q does not say %q", s.Stall, want)
					}
				}
				if since := time.Since(s.StallSince); since < time.Minute || since > 90*time.Second {
					t.Errorf("since %v", since)
				}
				time.Sleep(15 * time.Minute)
				close(gate)
				if sum := <-ended; sum.Pages != (Counts{Done: 120}) {
					t.Errorf("%+v", sum)
				}
				time.Sleep(10 * time.Second) // nothing to do: no stall
				if s := d.Stats(); s.Stall != "" {
					t.Errorf("when it is over: %q", s.Stall)
				}
				d.Close() // ends what writes to the log
				if n := strings.Count(log.String(), "no page has ended"); n != 2 {
					t.Errorf("said %d times in a quarter of an hour, want 2:\n%s", n, log.String())
				}
				if len(d.doings.m) != 0 {
					t.Errorf("%d things are still being done", len(d.doings.m))
				}
			})
		})
	}
}
