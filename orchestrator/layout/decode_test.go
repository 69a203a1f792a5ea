package layout

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quire/orchestrator"
)

// detection is one row of a made-up answer.
type detection struct {
	box   [4]float32
	score float32
	label int32
}

// testContract is a small model: a 100×200 raster, 8 detections, 3 labels.
func testContract() *Contract {
	return &Contract{
		Model: "layout", Version: "1", Width: 100, Height: 200, MaxBatch: 4, Detections: 8,
		Labels:         []string{"text", "title", "doodle"},
		ScoreThreshold: 0.5, IoUThreshold: 0.5, MaxCandidates: 200, MaxKept: 100, Instances: 1,
	}
}

// encode lays detections out as the server would, padded with zeros to k.
func encode(k int, dets ...detection) outputs {
	var o outputs
	for i := range k {
		var d detection
		if i < len(dets) {
			d = dets[i]
		}
		for _, v := range d.box {
			o.boxes = binary.LittleEndian.AppendUint32(o.boxes, math.Float32bits(v))
		}
		o.scores = binary.LittleEndian.AppendUint32(o.scores, math.Float32bits(d.score))
		o.labels = binary.LittleEndian.AppendUint32(o.labels, uint32(d.label))
	}
	return o
}

func TestDecode(t *testing.T) {
	c := testContract()
	frame := orchestrator.Frame{Width: 50, Height: 400} // half as wide, twice as high
	tests := []struct {
		name string
		dets []detection
		want []orchestrator.Region
	}{
		{"blank page", nil, []orchestrator.Region{}},
		{"mapped to the frame, labels both ways", []detection{
			{[4]float32{10, 20, 30, 40}, 0.9, 0},
			{[4]float32{10, 60, 30, 80}, 0.8, 1},
			{[4]float32{10, 100, 30, 120}, 0.7, 2},
		}, []orchestrator.Region{
			{ID: 0, Label: "text", LabelRaw: "text", ClassID: 0, Score: 0.9, BBox: [4]float64{5, 40, 15, 80}, Order: 0},
			{ID: 1, Label: "section_header", LabelRaw: "title", ClassID: 1, Score: 0.8, BBox: [4]float64{5, 120, 15, 160}, Order: 1},
			{ID: 2, Label: "doodle", LabelRaw: "doodle", ClassID: 2, Score: 0.7, BBox: [4]float64{5, 200, 15, 240}, Order: 2},
		}},
		{"the threshold itself is not above the threshold", []detection{
			{[4]float32{10, 20, 30, 40}, 0.5, 0},
			{[4]float32{10, 60, 30, 80}, math.Nextafter32(0.5, 1), 0},
		}, []orchestrator.Region{
			{Label: "text", LabelRaw: "text", Score: 0.5, BBox: [4]float64{5, 120, 15, 160}},
		}},
		{"clipped to the page, and gone when nothing is left", []detection{
			{[4]float32{-10, -10, 50, 50}, 0.9, 0},
			{[4]float32{90, 190, 130, 230}, 0.8, 1},
			{[4]float32{100, 0, 130, 50}, 0.7, 2},
			{[4]float32{20, 20, 20, 60}, 0.6, 2},
			{[4]float32{20, 60, 60, 60}, 0.6, 2},
			{[4]float32{0, 200, 50, 230}, 0.6, 2},
		}, []orchestrator.Region{
			{ID: 0, Label: "text", LabelRaw: "text", ClassID: 0, Score: 0.9, BBox: [4]float64{0, 0, 25, 100}, Order: 0},
			{ID: 1, Label: "section_header", LabelRaw: "title", ClassID: 1, Score: 0.8, BBox: [4]float64{45, 380, 50, 400}, Order: 1},
		}},
		{"overlap is measured before clipping", []detection{
			// Both are 0..100 once clipped; unclipped they share a third.
			{[4]float32{-100, 0, 100, 10}, 0.9, 0},
			{[4]float32{0, 0, 200, 10}, 0.8, 0},
		}, []orchestrator.Region{
			{ID: 0, Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{0, 0, 50, 20}, Order: 0},
			{ID: 1, Label: "text", LabelRaw: "text", Score: 0.8, BBox: [4]float64{0, 0, 50, 20}, Order: 1},
		}},
		{"best score first, whatever the order of the answer", []detection{
			{[4]float32{10, 100, 30, 120}, 0.7, 0},
			{[4]float32{10, 20, 30, 40}, 0.9, 0},
		}, []orchestrator.Region{
			{ID: 0, Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{5, 40, 15, 80}, Order: 0},
			{ID: 1, Label: "text", LabelRaw: "text", Score: 0.7, BBox: [4]float64{5, 200, 15, 240}, Order: 1},
		}},
		{"a score a rounding step above one", []detection{
			{[4]float32{10, 20, 30, 40}, 1.0005, 0},
		}, []orchestrator.Region{
			{Label: "text", LabelRaw: "text", Score: 1, BBox: [4]float64{5, 40, 15, 80}},
		}},
		{"padding may hold anything but a score", []detection{
			{[4]float32{float32(math.NaN()), 0, 0, 0}, 0, -1},
		}, []orchestrator.Region{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := c.decode(encode(c.Detections, tt.dets...), frame)
			if v.Err != nil {
				t.Fatal(v.Err)
			}
			if v.Regions == nil {
				t.Fatal("regions are nil, want empty")
			}
			for i := range v.Regions {
				v.Regions[i].Score = math.Round(v.Regions[i].Score*1e6) / 1e6
			}
			if !slices.Equal(v.Regions, tt.want) {
				t.Errorf("got  %+v\nwant %+v", v.Regions, tt.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	good := [4]float32{10, 20, 30, 40}
	tests := []struct {
		name string
		det  detection
		want string // part of the message: the evidence
	}{
		{"score NaN", detection{good, nan, 0}, "scores[1] is NaN"},
		{"score infinite", detection{good, inf, 0}, "scores[1] is +Inf"},
		{"score above one", detection{good, 1.01, 0}, "scores[1] is 1.01"},
		{"score negative", detection{good, -0.5, 0}, "scores[1] is -0.5"},
		{"box NaN", detection{[4]float32{10, nan, 30, 40}, 0.9, 0}, "boxes[1] is [10 NaN 30 40]"},
		{"box infinite", detection{[4]float32{10, 20, inf, 40}, 0.9, 0}, "boxes[1] is [10 20 +Inf 40]"},
		{"box turned round", detection{[4]float32{30, 20, 10, 40}, 0.9, 0}, "boxes[1] is [30 20 10 40]"},
		{"box upside down", detection{[4]float32{10, 40, 30, 20}, 0.9, 0}, "boxes[1] is [10 40 30 20]"},
		{"label negative", detection{good, 0.9, -1}, "labels[1] is -1, and there are 3 labels"},
		{"label too large", detection{good, 0.9, 3}, "labels[1] is 3, and there are 3 labels"},
	}
	c := testContract()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := c.decode(encode(c.Detections, detection{good, 0.95, 0}, tt.det), orchestrator.Frame{Width: 1, Height: 1})
			if v.Err == nil {
				t.Fatalf("accepted: %+v", v.Regions)
			}
			if v.Err.Category != orchestrator.CategoryBadOutput || v.Err.Stage != orchestrator.StageInfer {
				t.Errorf("got %s/%s, want infer/bad_output", v.Err.Stage, v.Err.Category)
			}
			if !strings.Contains(v.Err.Message, tt.want) {
				t.Errorf("message %q does not say %q", v.Err.Message, tt.want)
			}
			if v.Regions != nil {
				t.Errorf("regions beside an error: %v", v.Regions)
			}
		})
	}
	for _, f := range []orchestrator.Frame{{}, {Width: math.NaN(), Height: 1}, {Width: 1}, {Width: 1, Height: -1}, {Width: 1, Height: math.Inf(1)}} {
		if v := c.decode(encode(c.Detections), f); v.Err == nil || v.Err.Category != orchestrator.CategoryInternal {
			t.Errorf("frame %v: got %+v, want an internal error", f, v)
		}
	}
}

func TestSuppress(t *testing.T) {
	box := func(x0, x1 float64) [4]float64 { return [4]float64{x0, 30, x1, 40} }
	all := []candidate{
		{box(0, 100), 0.9, 0},
		{box(0, 50), 0.8, 0},  // IoU exactly 0.5: stays
		{box(0, 51), 0.7, 0},  // above 0.5 with the first and the second: goes
		{box(0, 100), 0.6, 1}, // another class: stays
		{box(200, 200), 0.55, 0},
		{box(200, 200), 0.54, 0}, // no area, no overlap
	}
	got := suppress(slices.Clone(all), 0.5, 200, 100)
	want := []candidate{all[0], all[1], all[3], all[4], all[5]}
	if !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	if got := suppress(slices.Clone(all), 0.5, 3, 100); !slices.Equal(got, []candidate{all[0], all[1], all[3]}) {
		t.Errorf("with 3 candidates a class kept %v", got)
	}
	if got := suppress(slices.Clone(all), 0.5, 200, 1); !slices.Equal(got, []candidate{all[0], all[3]}) {
		t.Errorf("with 1 kept a class kept %v", got)
	}
}

// Equal scores must not leave the order to the server's or the sort's whim.
func TestDecodeIsDeterministic(t *testing.T) {
	c := testContract()
	dets := []detection{
		{[4]float32{10, 20, 30, 40}, 0.9, 1}, {[4]float32{10, 20, 30, 40}, 0.9, 0},
		{[4]float32{5, 60, 30, 80}, 0.9, 0}, {[4]float32{5, 60, 30, 79}, 0.9, 0},
		{[4]float32{50, 60, 70, 80}, 0.8, 2}, {[4]float32{50, 60, 69, 80}, 0.8, 2}, {[4]float32{50, 100, 70, 120}, 0.8, 2},
	}
	frame := orchestrator.Frame{Width: 612, Height: 792}
	want := c.decode(encode(c.Detections, dets...), frame)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		rng.Shuffle(len(dets), func(i, j int) { dets[i], dets[j] = dets[j], dets[i] })
		got := c.decode(encode(c.Detections, dets...), frame)
		if !slices.Equal(got.Regions, want.Regions) {
			t.Fatalf("got  %+v\nwant %+v", got.Regions, want.Regions)
		}
	}
}

// Whatever bytes a server sends: no panic, and either an error or regions that
// are whole, inside the frame and in order.
func FuzzDecode(f *testing.F) {
	c := testContract()
	join := func(o outputs) []byte { return slices.Concat(o.boxes, o.scores, o.labels) }
	f.Add(join(encode(8, detection{[4]float32{10, 20, 30, 40}, 0.9, 1}, detection{[4]float32{11, 20, 30, 40}, 0.8, 1})), 612.0, 792.0)
	f.Add(join(encode(8, detection{[4]float32{-1e30, -1e38, 3e38, 3e38}, 1, 2}, detection{[4]float32{0, 0, 0, 0}, 0.6, 0})), 1e-300, 1e300)
	f.Add(join(encode(8, detection{[4]float32{0, 0, float32(math.Inf(1)), 1}, 0.9, 1})), 0.0, -1.0)
	f.Fuzz(func(t *testing.T, data []byte, w, h float64) {
		data = append(data, make([]byte, 8*24)...)[:8*24]
		frame := orchestrator.Frame{Width: w, Height: h}
		v := c.decode(outputs{boxes: data[:128], scores: data[128:160], labels: data[160:192]}, frame)
		if v.Err != nil {
			if v.Regions != nil || v.Err.Message == "" {
				t.Fatalf("regions beside an error, or an error without words: %+v", v)
			}
			return
		}
		for i, r := range v.Regions {
			b := r.BBox
			if !(b[0] >= 0 && b[0] < b[2] && b[2] <= w && b[1] >= 0 && b[1] < b[3] && b[3] <= h) {
				t.Fatalf("region %d: box %v outside frame %v", i, b, frame)
			}
			if r.ID != i || !(r.Score > 0.5 && r.Score <= 1) || r.LabelRaw != c.Labels[r.ClassID] {
				t.Fatalf("region %d: %+v", i, r)
			}
			if i > 0 && r.Score > v.Regions[i-1].Score {
				t.Fatalf("region %d scores above region %d", i, i-1)
			}
		}
	})
}
