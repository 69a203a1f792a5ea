package tritontest

import (
	"cmp"
	"encoding/binary"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// Model is a model that a [Server] serves. It has one input.
type Model struct {
	Name string
	// Version is "1" when empty. Older are versions that are served beside it, as
	// the same model.
	Version string
	Older   []string
	// Config is what ModelConfig answers; requests are checked against its
	// input and max_batch_size.
	Config *inferencepb.ModelConfig
	// Infer computes the outputs for a batch of n from the input's bytes,
	// which it must not keep. It is called from many goroutines.
	Infer func(input []byte, n int) []Output
}

// Output is an output tensor.
type Output struct {
	Name, Datatype string
	Shape          []int64
	Raw            []byte
}

func (m Model) withDefaults() Model {
	m.Version = cmp.Or(m.Version, "1")
	m.Config = proto.CloneOf(m.Config)
	m.Config.Name = m.Name
	return m
}

// served is a model and what happened to it. Its fields are under Server.mu.
type served struct {
	Model
	ready      bool
	batches    map[int]*batchCount
	ok, failed uint64
	lastInfer  time.Time
}

type batchCount struct {
	count uint64
	total time.Duration
}

// Labels are the classes of the layout model, by class index.
var Labels = []string{
	"text", "title", "figure", "figure_caption", "table", "table_caption", "header", "footer", "reference", "equation",
}

// Candidates is how many boxes the layout model gives a page.
const Candidates = 300

// Layout is a stand-in for quire's layout model with the same contract: input
// "pages" UINT8 [n,height,width,3], outputs "boxes" FP32 [n,300,4], "scores"
// FP32 [n,300] and "labels" INT32 [n,300], best first.
//
// Its answer depends on the pixels: a page with ink, that is with any channel
// below 128, has one box around all of it, x0,y0,x1,y1 in pixels, with score 0.9
// and the label of index ink-count modulo 10; a page without has none. All other
// candidates have score 0.
func Layout(height, width, maxBatch int) Model {
	parameters := map[string]*inferencepb.ModelParameter{}
	for key, value := range map[string]string{
		"quire.color_order":     "RGB",
		"quire.labels":          strings.Join(Labels, ","),
		"quire.score_threshold": "0.5",
		"quire.nms_iou":         "0.5",
		"quire.nms_candidates":  "200",
		"quire.nms_keep":        "100",
	} {
		parameters[key] = &inferencepb.ModelParameter{StringValue: value}
	}
	return Model{
		Name: "layout",
		Config: &inferencepb.ModelConfig{
			Backend:      "onnxruntime",
			MaxBatchSize: int32(maxBatch),
			Input: []*inferencepb.ModelInput{
				{Name: "pages", DataType: inferencepb.DataType_TYPE_UINT8, Dims: []int64{int64(height), int64(width), 3}},
			},
			Output: []*inferencepb.ModelOutput{
				{Name: "boxes", DataType: inferencepb.DataType_TYPE_FP32, Dims: []int64{Candidates, 4}},
				{Name: "scores", DataType: inferencepb.DataType_TYPE_FP32, Dims: []int64{Candidates}},
				{Name: "labels", DataType: inferencepb.DataType_TYPE_INT32, Dims: []int64{Candidates}, LabelFilename: "labels.txt"},
			},
			InstanceGroup: []*inferencepb.ModelInstanceGroup{
				{Name: "layout_0", Kind: inferencepb.ModelInstanceGroup_KIND_CPU, Count: 1},
			},
			SchedulingChoice: &inferencepb.ModelConfig_DynamicBatching{DynamicBatching: &inferencepb.ModelDynamicBatching{
				PreferredBatchSize: []int32{int32(maxBatch)},
			}},
			DefaultModelFilename: "model.onnx",
			Parameters:           parameters,
		},
		Infer: func(pages []byte, n int) []Output { return findInk(pages, n, height, width) },
	}
}

// findInk is the layout stand-in's model.
func findInk(pages []byte, n, height, width int) []Output {
	boxes := make([]float32, n*Candidates*4)
	scores := make([]float32, n*Candidates)
	labels := make([]int32, n*Candidates)
	for p := range n {
		page := pages[p*height*width*3:][:height*width*3]
		x0, y0, x1, y1, ink := width, height, 0, 0, 0
		for y := range height {
			row := page[y*width*3:][:width*3]
			for x := range width {
				if row[3*x] < 128 || row[3*x+1] < 128 || row[3*x+2] < 128 {
					ink++
					x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x+1), max(y1, y+1)
				}
			}
		}
		if ink == 0 {
			continue
		}
		copy(boxes[p*Candidates*4:], []float32{float32(x0), float32(y0), float32(x1), float32(y1)})
		scores[p*Candidates] = 0.9
		labels[p*Candidates] = int32(ink % len(Labels))
	}
	return []Output{
		floats("boxes", boxes, int64(n), Candidates, 4),
		floats("scores", scores, int64(n), Candidates),
		ints("labels", labels, int64(n), Candidates),
	}
}

// floats is an FP32 output.
func floats(name string, values []float32, shape ...int64) Output {
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return Output{Name: name, Datatype: "FP32", Shape: shape, Raw: raw}
}

// ints is an INT32 output.
func ints(name string, values []int32, shape ...int64) Output {
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(v))
	}
	return Output{Name: name, Datatype: "INT32", Shape: shape, Raw: raw}
}
