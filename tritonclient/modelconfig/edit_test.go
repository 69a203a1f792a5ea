package modelconfig

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// The changes that tuning makes.
func maxBatch(n int32) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) { c.MaxBatchSize = n }
}

func delay(microseconds uint64) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) { batching(c).MaxQueueDelayMicroseconds = microseconds }
}

func policy(c *inferencepb.ModelConfig) {
	batching(c).DefaultQueuePolicy = &inferencepb.ModelQueuePolicy{
		TimeoutAction: inferencepb.ModelQueuePolicy_DELAY, DefaultTimeoutMicroseconds: 1000, AllowTimeoutOverride: true, MaxQueueSize: 64,
	}
}

func dropPreferred(c *inferencepb.ModelConfig) { batching(c).PreferredBatchSize = nil }

func preferred(c *inferencepb.ModelConfig) { batching(c).PreferredBatchSize = []int32{4, 8} }

func instances(group int, n int32) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) { c.InstanceGroup[group].Count = n }
}

func firstGroup(c *inferencepb.ModelConfig) {
	c.InstanceGroup = []*inferencepb.ModelInstanceGroup{{Count: 2, Kind: inferencepb.ModelInstanceGroup_KIND_GPU}}
}

func moreGroups(c *inferencepb.ModelConfig) {
	c.InstanceGroup = append(c.InstanceGroup, &inferencepb.ModelInstanceGroup{Count: 1, Kind: inferencepb.ModelInstanceGroup_KIND_CPU})
}

func lessGroups(c *inferencepb.ModelConfig) {
	c.InstanceGroup = c.InstanceGroup[:len(c.InstanceGroup)-1]
}

func noGroups(c *inferencepb.ModelConfig) { c.InstanceGroup = nil }

func parameter(key, value string) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) { SetParameter(c, key, value) }
}

func noParameter(key string) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) { delete(c.Parameters, key) }
}

func warmup(batch int) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) { AddWarmup(c, batch) }
}

func named(name string) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) { c.Name = name }
}

func noBatching(c *inferencepb.ModelConfig) { c.SchedulingChoice = nil }

func batching(c *inferencepb.ModelConfig) *inferencepb.ModelDynamicBatching {
	if c.GetDynamicBatching() == nil {
		c.SchedulingChoice = &inferencepb.ModelConfig_DynamicBatching{DynamicBatching: &inferencepb.ModelDynamicBatching{}}
	}
	return c.GetDynamicBatching()
}

func TestUpdate(t *testing.T) {
	type change = func(*inferencepb.ModelConfig)
	tests := []struct {
		name    string
		text    string
		changes []change
		want    string
	}{
		{"value", "max_batch_size: 8 # most\n", []change{maxBatch(16)}, "max_batch_size: 16 # most\n"},
		{"value to zero stays", "max_batch_size: 8\n", []change{maxBatch(0)}, "max_batch_size: 0\n"},
		{"value behind a comment", "max_batch_size: # most\n  8\nname: 'x'\n", []change{maxBatch(16)}, "max_batch_size: # most\n  16\nname: 'x'\n"},
		{"value in hexadecimal", "max_batch_size:0x8", []change{maxBatch(16)}, "max_batch_size:16"},
		{"nothing", "max_batch_size: 8", []change{maxBatch(8)}, "max_batch_size: 8"},
		{"empty text", "", []change{maxBatch(8)}, "max_batch_size: 8\n"},
		{"only comments", "# a\n\n# b", []change{maxBatch(8)}, "# a\n\n# b\nmax_batch_size: 8"},
		{"new field behind the one before it", "name: \"x\"\nbackend: \"y\" # why\ninput { name: \"i\" }\n", []change{maxBatch(4)},
			"name: \"x\"\nbackend: \"y\" # why\nmax_batch_size: 4\ninput { name: \"i\" }\n"},
		{"no line break at the end", "name: \"x\"", []change{maxBatch(4)}, "name: \"x\"\nmax_batch_size: 4"},
		{"windows", "name: \"x\"\r\ndynamic_batching {\r\n\tmax_queue_delay_microseconds: 5\r\n}\r\n", []change{maxBatch(4), delay(7), dropPreferred, policy},
			"name: \"x\"\r\nmax_batch_size: 4\r\ndynamic_batching {\r\n\tmax_queue_delay_microseconds: 7\r\n\tdefault_queue_policy {\r\n\t\ttimeout_action: DELAY\r\n\t\tdefault_timeout_microseconds: 1000\r\n\t\tallow_timeout_override: true\r\n\t\tmax_queue_size: 64\r\n\t}\r\n}\r\n"},
		{"where a line was commented out", "name: \"x\"\n# The most pages.\n# max_batch_size: 8\n# More text.\nbackend: \"y\"\n", []change{maxBatch(4)},
			"name: \"x\"\n# The most pages.\n# max_batch_size: 8\nmax_batch_size: 4\n# More text.\nbackend: \"y\"\n"},
		{"one line", `name: "x" max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 5 }`, []change{maxBatch(4), delay(6), instancesNew(2), parameter("a", "b")},
			`name: "x" max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 6 } instance_group [ { count: 2 } ] parameters { key: "a" value { string_value: "b" } }`},
		{"one line with commas", `name: "x", max_batch_size: 8, dynamic_batching: { preferred_batch_size: [4, 8], max_queue_delay_microseconds: 5 }`, []change{dropPreferred, instancesNew(2)},
			`name: "x", max_batch_size: 8, dynamic_batching: { max_queue_delay_microseconds: 5 }, instance_group: [ { count: 2 } ]`},
		{"semicolons", "name: 'x';\nbackend: 'y';\ninstance_group { count: 1; };\n", []change{maxBatch(2), instances(0, 3), parameter("k", "v")},
			"name: 'x';\nbackend: 'y';\nmax_batch_size: 2;\ninstance_group { count: 3; };\nparameters { key: \"k\" value { string_value: \"v\" } };\n"},
		{"angle brackets", "dynamic_batching <\n  max_queue_delay_microseconds: 1\n>\ninstance_group [ < count: 1 >, < kind: KIND_CPU > ]\nparameters < key: 'a' value < string_value: 'b<#{' > >\n",
			[]change{delay(2), instances(0, 2), instances(1, 3), parameter("a", "c"), parameter("d", "e")},
			"dynamic_batching <\n  max_queue_delay_microseconds: 2\n>\ninstance_group [ < count: 2 >, < kind: KIND_CPU count: 3 > ]\nparameters < key: 'a' value < string_value: 'c' > >\nparameters < key: 'd' value < string_value: 'e' > >\n"},
		{"empty message on a line", "max_batch_size: 8\ndynamic_batching { }\n", []change{delay(5)}, "max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 5 }\n"},
		{"empty message on two lines", "dynamic_batching {\n}\n", []change{delay(5)}, "dynamic_batching {\n  max_queue_delay_microseconds: 5\n}\n"},
		{"message of comments", "dynamic_batching {\n\t# none yet\n}\n", []change{delay(5)}, "dynamic_batching {\n\t# none yet\n\tmax_queue_delay_microseconds: 5\n}\n"},
		{"commented-out message", "dynamic_batching {\n    max_queue_delay_microseconds: 5\n\n    # default_queue_policy {\n    #   max_queue_size: 9\n    # }\n    # End.\n}\n", []change{policy},
			"dynamic_batching {\n    max_queue_delay_microseconds: 5\n\n    # default_queue_policy {\n    #   max_queue_size: 9\n    # }\n    default_queue_policy {\n        timeout_action: DELAY\n        default_timeout_microseconds: 1000\n        allow_timeout_override: true\n        max_queue_size: 64\n    }\n    # End.\n}\n"},
		{"new message", "max_batch_size: 8\n", []change{policy},
			"max_batch_size: 8\ndynamic_batching {\n  default_queue_policy {\n    timeout_action: DELAY\n    default_timeout_microseconds: 1000\n    allow_timeout_override: true\n    max_queue_size: 64\n  }\n}\n"},
		{"message goes", "max_batch_size: 8\n# batching\ndynamic_batching {\n  preferred_batch_size: 4 # inside\n}\n# end\n", []change{noBatching}, "max_batch_size: 8\n# batching\n# end\n"},
		{"list goes with its line", "dynamic_batching {\n  # sizes\n  preferred_batch_size: [ 4,\n    8 ]\n  max_queue_delay_microseconds: 5\n}\n", []change{dropPreferred}, "dynamic_batching {\n  # sizes\n  max_queue_delay_microseconds: 5\n}\n"},
		{"list goes, the comment behind it stays", "dynamic_batching {\n  preferred_batch_size: [ 4, 8 ]  # measured\n}\n", []change{dropPreferred}, "dynamic_batching {\n  # measured\n}\n"},
		{"list in several fields goes", "dynamic_batching { preferred_batch_size: 4 preferred_batch_size: 8 max_queue_delay_microseconds: 5 }", []change{dropPreferred}, "dynamic_batching { max_queue_delay_microseconds: 5 }"},
		{"list changes", "dynamic_batching {\n  preferred_batch_size: 2\n  preferred_batch_size: 4\n}\n", []change{preferred}, "dynamic_batching {\n  preferred_batch_size: [ 4, 8 ]\n}\n"},
		{"new list", "dynamic_batching { }", []change{preferred}, "dynamic_batching { preferred_batch_size: [ 4, 8 ] }"},
		{"count that is not there", "instance_group [\n  {\n    kind: KIND_GPU # which\n    gpus: [ 0 ]\n  }\n]\n", []change{instances(0, 2)}, "instance_group [\n  {\n    kind: KIND_GPU # which\n    count: 2\n    gpus: [ 0 ]\n  }\n]\n"},
		{"group after group", "instance_group { count: 1 kind: KIND_GPU }\ninstance_group { count: 1 kind: KIND_CPU }\n", []change{instances(1, 4)}, "instance_group { count: 1 kind: KIND_GPU }\ninstance_group { count: 4 kind: KIND_CPU }\n"},
		{"first group", "max_batch_size: 1\n", []change{firstGroup}, "max_batch_size: 1\ninstance_group [\n  {\n    kind: KIND_GPU\n    count: 2\n  }\n]\n"},
		{"group in an empty list", "max_batch_size: 1\ninstance_group [ ]\n", []change{firstGroup}, "max_batch_size: 1\ninstance_group [\n  {\n    kind: KIND_GPU\n    count: 2\n  }\n]\n"},
		{"one group more", "instance_group [\n  {\n    count: 3\n    kind: KIND_GPU\n  }\n]\n", []change{moreGroups}, "instance_group [\n  {\n    count: 3\n    kind: KIND_GPU\n  },\n  {\n    count: 1\n    kind: KIND_CPU\n  }\n]\n"},
		{"one group less", "instance_group [ {count: 1}, # one\n  {count: 2} ]\n", []change{lessGroups}, "instance_group [ {count: 1} # one\n  ]\n"},
		{"no group", "instance_group [ {count: 1}, {count: 2} ]\nname: \"x\"\n", []change{noGroups}, "name: \"x\"\n"},
		{"parameter changes", `parameters { key: "a" value { string_value: "b" } } # why`, []change{parameter("a", "c\"\n")}, `parameters { key: "a" value { string_value: "c\"\n" } } # why`},
		{"parameter of pieces", "parameters { key: 'a' 'b' value { string_value: 'c'\n 'd' } }", []change{parameter("ab", "e")}, "parameters { key: 'a' 'b' value { string_value: 'e' } }"},
		{"parameter without value", `parameters { key: "a" }`, []change{parameter("a", "c")}, `parameters { key: "a" value { string_value: "c" } }`},
		{"parameter twice", "parameters { key: \"a\" value { string_value: \"1\" } }\nparameters { key: \"a\" value { string_value: \"2\" } }", []change{parameter("a", "3")}, "parameters { key: \"a\" value { string_value: \"1\" } }\nparameters { key: \"a\" value { string_value: \"3\" } }"},
		{"parameter twice goes", "parameters { key: \"a\" value { string_value: \"1\" } }\nname: \"x\"\nparameters { key: \"a\" value { string_value: \"2\" } }", []change{noParameter("a")}, "name: \"x\"\n"},
		{"parameters on many lines", "parameters: {\n  key: \"a\"\n  value: {\n    string_value: \"1\"\n  }\n}\n", []change{parameter("b", "2")}, "parameters: {\n  key: \"a\"\n  value: {\n    string_value: \"1\"\n  }\n}\nparameters: {\n  key: \"b\"\n  value: {\n    string_value: \"2\"\n  }\n}\n"},
		{"parameter beside its comment", "parameters { key: \"a\" value { string_value: \"1\" } }\n\n# Turn: b.\n# parameters { key: \"b\" value { string_value: \"8\" } }\n# parameters { key: \"c\" value { string_value: \"9\" } }\n",
			[]change{parameter("b", "2"), parameter("c", "3")},
			"parameters { key: \"a\" value { string_value: \"1\" } }\n\n# Turn: b.\n# parameters { key: \"b\" value { string_value: \"8\" } }\nparameters { key: \"b\" value { string_value: \"2\" } }\n# parameters { key: \"c\" value { string_value: \"9\" } }\nparameters { key: \"c\" value { string_value: \"3\" } }\n"},
		{"parameters in a list", "parameters [\n  {\n    key: \"a\"\n    value { string_value: \"1\" }\n  }, # first\n  { key: \"b\", value: { string_value: \"2\" } }\n]\n", []change{parameter("a", "9"), parameter("c", "3")},
			"parameters [\n  {\n    key: \"a\"\n    value { string_value: \"9\" }\n  }, # first\n  { key: \"b\", value: { string_value: \"2\" } },\n  { key: \"c\", value: { string_value: \"3\" } }\n]\n"},
		{"parameter goes from a list", `parameters [{ key: "a" }, { key: "b" }, { key: "c" }]`, []change{noParameter("b")}, `parameters [{ key: "a" }, { key: "c" }]`},
		{"parameters go from the end of a list", `parameters [{ key: "a" }, { key: "b" }, { key: "c" }]`, []change{noParameter("c"), noParameter("b")}, `parameters [{ key: "a" }]`},
		{"parameter goes from the beginning of a list", `parameters [{ key: "a" }, { key: "b" }]`, []change{noParameter("a")}, `parameters [ { key: "b" }]`},
		{"like a neighbour without comments", "parameters { key: \"a\" value { string_value: \"1\" } }\nparameters {\n  key: \"b\" # why\n}\n", []change{parameter("c", "3")},
			"parameters { key: \"a\" value { string_value: \"1\" } }\nparameters {\n  key: \"b\" # why\n}\nparameters { key: \"c\" value { string_value: \"3\" } }\n"},
		{"warm-up", "model_warmup [{ name: 'batch 8' batch_size: 8 inputs { key: 'p' value { data_type: TYPE_UINT8 dims: [ 8, 8 ] zero_data: true } } }]", []change{warmup(16), warmup(8)},
			"model_warmup [{ name: 'batch 8' batch_size: 8 inputs { key: 'p' value { data_type: TYPE_UINT8 dims: [ 8, 8 ] zero_data: true } } }, { name: 'batch 16' batch_size: 16 inputs { key: 'p' value { data_type: TYPE_UINT8 dims: [ 8, 8 ] zero_data: true } } }]"},
		{"comments that give orders to a formatter", "# txtpbfmt: sort_fields_by_field_name\nname: \"x\"\n# txtpbfmt: off\nbackend: \"y\"\n# txtpbfmt: on\nmax_batch_size: 1\n", []change{maxBatch(2)},
			"# txtpbfmt: sort_fields_by_field_name\nname: \"x\"\n# txtpbfmt: off\nbackend: \"y\"\n# txtpbfmt: on\nmax_batch_size: 2\n"},
		{"close together", "name:''dynamic_batching<>", []change{maxBatch(2), delay(3)}, "name:'' max_batch_size: 2 dynamic_batching{ max_queue_delay_microseconds: 3 }"},
		{"a comment with a carriage return", "dynamic_batching{#a\r0\n}", []change{delay(3)}, "dynamic_batching{#a\r0\n  max_queue_delay_microseconds: 3\n}"},
		{"a list goes from a file of Windows", "dynamic_batching {\r\n  preferred_batch_size: [ 4 ]\r\n  max_queue_delay_microseconds: 5\r\n}\r\n", []change{dropPreferred}, "dynamic_batching {\r\n  max_queue_delay_microseconds: 5\r\n}\r\n"},
		{"escapes in strings", "name: \"a\\\"#{\" # \"\nbackend: '\\'}#' # '\nmax_batch_size: 1\n", []change{maxBatch(2)}, "name: \"a\\\"#{\" # \"\nbackend: '\\'}#' # '\nmax_batch_size: 2\n"},
		{"quotes as before", "name: 'x'\n", []change{named("y")}, "name: 'y'\n"},
		{"quotes as before, if they can be", "name: 'x'\n", []change{named("it's")}, "name: \"it's\"\n"},
		{"escapes as they must be", "name: 'x'\n", []change{named("a\\b")}, "name: \"a\\\\b\"\n"},
		{"commented out in another message", "dynamic_batching {\n  # max_batch_size: 9\n  preferred_batch_size: 4\n}\n", []change{maxBatch(2)}, "dynamic_batching {\n  # max_batch_size: 9\n  preferred_batch_size: 4\n}\nmax_batch_size: 2\n"},
		{"commented out outside of the message", "# max_queue_delay_microseconds: 9\ndynamic_batching {\n  preferred_batch_size: 4\n}\n# max_queue_delay_microseconds: 8\n", []change{delay(5)},
			"# max_queue_delay_microseconds: 9\ndynamic_batching {\n  preferred_batch_size: 4\n  max_queue_delay_microseconds: 5\n}\n# max_queue_delay_microseconds: 8\n"},
		{"comments about a field", "name: \"x\"\n# max_batch_size is large.\n# max_batch_size\n# [ see there ]\nbackend: \"y\" # max_batch_size: 9\n", []change{maxBatch(2)},
			"name: \"x\"\n# max_batch_size is large.\n# max_batch_size\n# [ see there ]\nbackend: \"y\" # max_batch_size: 9\nmax_batch_size: 2\n"},
		{"fields of a later Triton", "name: \"x\"\nsomething_new { max_batch_size: 1 dynamic_batching: 'x{' list: [ <a: 1>, {} ] }\nmax_batch_size: 1\ndynamic_batching { newer: 5 }\n", []change{maxBatch(2), delay(3)},
			"name: \"x\"\nsomething_new { max_batch_size: 1 dynamic_batching: 'x{' list: [ <a: 1>, {} ] }\nmax_batch_size: 2\ndynamic_batching { newer: 5 max_queue_delay_microseconds: 3 }\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := mustParse(t, test.text)
			want := f.Config()
			for _, c := range test.changes {
				c(want)
			}
			edited, err := f.Update(want)
			if err != nil {
				t.Fatal(err)
			}
			if edited.Text() != test.want {
				t.Errorf("got\n%s\nwant\n%s", edited.Text(), test.want)
			}
			if !proto.Equal(edited.Config(), want) || f.Text() != test.text {
				t.Error("the edited text says something else, or the old one was changed")
			}
		})
	}
}

func instancesNew(n int32) func(*inferencepb.ModelConfig) {
	return func(c *inferencepb.ModelConfig) {
		c.InstanceGroup = []*inferencepb.ModelInstanceGroup{{Count: n}}
	}
}

func mustParse(t testing.TB, text string) *File {
	t.Helper()
	f, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestUpdateRefuses(t *testing.T) {
	tests := []struct{ name, text string }{
		{"not text format", "max_batch_size = 8"},
		{"wrong type", `max_batch_size: "8"`},
		{"twice", "max_batch_size: 8\nmax_batch_size: 9"},
		{"open", "dynamic_batching {"},
	}
	for _, test := range tests {
		if f, err := Parse([]byte(test.text)); err == nil {
			t.Errorf("%s: got %+v", test.name, f.Config())
		}
	}
	// What the text-format parser takes and the places are not known of is
	// refused, and not guessed.
	f := mustParse(t, "max_batch_size: - 8")
	if _, err := f.Update(&inferencepb.ModelConfig{MaxBatchSize: 4}); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("got %v", err)
	}
}

// Both configs of the model keep every line that a change is not about.
func TestOwnConfigs(t *testing.T) {
	for _, path := range []string{"config.pbtxt", "configs/cpu.pbtxt"} {
		text, err := os.ReadFile("../../model_repository/layout/" + path)
		if err != nil {
			t.Fatal(err)
		}
		f := mustParse(t, string(text))
		if same, err := f.Update(f.Config()); err != nil || same.Text() != string(text) || f.Diff(same) != "" {
			t.Errorf("%s: no change gave %v", path, err)
		}
		want := f.Config()
		for _, change := range []func(*inferencepb.ModelConfig){
			maxBatch(32), delay(500), dropPreferred, policy, instances(0, 2), warmup(32),
			parameter("quire.batch", "32"), parameter("quire.in_flight", "5"), parameter("quire.max_age_ms", "40"),
		} {
			change(want)
		}
		edited, err := f.Update(want)
		if err != nil {
			t.Fatal(err)
		}
		var lost []string
		for line := range strings.Lines(f.Diff(edited)) {
			if strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "---") {
				lost = append(lost, strings.TrimSpace(line[1:]))
			}
		}
		gone := []string{fmt.Sprintf("max_batch_size: %d", f.Config().MaxBatchSize), "count: 1", "max_queue_delay_microseconds: 0"}
		if got := strings.Join(lost, "|"); got != strings.Join(gone, "|") {
			t.Errorf("%s: these lines went: %s\n%s", path, got, f.Diff(edited))
		}
		for _, line := range []string{
			"\n  # }\n  default_queue_policy {\n    timeout_action: DELAY\n", "\nparameters { key: \"quire.in_flight\" value { string_value: \"5\" } }\n",
		} {
			if !strings.Contains(edited.Text(), line) {
				t.Errorf("%s: no %q in\n%s", path, line, edited.Text())
			}
		}
		// And back.
		back, err := edited.Update(f.Config())
		if err != nil || !proto.Equal(back.Config(), f.Config()) {
			t.Errorf("%s: the way back: %v", path, err)
		}
		if back.Text() != string(text) {
			t.Errorf("%s: the way back is not where it began:\n%s", path, f.Diff(back))
		}
	}
}

// A warm-up is made after the one with the largest batch, once, under a name of its
// own, and not where its inputs are made for another batch.
func TestAddWarmup(t *testing.T) {
	sizes := func(list ...uint32) (all []*inferencepb.ModelWarmup) {
		for _, n := range list {
			all = append(all, &inferencepb.ModelWarmup{Name: fmt.Sprintf("batch %d of 8", n), BatchSize: n, Count: n})
		}
		return all
	}
	file := sizes(4)
	file[0].Inputs = map[string]*inferencepb.ModelWarmup_Input{"p": {InputDataType: &inferencepb.ModelWarmup_Input_InputDataFile{InputDataFile: "page"}}}
	plain, taken := sizes(4), sizes(4)
	plain[0].Name, taken[0].Name = "first", "batch 4"
	taken = append(taken, &inferencepb.ModelWarmup{Name: "batch 16", BatchSize: 1})
	for _, c := range []struct {
		name  string
		have  []*inferencepb.ModelWarmup
		batch int
		want  *inferencepb.ModelWarmup
	}{
		{"the largest comes first", sizes(4, 1, 2), 16, &inferencepb.ModelWarmup{Name: "batch 16 of 8", BatchSize: 16, Count: 4}},
		{"the largest comes last", sizes(1, 2, 4), 16, &inferencepb.ModelWarmup{Name: "batch 16 of 8", BatchSize: 16, Count: 4}},
		{"there is one", sizes(4, 16, 8), 16, nil},
		{"there is none", nil, 16, nil},
		{"no batch", sizes(4), 0, nil},
		{"from a file", file, 16, nil},
		{"a name without a number", plain, 16, &inferencepb.ModelWarmup{Name: "first batch 16", BatchSize: 16, Count: 4}},
		{"a name that is taken", taken, 16, &inferencepb.ModelWarmup{Name: "batch 16 batch 16", BatchSize: 16, Count: 4}},
	} {
		config := &inferencepb.ModelConfig{ModelWarmup: c.have}
		want := proto.CloneOf(config)
		if c.want != nil {
			want.ModelWarmup = append(want.ModelWarmup, c.want)
		}
		if AddWarmup(config, c.batch); !proto.Equal(config, want) {
			t.Errorf("%s: %v, want %v", c.name, config, want)
		}
	}
}
