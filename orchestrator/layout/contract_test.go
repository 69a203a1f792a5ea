package layout

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// servedConfig is a config as a server gives it out, with edits: each replaces
// its first half by its second.
func servedConfig(t testing.TB, edits ...string) *inferencepb.ModelConfig {
	t.Helper()
	text := `
		name: "layout" backend: "onnxruntime" max_batch_size: 8
		input { name: "pages" data_type: TYPE_UINT8 dims: [800, 608, 3] }
		output { name: "boxes" data_type: TYPE_FP32 dims: [300, 4] }
		output { name: "scores" data_type: TYPE_FP32 dims: [300] }
		output { name: "labels" data_type: TYPE_INT32 dims: [300] label_filename: "labels.txt" }
		instance_group { name: "a" kind: KIND_GPU count: 2 gpus: [0, 1, 3] }
		instance_group { name: "b" kind: KIND_CPU count: 1 }
		instance_group { name: "c" kind: KIND_CPU count: 4 passive: true }
		parameters { key: "quire.labels" value { string_value: "text, title,figure" } }
	`
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("%q is not in the config", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	config := new(inferencepb.ModelConfig)
	if err := prototext.Unmarshal([]byte(text), config); err != nil {
		t.Fatal(err)
	}
	return config
}

func param(key, value string) string {
	return ` parameters { key: "` + key + `" value { string_value: "` + value + `" } }`
}

func TestNewContract(t *testing.T) {
	defaults := Contract{
		Model: "layout", Width: 608, Height: 800, MaxBatch: 8, Detections: 300, Labels: []string{"text", "title", "figure"},
		ScoreThreshold: 0.5, IoUThreshold: 0.5, MaxCandidates: 200, MaxKept: 100, Instances: 7,
	}
	got, err := NewContract(servedConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	// Labels of the config go before those of the file.
	if !reflect.DeepEqual(*got, defaults) {
		t.Errorf("got  %+v\nwant %+v", *got, defaults)
	}

	labels := param("quire.labels", "a")[1:]
	got, err = NewContract(servedConfig(t,
		`max_batch_size: 8`, `max_batch_size: 1`,
		`[800, 608, 3]`, `[32, 16, 3]`,
		`dims: [300, 4]`, `dims: [5, 4]`, `dims: [300]`, `dims: [5]`, `dims: [300]`, `dims: [5]`,
		`instance_group { name: "a" kind: KIND_GPU count: 2 gpus: [0, 1, 3] }`, `output { name: "more" data_type: TYPE_FP32 dims: [1] }`,
		`instance_group { name: "c" kind: KIND_CPU count: 4 passive: true }`, "",
		`instance_group { name: "b" kind: KIND_CPU count: 1 }`, `input { name: "extra" optional: true data_type: TYPE_FP32 dims: [1] }`,
		`parameters { key: "quire.labels" value { string_value: "text, title,figure" } }`, labels+
			param("quire.color_order", "rgb")+param("quire.score_threshold", "0.25")+param("quire.nms_iou", " 0.6 ")+
			param("quire.nms_candidates", "20")+param("quire.nms_keep", "10")+param("quire.batch", "4")+
			param("quire.max_age_ms", "2.5")+param("quire.in_flight", "3")+param("other", "x")))
	if err != nil {
		t.Fatal(err)
	}
	want := Contract{
		Model: "layout", Width: 16, Height: 32, MaxBatch: 1, Detections: 5, Labels: []string{"a"},
		ScoreThreshold: 0.25, IoUThreshold: 0.6, MaxCandidates: 20, MaxKept: 10,
		Batch: 4, MaxAge: 2500 * time.Microsecond, InFlight: 3, Instances: 1,
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	got, err = NewContract(servedConfig(t, "quire.labels", "other"))
	if err != nil || got.Labels != nil {
		t.Errorf("labels are %q (%v), want none yet: they are in a file", got.Labels, err)
	}
	got, err = NewContract(servedConfig(t, `name: "layout"`, `name: "layout"`+param("quire.max_age_ms", "0")))
	if err != nil || got.MaxAge >= 0 {
		t.Errorf("an age of 0 is %v (%v), want negative: do not wait", got.MaxAge, err)
	}
}

func TestNewContractRefuses(t *testing.T) {
	const wanted = "wanted max_batch_size 1 or more, input pages UINT8 [H,W,3], outputs boxes FP32 [K,4], scores FP32 [K], labels INT32 [K]"
	tests := []struct {
		name  string
		edits []string
		want  []string
	}{
		{"no batching", []string{"max_batch_size: 8", ""}, []string{"max_batch_size is 0", wanted}},
		{"another input name", []string{`"pages"`, `"image"`}, []string{"found max_batch_size 8, input image UINT8 [800,608,3]", "pages is missing", "it wants an input image too", wanted}},
		{"input not UINT8", []string{"TYPE_UINT8", "TYPE_FP32"}, []string{"pages is FP32 [800,608,3]", wanted}},
		{"channels first", []string{"[800, 608, 3]", "[3, 800, 608]"}, []string{"pages is UINT8 [3,800,608]", wanted}},
		{"free raster", []string{"[800, 608, 3]", "[-1, -1, 3]"}, []string{"pages is UINT8 [-1,-1,3]", wanted}},
		{"no raster", []string{"[800, 608, 3]", "[0, 608, 3]"}, []string{"pages is UINT8 [0,608,3]", wanted}},
		{"absurd raster", []string{"[800, 608, 3]", "[4611686018427387904, 608, 3]"}, []string{"pages is UINT8", wanted}},
		{"a second input", []string{"output {", `input { name: "scale" data_type: TYPE_FP32 dims: [2] } output {`}, []string{"it wants an input scale too"}},
		{"no boxes", []string{`"boxes"`, `"dets"`}, []string{"boxes is missing", "outputs dets FP32 [300,4], scores FP32 [300], labels INT32 [300]", wanted}},
		{"boxes of five", []string{"[300, 4]", "[300, 5]"}, []string{"boxes is FP32 [300,5]"}},
		{"free number of boxes", []string{"[300, 4]", "[-1, 4]"}, []string{"boxes is FP32 [-1,4]"}},
		{"another number of scores", []string{"[300]", "[299]"}, []string{"scores is FP32 [299]"}},
		{"labels INT64", []string{"TYPE_INT32", "TYPE_INT64"}, []string{"labels is INT64 [300]"}},
		{"decoupled", []string{`name: "layout"`, `name: "layout" model_transaction_policy { decoupled: true }`}, []string{"it is decoupled"}},
		{"sequences", []string{`name: "layout"`, `name: "layout" sequence_batching { }`}, []string{"sequence_batching", wanted}},
		{"BGR", []string{`name: "layout"`, param("quire.color_order", "BGR")}, []string{`quire.color_order is "BGR"`, "RGB"}},
		{"no labels", []string{"quire.labels", "other", `label_filename: "labels.txt"`, ""}, []string{"quire.labels", "separated by commas", "label_filename"}},
		{"an empty label", []string{"text, title", "text,,title"}, []string{`quire.labels is "text,,title,figure"`}},
		{"a label twice", []string{"text, title", "text, text"}, []string{`quire.labels is "text, text,figure"`}},
		{"threshold no number", []string{`name: "layout"`, param("quire.score_threshold", "high")}, []string{`quire.score_threshold is "high"`, "from 0 to 1"}},
		{"threshold NaN", []string{`name: "layout"`, param("quire.score_threshold", "NaN")}, []string{`quire.score_threshold is "NaN"`}},
		{"threshold above one", []string{`name: "layout"`, param("quire.score_threshold", "1.5")}, []string{`quire.score_threshold is "1.5"`}},
		{"overlap below zero", []string{`name: "layout"`, param("quire.nms_iou", "-0.1")}, []string{`quire.nms_iou is "-0.1"`}},
		{"batch zero", []string{`name: "layout"`, param("quire.batch", "0")}, []string{`quire.batch is "0"`}},
		{"window half", []string{`name: "layout"`, param("quire.in_flight", "1.5")}, []string{`quire.in_flight is "1.5"`}},
		{"age below zero", []string{`name: "layout"`, param("quire.max_age_ms", "-5")}, []string{`quire.max_age_ms is "-5"`}},
		{"age of two hours", []string{`name: "layout"`, param("quire.max_age_ms", "7200000")}, []string{`quire.max_age_ms is "7200000"`, "3.6e+06"}},
		{"more candidates than boxes can be", []string{`name: "layout"`, param("quire.nms_candidates", "65537")}, []string{`quire.nms_candidates is "65537"`, "from 1 to 65536"}},
		{"many inputs", []string{"output {", strings.Repeat(`input { name: "more" data_type: TYPE_FP32 dims: [1] } `, 9) + "output {"}, []string{"more FP32 [1], 4 more, outputs"}},
		{"many dimensions", []string{"[800, 608, 3]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]"}, []string{"pages UINT8 [1,2,3,4,5,6,7,8,…]"}},
		{"pages too large", []string{"[800, 608, 3]", "[60000, 60000, 3]"}, []string{"a page has 10800000000 bytes", wanted}},
		{"a label that is a book", []string{"text, title", "text, " + strings.Repeat("x", 300)}, []string{"label 1", "at most 200 bytes"}},
		{"a label that moves the cursor", []string{"text, title", "text, ti\\033[2Jtle"}, []string{"label 1"}},
		{"two faults are both named", []string{`name: "layout"`, param("quire.nms_keep", "x") + param("quire.nms_candidates", "y")}, []string{"quire.nms_keep", "quire.nms_candidates"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewContract(servedConfig(t, tt.edits...))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	if _, err := NewContract(&inferencepb.ModelConfig{}); err == nil || !strings.Contains(err.Error(), "no input, no outputs") {
		t.Errorf("an empty config gives %v", err)
	}
}

// FuzzContract reads whatever parses as a config: an error of bounded length, or
// a contract whose numbers can be worked with.
func FuzzContract(f *testing.F) {
	for _, edits := range [][]string{
		nil,
		{"max_batch_size: 8", "max_batch_size: 2147483647", "count: 2", "count: 2147483647"},
		{"[800, 608, 3]", "[65536, 65536, 3]"},
		{"[300, 4]", "[9223372036854775807, 4]"},
		{`name: "layout"`, param("quire.batch", "65536") + param("quire.in_flight", "65536")},
		{`name: "layout"`, param("quire.max_age_ms", "1e300")},
	} {
		data, err := proto.Marshal(servedConfig(f, edits...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		config := new(inferencepb.ModelConfig)
		if proto.Unmarshal(data, config) != nil {
			return
		}
		c, err := NewContract(config)
		if err != nil {
			if len(err.Error()) > 1<<14 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if c.Width < 1 || c.Height < 1 || c.Detections < 1 || c.PageBytes() < 3 || c.PageBytes() > maxPageBytes {
			t.Fatalf("pages of %d × %d with %d boxes", c.Width, c.Height, c.Detections)
		}
		for _, n := range []int{c.MaxBatch, c.Instances} {
			if n < 1 || n > maxAtOnce {
				t.Fatalf("batches of %d, %d instances", c.MaxBatch, c.Instances)
			}
		}
		if c.Batch < 0 || c.Batch > maxAtOnce || c.InFlight < 0 || c.InFlight > maxAtOnce || c.MaxAge > time.Hour || c.MaxCandidates < 1 || c.MaxKept < 1 {
			t.Fatalf("%+v", c)
		}
		if !(c.ScoreThreshold >= 0 && c.ScoreThreshold <= 1 && c.IoUThreshold >= 0 && c.IoUThreshold <= 1) {
			t.Fatalf("thresholds %v and %v", c.ScoreThreshold, c.IoUThreshold)
		}
	})
}

// Whatever the answers depend on makes a difference, and nothing else does.
func TestDiffers(t *testing.T) {
	contract := func(change func(*Contract)) *Contract {
		c := testContract()
		c.Source, c.Precision = "cafe", "f32"
		change(c)
		return c
	}
	same := contract(func(*Contract) {})
	for want, change := range map[string]func(*Contract){
		"model version (2, there 1)":                            func(c *Contract) { c.Version = "2" },
		"page width (101, there 100)":                           func(c *Contract) { c.Width++ },
		"page height (201, there 200)":                          func(c *Contract) { c.Height++ },
		"boxes a page (9, there 8)":                             func(c *Contract) { c.Detections++ },
		"network (beef, there cafe)":                            func(c *Contract) { c.Source = "beef" },
		"precision (none, there f32)":                           func(c *Contract) { c.Precision = "" },
		"labels (a,b, there text,title,doodle)":                 func(c *Contract) { c.Labels = []string{"a", "b"} },
		"score threshold (0.6, there 0.5)":                      func(c *Contract) { c.ScoreThreshold = 0.6 },
		"overlap threshold (0.6, there 0.5)":                    func(c *Contract) { c.IoUThreshold = 0.6 },
		"candidates a class (201, there 200)":                   func(c *Contract) { c.MaxCandidates++ },
		"regions kept a class (101, there 100)":                 func(c *Contract) { c.MaxKept++ },
		"page width (1, there 100), page height (2, there 200)": func(c *Contract) { c.Width, c.Height = 1, 2 },
	} {
		if got := same.Differs(contract(change)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for what, change := range map[string]func(*Contract){
		"batching": func(c *Contract) {
			c.MaxBatch, c.Batch, c.MaxAge, c.InFlight, c.Instances = 1, 1, time.Second, 1, 9
		},
		"a config that does not name the network": func(c *Contract) { c.Source = "" },
	} {
		other := contract(change)
		if got := same.Differs(other) + other.Differs(same); got != "" {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestNewestVersion(t *testing.T) {
	for want, versions := range map[string][]string{"": nil, "1": {"1"}, "10": {"2", "10", "9"}, "3": {"latest", "3"}} {
		if got := newestVersion(versions); got != want {
			t.Errorf("%v: got %q, want %q", versions, got, want)
		}
	}
}
