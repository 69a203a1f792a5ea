package layout

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/tritontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The raster of the stand-in model, small enough for many tests.
const width, height, pageBytes = 24, 32, 24 * 32 * 3

// standIn is tritontest's layout model with the labels that the contract wants.
func standIn(maxBatch int, parameters ...string) tritontest.Model {
	m := tritontest.Layout(height, width, maxBatch)
	set := func(key, value string) {
		m.Config.Parameters[key] = &inferencepb.ModelParameter{StringValue: value}
	}
	for i := 0; i < len(parameters); i += 2 {
		set(parameters[i], parameters[i+1])
	}
	return m
}

// prefix is a start of shared-memory names that no other test run has.
func prefix(t *testing.T) string {
	t.Helper()
	p := "quire-test-" + rand.Text()[:8] + "-"
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(shmDir, p+"*"))
		if err != nil || len(left) != 0 {
			t.Errorf("left in %s: %q (%v)", shmDir, left, err)
		}
	})
	return p
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, s *tritontest.Server) *tritonclient.Client {
	t.Helper()
	client, err := tritonclient.New(s.Addr(), tritonclient.Config{Dial: s.Dial, MaxBackoff: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// open starts a server and opens its model.
func open(t *testing.T, server tritontest.Config, cfg Config) (*tritontest.Server, *Model) {
	t.Helper()
	if server.Models == nil {
		server.Models = []tritontest.Model{standIn(4)}
	}
	s := tritontest.Start(t, server)
	cfg.SharedMemoryPrefix = prefix(t)
	m, err := Open(testContext(t), dial(t, s), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, m
}

// blackBoxes fills a slab: page i has a black box from (i,i) to (i+4,i+5).
func blackBoxes(s *orchestrator.Slab) {
	for i := range s.Pages {
		page := s.Page(i)
		for j := range page {
			page[j] = 255
		}
		for y := i; y < i+5; y++ {
			for x := i; x < i+4; x++ {
				copy(page[(y*width+x)*3:], []byte{0, 0, 0})
			}
		}
	}
}

func heapSlab(pages int) *orchestrator.Slab {
	s := &orchestrator.Slab{Bytes: make([]byte, pages*pageBytes), Pages: pages, PageBytes: pageBytes}
	blackBoxes(s)
	return s
}

func sharedSlab(t *testing.T, m *Model, pages int) *orchestrator.Slab {
	t.Helper()
	name := m.cfg.SharedMemoryPrefix + "slab-" + rand.Text()[:4]
	f, err := os.OpenFile(filepath.Join(shmDir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	if err := f.Truncate(int64(pages * pageBytes)); err != nil {
		t.Fatal(err)
	}
	mapping, err := unix.Mmap(int(f.Fd()), 0, pages*pageBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mapping) })
	s := &orchestrator.Slab{Bytes: mapping, Pages: pages, PageBytes: pageBytes, Key: "/" + name}
	blackBoxes(s)
	return s
}

func frames(n int) []orchestrator.Frame {
	return slices.Repeat([]orchestrator.Frame{{Width: width, Height: height}}, n)
}

// wantBoxes checks verdicts on pages of blackBoxes, from page first on.
func wantBoxes(t *testing.T, verdicts []orchestrator.Verdict, first, n int) {
	t.Helper()
	if len(verdicts) != n {
		t.Fatalf("%d verdicts, want %d", len(verdicts), n)
	}
	for i, v := range verdicts {
		at := float64(first + i)
		want := []orchestrator.Region{{
			Label: "text", LabelRaw: "text", Score: float64(float32(0.9)), BBox: [4]float64{at, at, at + 4, at + 5}, // 20 dark pixels: label 0
		}}
		if v.Err != nil || !reflect.DeepEqual(v.Regions, want) {
			t.Errorf("page %d: got %+v, %v, want %+v", first+i, v.Regions, v.Err, want)
		}
	}
}

// wantAction checks that err is a ModelError with this action.
func wantAction(t *testing.T, err error, want orchestrator.Action) *orchestrator.ModelError {
	t.Helper()
	me, ok := errors.AsType[*orchestrator.ModelError](err)
	if !ok || me.Action != want {
		t.Fatalf("got %v (%T), want a ModelError with action %v", err, err, want)
	}
	if me.Message == "" || strings.Contains(me.Message, "\n") {
		t.Errorf("message %q is not one line", me.Message)
	}
	return me
}

func TestOpen(t *testing.T) {
	model := standIn(4, "quire.batch", "2", "quire.max_age_ms", "15", "quire.in_flight", "3")
	model.Version = "7"
	s, m := open(t, tritontest.Config{Models: []tritontest.Model{model}}, Config{})
	if left := s.Regions(); len(left) != 0 {
		t.Errorf("the probe left %q with the server", left)
	}
	if got, want := m.Info(), (orchestrator.ModelInfo{Name: "layout", Version: "7"}); got != want {
		t.Errorf("Info is %+v, want %+v", got, want)
	}
	want := orchestrator.Input{
		Width: width, Height: height, MaxBatch: 4, Batch: 2, MaxAge: 15 * time.Millisecond, InFlight: 3, Instances: 1, SharedMemory: true,
	}
	if got := m.Input(); got != want {
		t.Errorf("Input is %+v, want %+v", got, want)
	}
	for threshold, want := range map[float64]float64{0: 0.5, 0.3: 0.3, -1: 0} {
		_, m := open(t, tritontest.Config{}, Config{ScoreThreshold: threshold})
		if got := m.Contract().ScoreThreshold; got != want {
			t.Errorf("threshold %v is %v in force, want %v", threshold, got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	bare := standIn(4)
	delete(bare.Config.Parameters, "quire.labels")
	bare.Config.Output[2].LabelFilename = ""
	foreign := standIn(4)
	foreign.Config.Input[0].DataType = inferencepb.DataType_TYPE_FP32
	noShm := tritontest.Config{NoSharedMemory: true, Models: []tritontest.Model{standIn(4)}}
	tests := []struct {
		name   string
		server tritontest.Config
		cfg    Config
		action orchestrator.Action
		want   []string
	}{
		{"another model", tritontest.Config{Models: []tritontest.Model{foreign}}, Config{}, orchestrator.ActionStop,
			[]string{"model layout at 127.0.0.1:", "does not fit", "found", "pages FP32 [32,24,3]", "wanted", "pages UINT8 [H,W,3]"}},
		{"no labels", tritontest.Config{Models: []tritontest.Model{bare}}, Config{}, orchestrator.ActionStop, []string{"quire.labels"}},
		{"no such model", noShm, Config{Model: "other"}, orchestrator.ActionWait, []string{"other"}},
		{"threshold", noShm, Config{ScoreThreshold: 1}, orchestrator.ActionStop, []string{"threshold 1"}},
		{"threshold that is no number", noShm, Config{ScoreThreshold: math.NaN()}, orchestrator.ActionStop, []string{"threshold NaN"}},
		{"shared memory asked for and refused", noShm, Config{Transport: TransportShared}, orchestrator.ActionStop, []string{"--allow-client-shm=true", "grpc"}},
		{"header missing", tritontest.Config{RestrictedKey: "k", RestrictedValue: "v", Models: noShm.Models}, Config{}, orchestrator.ActionStop, []string{"refuses this client"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tritontest.Start(t, tt.server)
			tt.cfg.SharedMemoryPrefix = prefix(t)
			_, err := Open(testContext(t), dial(t, s), tt.cfg)
			me := wantAction(t, err, tt.action)
			for _, want := range tt.want {
				if !strings.Contains(me.Message, want) {
					t.Errorf("%q does not say %q", me.Message, want)
				}
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := tritontest.Start(t, noShm)
		s.Stop()
		_, err := Open(testContext(t), dial(t, s), Config{})
		wantAction(t, err, orchestrator.ActionWait)
	})
	t.Run("called off", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Open(ctx, dial(t, tritontest.Start(t, noShm)), Config{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

// A config that only names a label file: the server reads the file out.
func TestLabelsFromFile(t *testing.T) {
	tests := []struct {
		name     string
		elements []string
		want     []string // the labels, or
		err      string
	}{
		{"in any order, more elements than labels", []string{"3:2:figure", "2:0:text", "1:1: title ", "0:3", "0:4"}, []string{"text", "title", "figure"}, ""},
		{"a colon in a label", []string{"0:0:a:b"}, []string{"a:b"}, ""},
		{"no labels", []string{"0:0", "0:1"}, nil, "no element has a label"},
		{"a gap", []string{"0:0:text", "0:2:figure"}, nil, "index 1 has no label"},
		{"twice", []string{"0:0:text", "0:1:text"}, nil, `label 1 is "text"`},
		{"nonsense", []string{"text"}, nil, `element "text" is not value:index:label`},
		{"nothing", nil, nil, "no element has a label"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			model := standIn(4)
			delete(model.Config.Parameters, "quire.labels")
			s := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{model}})
			s.Script(func(c *tritontest.Call) tritontest.Fault {
				request, ok := c.Request.(*inferencepb.ModelInferRequest)
				if !ok || request.Outputs[0].Parameters["classification"].GetInt64Param() != tritontest.Candidates {
					return tritontest.Fault{}
				}
				return tritontest.Fault{Edit: func(r *inferencepb.ModelInferResponse) {
					var raw []byte
					for _, e := range tt.elements {
						raw = append(binary.LittleEndian.AppendUint32(raw, uint32(len(e))), e...)
					}
					r.Outputs[0].Datatype, r.Outputs[0].Shape = "BYTES", []int64{1, int64(len(tt.elements))}
					r.RawOutputContents[0] = raw
				}}
			})
			ctx := testContext(t)
			m, err := Open(ctx, dial(t, s), Config{SharedMemoryPrefix: prefix(t)})
			if tt.err != "" {
				if me := wantAction(t, err, orchestrator.ActionStop); !strings.Contains(me.Message, tt.err) || !strings.Contains(me.Message, "quire.labels") {
					t.Errorf("%q does not say %q and the remedy", me.Message, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Contract().Labels; !slices.Equal(got, tt.want) {
				t.Errorf("labels are %q, want %q", got, tt.want)
			}
			if err := m.Refresh(ctx); err != nil || !slices.Equal(m.Contract().Labels, tt.want) {
				t.Errorf("after Refresh: %q, %v", m.Contract().Labels, err)
			}
		})
	}
	for _, cut := range []string{"\x05\x00\x00\x000:0:", "\x05\x00\x00", "\xff\xff\xff\xff0:0:a"} {
		if labels, err := parseLabels([]byte(cut)); err == nil {
			t.Errorf("%q is read as %q", cut, labels)
		}
	}
}

// What a server says may be anything, and is told in one line.
func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"as it is":                      "as it is",
		"two\nlines\tlong":              "two; lines long",
		"\x1b[2Jcleared\xff":            " [2Jcleared?",
		strings.Repeat("x", maxMessage): strings.Repeat("x", maxMessage),
		strings.Repeat("x", maxMessage-1) + "é and on": strings.Repeat("x", maxMessage-1) + "…",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%.40q becomes %.40q, of %d bytes, want %.40q", text, got, len(got), want)
		}
	}
}

func TestParseTransport(t *testing.T) {
	for _, want := range []Transport{TransportAuto, TransportShared, TransportInBand} {
		if got, err := ParseTransport(want.String()); err != nil || got != want {
			t.Errorf("%v is read as %v (%v)", want, got, err)
		}
	}
	if _, err := ParseTransport("tcp"); err == nil || !strings.Contains(err.Error(), "auto, shm or grpc") {
		t.Errorf("tcp is read with %v", err)
	}
}

// A server that goes away while it is asked for shared memory has not refused it.
func TestProbeOfAServerThatGoes(t *testing.T) {
	s := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{standIn(4)}})
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Method == "SystemSharedMemoryRegister" {
			return tritontest.Stopping()
		}
		return tritontest.Fault{}
	})
	_, err := Open(testContext(t), dial(t, s), Config{SharedMemoryPrefix: prefix(t), Transport: TransportShared})
	wantAction(t, err, orchestrator.ActionWait)
}
