package modelrepository

import (
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"quire/scripts"
	"quire/tritonclient/inferencepb"
)

var configFiles = []string{"layout/config.pbtxt", "layout/configs/cpu.pbtxt"}

func text(t *testing.T, name string) string {
	t.Helper()
	data, err := fs.ReadFile(Files, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// parse reads a config as Triton does: with the official message and without
// tolerance for unknown fields.
func parse(t *testing.T, name, text string) *inferencepb.ModelConfig {
	t.Helper()
	config := new(inferencepb.ModelConfig)
	if err := prototext.Unmarshal([]byte(text), config); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return config
}

func both(t *testing.T) (gpu, cpu *inferencepb.ModelConfig) {
	t.Helper()
	return parse(t, configFiles[0], text(t, configFiles[0])), parse(t, configFiles[1], text(t, configFiles[1]))
}

func TestOneContract(t *testing.T) {
	gpu, cpu := both(t)
	for name, config := range map[string]*inferencepb.ModelConfig{"config.pbtxt": gpu, "cpu.pbtxt": cpu} {
		if config.GetName() != "layout" || config.GetBackend() != "onnxruntime" {
			t.Errorf("%s: name %q, backend %q", name, config.GetName(), config.GetBackend())
		}
		want := []*inferencepb.ModelInput{{Name: "pages", DataType: inferencepb.DataType_TYPE_UINT8, Dims: []int64{800, 608, 3}}}
		if !slices.EqualFunc(config.GetInput(), want, func(a, b *inferencepb.ModelInput) bool { return proto.Equal(a, b) }) {
			t.Errorf("%s: input %v", name, config.GetInput())
		}
		outputs := []*inferencepb.ModelOutput{
			{Name: "boxes", DataType: inferencepb.DataType_TYPE_FP32, Dims: []int64{300, 4}},
			{Name: "scores", DataType: inferencepb.DataType_TYPE_FP32, Dims: []int64{300}},
			{Name: "labels", DataType: inferencepb.DataType_TYPE_INT32, Dims: []int64{300}, LabelFilename: "labels.txt"},
		}
		if !slices.EqualFunc(config.GetOutput(), outputs, func(a, b *inferencepb.ModelOutput) bool { return proto.Equal(a, b) }) {
			t.Errorf("%s: output %v", name, config.GetOutput())
		}
		if config.GetDynamicBatching() == nil {
			t.Errorf("%s: no dynamic batching", name)
		}
	}

	labels := strings.Fields(text(t, "layout/labels.txt"))
	want := []string{"text", "title", "figure", "figure_caption", "table", "table_caption", "header", "footer", "reference", "equation"}
	if !slices.Equal(labels, want) {
		t.Errorf("labels.txt: %q", labels)
	}
}

func TestDevices(t *testing.T) {
	gpu, cpu := both(t)
	if kind := gpu.GetInstanceGroup()[0].GetKind(); kind != inferencepb.ModelInstanceGroup_KIND_GPU {
		t.Errorf("config.pbtxt: %v", kind)
	}
	if kind := cpu.GetInstanceGroup()[0].GetKind(); kind != inferencepb.ModelInstanceGroup_KIND_CPU {
		t.Errorf("cpu.pbtxt: %v", kind)
	}
	accelerators := cpu.GetOptimization().GetExecutionAccelerators().GetCpuExecutionAccelerator()
	if len(accelerators) != 1 || accelerators[0].GetName() != "openvino" {
		t.Errorf("cpu.pbtxt: accelerators %v, want openvino", accelerators)
	}
	// The CPU's only makes fewer requests, and the model is checked up to the
	// larger of both.
	if gpu.GetMaxBatchSize() < cpu.GetMaxBatchSize() || cpu.GetMaxBatchSize() < 1 {
		t.Errorf("max_batch_size: GPU %d, CPU %d", gpu.GetMaxBatchSize(), cpu.GetMaxBatchSize())
	}
}

// A single page and a full batch must be warm when the model is ready, and a
// warm-up beyond the limit would keep the model from loading.
func TestWarmUp(t *testing.T) {
	gpu, cpu := both(t)
	for name, config := range map[string]*inferencepb.ModelConfig{"config.pbtxt": gpu, "cpu.pbtxt": cpu} {
		var sizes []int32
		for _, sample := range config.GetModelWarmup() {
			sizes = append(sizes, int32(sample.GetBatchSize()))
			input := sample.GetInputs()["pages"]
			if input.GetDataType() != inferencepb.DataType_TYPE_UINT8 || !slices.Equal(input.GetDims(), config.GetInput()[0].GetDims()) {
				t.Errorf("%s: warm-up %q is not a page: %v", name, sample.GetName(), input)
			}
		}
		if slices.Min(sizes) != 1 || slices.Max(sizes) != config.GetMaxBatchSize() {
			t.Errorf("%s: warm-up of batches %v, want 1 to max_batch_size %d", name, sizes, config.GetMaxBatchSize())
		}
	}
}

func TestParameters(t *testing.T) {
	gpu, cpu := both(t)
	want := map[string]string{
		"quire.color_order": "RGB", "quire.score_threshold": "0.5", "quire.nms_iou": "0.5",
		"quire.nms_candidates": "200", "quire.nms_keep": "100",
	}
	// The network is the one that prepare_model.py takes.
	if source := regexp.MustCompile(`SOURCE_SHA256 = "(\w+)"`).FindSubmatch(scripts.PrepareModel); source != nil {
		want["quire.source_sha256"] = string(source[1])
	} else {
		t.Error("prepare_model.py names no SOURCE_SHA256")
	}
	for key, value := range want {
		for name, config := range map[string]*inferencepb.ModelConfig{"config.pbtxt": gpu, "cpu.pbtxt": cpu} {
			if got := config.GetParameters()[key].GetStringValue(); got != value {
				t.Errorf("%s: %s is %q, want %q", name, key, got, value)
			}
		}
	}
}

var choice = regexp.MustCompile(`^\s*# ?(default_queue_policy|optimization|parameters) ?\{`)

// uncomment takes the comment signs away from every choice that stands in a
// config as a comment, and tells how many there were.
func uncomment(text string) (string, int) {
	depth, count := 0, 0
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if depth == 0 && !choice.MatchString(line) {
			continue
		}
		if depth == 0 {
			count++
		}
		lines[i] = strings.Replace(line, "#", "", 1)
		depth += strings.Count(line, "{") - strings.Count(line, "}")
		depth += strings.Count(line, "[") - strings.Count(line, "]")
	}
	return strings.Join(lines, "\n"), count
}

func TestCommentedChoicesAreValid(t *testing.T) {
	for i, name := range configFiles {
		chosen, count := uncomment(text(t, name))
		config := parse(t, name, chosen)
		if want := []int{5, 4}[i]; count != want {
			t.Errorf("%s: %d commented choices, want %d", name, count, want)
		}
		policy := config.GetDynamicBatching().GetDefaultQueuePolicy()
		if policy.GetMaxQueueSize() == 0 || policy.GetDefaultTimeoutMicroseconds() == 0 || !policy.GetAllowTimeoutOverride() {
			t.Errorf("%s: queue policy %v", name, policy)
		}
		batch, err := strconv.Atoi(config.GetParameters()["quire.batch"].GetStringValue())
		if err != nil || batch != int(config.GetMaxBatchSize()) {
			t.Errorf("%s: the commented quire.batch is %d, want max_batch_size", name, batch)
		}
		for _, key := range []string{"quire.max_age_ms", "quire.in_flight"} {
			if n, err := strconv.Atoi(config.GetParameters()[key].GetStringValue()); err != nil || n < 1 {
				t.Errorf("%s: the commented %s is no positive number", name, key)
			}
		}
	}
	chosen, _ := uncomment(text(t, configFiles[0]))
	accelerators := parse(t, configFiles[0], chosen).GetOptimization().GetExecutionAccelerators().GetGpuExecutionAccelerator()
	if len(accelerators) != 1 || accelerators[0].GetName() != "tensorrt" {
		t.Errorf("config.pbtxt: the commented accelerators are %v, want tensorrt", accelerators)
	}
}

// What a user may turn has a comment above it that begins with "Turn:".
func TestEveryKnobIsExplained(t *testing.T) {
	knobs := map[string][]string{
		configFiles[0]: {
			"max_batch_size:", "count:", "max_queue_delay_microseconds:", "default_queue_policy", "optimization",
			"model_warmup", `"quire.score_threshold"`, `"quire.nms_iou"`, `"quire.batch"`,
		},
		configFiles[1]: {
			"max_batch_size:", "count:", "max_queue_delay_microseconds:", "default_queue_policy",
			`"intra_op_thread_count"`, `"quire.precision"`, `"quire.batch"`,
		},
	}
	for name, list := range knobs {
		lines := strings.Split(text(t, name), "\n")
		for _, knob := range list {
			// The line that sets it: the one that has a bracket or a value.
			at := slices.IndexFunc(lines, func(line string) bool {
				bare := strings.TrimLeft(line, "# \t")
				return strings.HasPrefix(bare, knob) || strings.HasPrefix(bare, "parameters { key: "+knob)
			})
			if at < 0 {
				t.Errorf("%s: no %s", name, knob)
				continue
			}
			// The knob may be inside a block that the comment stands above.
			explained := false
			for i := at - 1; i >= 0 && strings.TrimSpace(lines[i]) != ""; i-- {
				explained = explained || strings.Contains(lines[i], "Turn: ")
			}
			if !explained {
				t.Errorf("%s: %s has no comment that says what it does", name, knob)
			}
		}
	}
}
