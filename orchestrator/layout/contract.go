package layout

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
)

// The names of the tensors of the contract.
const (
	inputPages   = "pages"
	outputBoxes  = "boxes"
	outputScores = "scores"
	outputLabels = "labels"
)

// The keys under "parameters" of the served config. Triton passes them on and
// ignores them.
const (
	keyColorOrder     = "quire.color_order"
	keyLabels         = "quire.labels"
	keyScoreThreshold = "quire.score_threshold"
	keyIoU            = "quire.nms_iou"
	keyCandidates     = "quire.nms_candidates"
	keyKeep           = "quire.nms_keep"
	keyBatch          = "quire.batch"
	keyMaxAge         = "quire.max_age_ms"
	keyInFlight       = "quire.in_flight"
	keySource         = "quire.source_sha256"
	keyPrecision      = "quire.precision"
)

// What holds where the served config says nothing.
const (
	defaultScoreThreshold = 0.5
	defaultIoU            = 0.5
	defaultCandidates     = 200
	defaultKeep           = 100
)

// maxTensorEdge bounds every dimension of the contract, so that products of
// them stay far inside an int.
const maxTensorEdge = 1 << 16

// What a config may ask for at most: beyond that it is a mistake, and would cost
// this machine its memory.
const (
	maxPageBytes = 256 << 20
	maxAtOnce    = 1024 // pages in a request; requests in flight
	maxLabel     = 200  // bytes
)

// Contract is what a served layout model says about itself.
type Contract struct {
	// Model and Version name the model as served.
	Model, Version string
	// Width and Height are the raster that the model wants, in pixels; its
	// input is UINT8 [n,Height,Width,3], RGB.
	Width, Height int
	// MaxBatch is the most pages in one request, at least 1.
	MaxBatch int
	// Detections is the fixed number of boxes that come back for each page.
	Detections int
	// Labels are the model's words for its classes, by class index. NewContract
	// leaves them nil when the config gives them in a file only; Open then has
	// the server read it out.
	Labels []string
	// ScoreThreshold is the score that a detection must exceed.
	ScoreThreshold float64
	// IoUThreshold is the overlap with a better box of its class that a box
	// must not exceed.
	IoUThreshold float64
	// MaxCandidates and MaxKept bound how many boxes of a class enter and
	// leave non-maximum suppression.
	MaxCandidates, MaxKept int
	// Batch, MaxAge and InFlight are the client-side settings that the served
	// config asks for; zero where it says nothing. A MaxAge of "0" in the
	// config, not to wait at all, is negative here.
	Batch    int
	MaxAge   time.Duration
	InFlight int
	// Instances is how many copies of the model the server runs, at least 1.
	Instances int
	// Source is the SHA-256, in hexadecimal, of the network that the model was
	// built from, as the config says; empty where it says nothing.
	Source string
	// Precision is what the config asks the model to compute in, empty where it
	// says nothing. Answers differ a little with it.
	Precision string
}

// PageBytes is the size of one page's input.
func (c *Contract) PageBytes() int { return c.Width * c.Height * 3 }

// input is the input of a request for so many pages, without its bytes.
func (c *Contract) input(pages int) tritonclient.Input {
	return tritonclient.Input{Name: inputPages, Datatype: "UINT8", Shape: []int64{int64(pages), int64(c.Height), int64(c.Width), 3}}
}

// NewContract reads a served config. The error says what was found and what was
// wanted, in one line.
func NewContract(config *inferencepb.ModelConfig) (*Contract, error) {
	c := &Contract{
		Model:     config.GetName(),
		MaxBatch:  min(int(config.GetMaxBatchSize()), maxAtOnce),
		Instances: instances(config.GetInstanceGroup()),
	}
	if err := c.readTensors(config); err != nil {
		return nil, err
	}
	labelFile := find(config.GetOutput(), outputLabels).GetLabelFilename()
	if err := c.readParameters(config.GetParameters(), labelFile); err != nil {
		return nil, err
	}
	return c, nil
}

// servedTensor is an input or an output as a config has it.
type servedTensor interface {
	GetName() string
	GetDataType() inferencepb.DataType
	GetDims() []int64
}

// find gives the tensor of that name; nil, which has no name, if there is none.
func find[T servedTensor](tensors []T, name string) (found T) {
	for _, t := range tensors {
		if t.GetName() == name {
			return t
		}
	}
	return found
}

// readTensors takes the shapes from the config.
func (c *Contract) readTensors(config *inferencepb.ModelConfig) error {
	var problems []string
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	if c.MaxBatch < 1 {
		problem("max_batch_size is %d", c.MaxBatch)
	}
	if config.GetModelTransactionPolicy().GetDecoupled() {
		problem("it is decoupled")
	}
	if config.GetSequenceBatching() != nil {
		problem("its sequence_batching takes sequences, and pages are none")
	}
	for _, in := range config.GetInput() {
		if in.GetName() != inputPages && !in.GetOptional() {
			problem("it wants an input %.40s too", in.GetName())
		}
	}
	// A wanted dimension of 0 is free; the found sizes come back.
	want := func(t servedTensor, name string, kind inferencepb.DataType, dims ...int64) []int64 {
		if t.GetName() != name {
			problem("%s is missing", name)
			return make([]int64, len(dims))
		}
		fits := slices.EqualFunc(t.GetDims(), dims, func(found, wanted int64) bool {
			return found >= 1 && found <= maxTensorEdge && (wanted == 0 || wanted == found)
		})
		if !fits || t.GetDataType() != kind {
			problem("%s is %s", name, shape(t))
			return make([]int64, len(dims))
		}
		return t.GetDims()
	}
	in, out := config.GetInput(), config.GetOutput()
	pages := want(find(in, inputPages), inputPages, inferencepb.DataType_TYPE_UINT8, 0, 0, 3)
	boxes := want(find(out, outputBoxes), outputBoxes, inferencepb.DataType_TYPE_FP32, 0, 4)
	want(find(out, outputScores), outputScores, inferencepb.DataType_TYPE_FP32, boxes[0])
	want(find(out, outputLabels), outputLabels, inferencepb.DataType_TYPE_INT32, boxes[0])
	c.Height, c.Width, c.Detections = int(pages[0]), int(pages[1]), int(boxes[0])
	if c.PageBytes() > maxPageBytes {
		problem("a page has %d bytes, more than %d", c.PageBytes(), maxPageBytes)
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("found %s (%s); wanted max_batch_size 1 or more, input pages UINT8 [H,W,3], outputs boxes FP32 [K,4], scores FP32 [K], labels INT32 [K]",
		describe(config), strings.Join(problems, ", "))
}

// describe writes a config's tensors in one line.
func describe(config *inferencepb.ModelConfig) string {
	return fmt.Sprintf("max_batch_size %d, %s, %s", config.GetMaxBatchSize(), list("input", config.GetInput()), list("outputs", config.GetOutput()))
}

func list[T servedTensor](word string, tensors []T) string {
	const most = 6 // are named
	if len(tensors) == 0 {
		return "no " + word
	}
	var items []string
	for _, t := range tensors[:min(len(tensors), most)] {
		items = append(items, fmt.Sprintf("%.40s %s", t.GetName(), shape(t)))
	}
	if len(tensors) > most {
		items = append(items, fmt.Sprintf("%d more", len(tensors)-most))
	}
	return word + " " + strings.Join(items, ", ")
}

func shape(t servedTensor) string {
	const most = 8 // dimensions are shown
	dims := t.GetDims()
	var sizes []string
	for _, d := range dims[:min(len(dims), most)] {
		sizes = append(sizes, strconv.FormatInt(d, 10))
	}
	if len(dims) > most {
		sizes = append(sizes, "…")
	}
	return strings.TrimPrefix(t.GetDataType().String(), "TYPE_") + " [" + strings.Join(sizes, ",") + "]"
}

// readParameters takes what the config says under quire.*.
func (c *Contract) readParameters(parameters map[string]*inferencepb.ModelParameter, labelFile string) error {
	var errs []error
	// get reports whether the key is there, which with an empty value it is not.
	get := func(key string) (string, bool) {
		v := strings.TrimSpace(parameters[key].GetStringValue())
		return v, v != ""
	}
	number := func(key string, otherwise, least, most float64) float64 {
		text, ok := get(key)
		if !ok {
			return otherwise
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= least && v <= most) {
			errs = append(errs, fmt.Errorf("parameter %s is %.200q, wanted a number from %v to %v", key, text, least, most))
		}
		return v
	}
	count := func(key string, otherwise int) int {
		text, ok := get(key)
		if !ok {
			return otherwise
		}
		v, err := strconv.Atoi(text)
		if err != nil || v < 1 || v > maxTensorEdge {
			errs = append(errs, fmt.Errorf("parameter %s is %.200q, wanted a whole number from 1 to %d", key, text, maxTensorEdge))
		}
		return v
	}
	if order, ok := get(keyColorOrder); ok && !strings.EqualFold(order, "RGB") {
		errs = append(errs, fmt.Errorf("parameter %s is %.200q, and pages are drawn as RGB: change the order inside the model", keyColorOrder, order))
	}
	if text, ok := get(keyLabels); ok {
		var err error
		if c.Labels, err = checkLabels(strings.Split(text, ",")); err != nil {
			errs = append(errs, fmt.Errorf("parameter %s is %.200q: %w", keyLabels, text, err))
		}
	} else if labelFile == "" {
		errs = append(errs, fmt.Errorf("there are no labels: wanted label_filename at output %s, or parameter %s with the labels separated by commas", outputLabels, keyLabels))
	}
	c.ScoreThreshold = number(keyScoreThreshold, defaultScoreThreshold, 0, 1)
	c.IoUThreshold = number(keyIoU, defaultIoU, 0, 1)
	c.MaxCandidates = count(keyCandidates, defaultCandidates)
	c.MaxKept = count(keyKeep, defaultKeep)
	c.Precision, _ = get(keyPrecision)
	c.Batch = min(count(keyBatch, 0), maxAtOnce)
	c.InFlight = min(count(keyInFlight, 0), maxAtOnce)
	c.Source, _ = get(keySource)
	if _, ok := get(keyMaxAge); ok {
		ms := number(keyMaxAge, 0, 0, float64(time.Hour/time.Millisecond))
		c.MaxAge = time.Duration(math.Round(ms * float64(time.Millisecond)))
		if c.MaxAge == 0 {
			c.MaxAge = -1
		}
	}
	return errors.Join(errs...)
}

// checkLabels trims labels and makes sure that each is there once.
func checkLabels(raw []string) ([]string, error) {
	labels := make([]string, 0, len(raw))
	for i, label := range raw {
		label = strings.TrimSpace(label)
		if label == "" || slices.Contains(labels, label) {
			return nil, fmt.Errorf("label %d is %.40q, wanted a word for each class, in the order of the class indices, none empty and none twice", i, label)
		}
		if len(label) > maxLabel || !utf8.ValidString(label) || strings.ContainsFunc(label, unicode.IsControl) {
			return nil, fmt.Errorf("label %d is %.40q…, wanted at most %d bytes of text", i, label, maxLabel)
		}
		labels = append(labels, label)
	}
	return labels, nil
}

// instances adds up the copies of the model over groups and devices. The server
// fills the groups in when it gives the config out.
func instances(groups []*inferencepb.ModelInstanceGroup) int {
	n := 0
	for _, g := range groups {
		if g.GetPassive() {
			continue // takes no requests
		}
		n += min(max(1, int(g.GetCount())), maxAtOnce) * max(1, len(g.GetGpus()))
	}
	return min(max(1, n), maxAtOnce)
}

// newestVersion picks the version that the server itself would take.
func newestVersion(versions []string) string {
	newest, best := "", int64(-1)
	for _, v := range versions {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && n > best {
			newest, best = v, n
		}
	}
	return newest
}

// Differs tells in words what of the answers of other would not be those of c;
// empty when only batching does.
func (c *Contract) Differs(other *Contract) string { return c.differs(other, "there") }

// differs tells in words what of the answers would change from c, which is said
// as was, to now; empty when only batching does.
func (c *Contract) differs(now *Contract, was string) string {
	var changed []string
	note := func(what string, from, to any) {
		if from != to {
			changed = append(changed, fmt.Sprintf("%s (%v, %s %v)", what, to, was, from))
		}
	}
	note("model version", c.Version, now.Version)
	note("page width", c.Width, now.Width)
	note("page height", c.Height, now.Height)
	note("boxes a page", c.Detections, now.Detections)
	if c.Source != "" && now.Source != "" {
		note("network", c.Source, now.Source)
	}
	note("precision", cmp.Or(c.Precision, "none"), cmp.Or(now.Precision, "none"))
	note("labels", strings.Join(c.Labels, ","), strings.Join(now.Labels, ","))
	note("score threshold", c.ScoreThreshold, now.ScoreThreshold)
	note("overlap threshold", c.IoUThreshold, now.IoUThreshold)
	note("candidates a class", c.MaxCandidates, now.MaxCandidates)
	note("regions kept a class", c.MaxKept, now.MaxKept)
	return strings.Join(changed, ", ")
}
