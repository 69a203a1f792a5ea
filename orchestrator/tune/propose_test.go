package tune

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	modelrepository "quire/model_repository"
	"quire/orchestrator"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/modelconfig"
)

func config(t *testing.T, name string) *modelconfig.File {
	t.Helper()
	text, err := modelrepository.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t *testing.T, text string) *modelconfig.File {
	t.Helper()
	file, err := modelconfig.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// startOf are the settings of a server that has this file.
func startOf(t *testing.T, file *modelconfig.File) Settings {
	t.Helper()
	start, _, err := settingsOf(file.Config())
	if err != nil {
		t.Fatal(err)
	}
	return (&Server{start: start}).Start(orchestrator.Input{})
}

// TestPropose: the config says what was chosen, with every comment, and what is
// the default anyway is not said.
func TestPropose(t *testing.T) {
	for _, name := range []string{"layout/config.pbtxt", "layout/configs/cpu.pbtxt"} {
		file := config(t, name)
		start := startOf(t, file)
		same, err := Propose(file, file.Config(), start)
		if err != nil || same.Text() != file.Text() {
			t.Errorf("%s: the settings that it has: %v\n%s", name, err, file.Diff(same))
		}

		to := Settings{MaxBatch: 16, Instances: 2, Delay: 500 * time.Microsecond, Batch: 16, MaxAge: 2500 * time.Microsecond, InFlight: 3}
		edited, err := Propose(file, file.Config(), to)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if now, _, err := settingsOf(edited.Config()); err != nil || !now.sameServer(to) {
			t.Errorf("%s: %v, %v", name, now, err)
		}
		c := edited.Config()
		if got := c.GetParameters()["quire.max_age_ms"].GetStringValue(); got != "2.5" {
			t.Errorf("%s: age %q", name, got)
		}
		for _, key := range []string{"quire.batch", "quire.in_flight"} {
			if p, said := c.GetParameters()[key]; said {
				t.Errorf("%s: %s is the default, and said: %v", name, key, p)
			}
		}
		if !slices.ContainsFunc(c.GetModelWarmup(), func(w *inferencepb.ModelWarmup) bool { return w.GetBatchSize() == 16 }) {
			t.Errorf("%s: the new batch is not warmed up", name)
		}
		if a, b := strings.Count(file.Text(), "#"), strings.Count(edited.Text(), "#"); b < a {
			t.Errorf("%s: %d of %d comments are left", name, b, a)
		}

		// Smaller, and other than the defaults.
		to = Settings{MaxBatch: 2, Instances: 1, Batch: 1, MaxAge: 20 * time.Millisecond, InFlight: 5}
		if edited, err = Propose(file, file.Config(), to); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c = edited.Config()
		if c.GetParameters()["quire.batch"].GetStringValue() != "1" || c.GetParameters()["quire.in_flight"].GetStringValue() != "5" {
			t.Errorf("%s: %v", name, c.GetParameters())
		}
		for _, w := range c.GetModelWarmup() {
			if w.GetBatchSize() > 2 {
				t.Errorf("%s: a warm-up of %d is left", name, w.GetBatchSize())
			}
		}
	}
}

// TestProposeDropsPreferred: sizes that the server should wait for belong to the
// settings that they were chosen with.
func TestProposeDropsPreferred(t *testing.T) {
	file := parse(t, "name: \"layout\"\nmax_batch_size: 8\ndynamic_batching {\n  # why these\n  preferred_batch_size: [ 4, 8 ]\n  max_queue_delay_microseconds: 100\n}\n")
	to := startOf(t, file)
	if same, err := Propose(file, file.Config(), to); err != nil || same.Text() != file.Text() {
		t.Errorf("nothing to change: %v\n%s", err, file.Diff(same))
	}
	to.MaxBatch, to.Batch = 16, 16
	edited, err := Propose(file, file.Config(), to)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(edited.Text(), "preferred_batch_size") || edited.Config().GetMaxBatchSize() != 16 {
		t.Errorf("written:\n%s", edited.Text())
	}
}

// TestProposeSaysAgain: what the file says and the choice does not is changed,
// also to what is the default.
func TestProposeSaysAgain(t *testing.T) {
	file := parse(t, "max_batch_size: 8\nparameters { key: \"quire.batch\" value { string_value: \"2\" } }\nparameters { key: \"quire.in_flight\" value { string_value: \"7\" } }\nparameters { key: \"quire.max_age_ms\" value { string_value: \"5\" } }\n")
	to := startOf(t, file)
	to.Batch, to.InFlight, to.MaxAge = to.MaxBatch, to.Instances+1, orchestrator.DefaultMaxAge
	edited, err := Propose(file, file.Config(), to)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"quire.batch": "8", "quire.in_flight": "2", "quire.max_age_ms": "20"} {
		if got := edited.Config().GetParameters()[key].GetStringValue(); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if len(edited.Config().GetModelWarmup()) != 0 || len(edited.Config().GetInstanceGroup()) != 0 {
		t.Errorf("more has changed:\n%s", file.Diff(edited))
	}
}

// TestProposeFillsIn: where the file leaves to the server what is changed, the
// server tells the kind.
func TestProposeFillsIn(t *testing.T) {
	file := parse(t, "name: \"layout\"\nmax_batch_size: 4 # as it is\n")
	served := file.Config()
	served.InstanceGroup = []*inferencepb.ModelInstanceGroup{{Kind: inferencepb.ModelInstanceGroup_KIND_GPU, Count: 1, Gpus: []int32{0}}}
	to := Settings{MaxBatch: 8, Instances: 2, Delay: 100 * time.Microsecond, Batch: 8, MaxAge: 20 * time.Millisecond, InFlight: 3}
	edited, err := Propose(file, served, to)
	if err != nil {
		t.Fatal(err)
	}
	c := edited.Config()
	if g := c.GetInstanceGroup(); len(g) != 1 || g[0].GetKind() != inferencepb.ModelInstanceGroup_KIND_GPU || g[0].GetCount() != 2 ||
		len(g[0].GetGpus()) != 0 || c.GetDynamicBatching().GetMaxQueueDelayMicroseconds() != 100 || !strings.Contains(edited.Text(), "# as it is") {
		t.Errorf("%s", edited.Text())
	}
	for _, want := range []string{"max_batch_size: 8", "KIND_GPU count: 2", "max_queue_delay_microseconds: 100", `"quire.in_flight" value { string_value: "3" }`} {
		if text := Instructions(served, to); !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestInstructions: the lines are those of the group that does the work, for each
// of its devices, and give no batcher to a model that has none.
func TestInstructions(t *testing.T) {
	served := &inferencepb.ModelConfig{InstanceGroup: []*inferencepb.ModelInstanceGroup{
		{Count: 5, Passive: true}, {Kind: inferencepb.ModelInstanceGroup_KIND_GPU, Count: 1, Gpus: []int32{0, 1}}, {Kind: inferencepb.ModelInstanceGroup_KIND_CPU, Count: 1},
	}}
	to := Settings{MaxBatch: 8, Instances: 4, Delay: noBatcher, Batch: 6, MaxAge: 2500 * time.Microsecond, InFlight: 3}
	want := `  max_batch_size: 8
  instance_group [ { kind: KIND_GPU count: 2 } ]
  parameters { key: "quire.batch" value { string_value: "6" } }
  parameters { key: "quire.max_age_ms" value { string_value: "2.5" } }
  parameters { key: "quire.in_flight" value { string_value: "3" } }
`
	if got := Instructions(served, to); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	to.Delay = 0
	if got := Instructions(served, to); !strings.Contains(got, "  dynamic_batching { max_queue_delay_microseconds: 0 }\n") {
		t.Errorf("%s", got)
	}
}

// TestProposePerDevice: a count is for each device, also of those that the
// server has filled in; what it fills in does not go into the file.
func TestProposePerDevice(t *testing.T) {
	for _, c := range []struct {
		groups, want string
		served       *inferencepb.ModelInstanceGroup
		instances    int
	}{
		{"instance_group [ { kind: KIND_GPU count: 1 } ]", "instance_group [ { kind: KIND_GPU count: 2 } ]",
			&inferencepb.ModelInstanceGroup{Kind: inferencepb.ModelInstanceGroup_KIND_GPU, Count: 1, Gpus: []int32{0, 1}}, 4},
		{"instance_group [ { kind: KIND_GPU gpus: [ 0, 1 ] } ]", "instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]",
			&inferencepb.ModelInstanceGroup{Kind: inferencepb.ModelInstanceGroup_KIND_GPU, Count: 1, Gpus: []int32{0, 1}}, 4},
		{"instance_group [ { kind: KIND_CPU } ]", "instance_group [ { count: 1 kind: KIND_CPU } ]",
			&inferencepb.ModelInstanceGroup{Kind: inferencepb.ModelInstanceGroup_KIND_CPU, Count: 2}, 1},
		{"instance_group [ { kind: KIND_CPU } ]", "instance_group [ { kind: KIND_CPU } ]",
			&inferencepb.ModelInstanceGroup{Kind: inferencepb.ModelInstanceGroup_KIND_CPU, Count: 2}, 2},
	} {
		file := parse(t, "max_batch_size: 4\ndynamic_batching { }\n"+c.groups+"\n")
		served := file.Config()
		served.InstanceGroup = []*inferencepb.ModelInstanceGroup{c.served}
		edited, err := Propose(file, served, Settings{MaxBatch: 4, Instances: c.instances, Batch: 4, MaxAge: orchestrator.DefaultMaxAge, InFlight: c.instances + 1})
		if err != nil {
			t.Fatal(err)
		}
		want := parse(t, "max_batch_size: 4\ndynamic_batching { }\n"+c.want+"\n")
		if !proto.Equal(edited.Config(), want.Config()) {
			t.Errorf("%s, %d instances:\n%s", c.groups, c.instances, edited.Text())
		}
	}
}
