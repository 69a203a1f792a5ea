package modelconfig

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// FuzzUpdate: no text makes a panic; an edit says what was meant or is refused,
// and keeps every comment in its order.
func FuzzUpdate(f *testing.F) {
	for _, path := range []string{"config.pbtxt", "configs/cpu.pbtxt"} {
		text, err := os.ReadFile("../../model_repository/layout/" + path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, seed := range []string{
		"", "#", "max_batch_size:8", "name:'x',max_batch_size:8;dynamic_batching<>",
		"instance_group[<count:1>,{kind:KIND_CPU}]parameters[{key:'a'}]parameters{key:\"b\"value{}}",
		"dynamic_batching{#a\n}", "dynamic_batching {\r\n# max_queue_delay_microseconds: 5\r\n}", "new{a:[1,2]b:[<>,{}]}max_batch_size:-1",
		"model_warmup{batch_size:1 name:'1'inputs{key:'a'value{zero_data:true}}}#b", "% <%>\nname: \"%\\\"#\"", "instance_group[]",
	} {
		f.Add([]byte(seed))
	}
	changes := []func(*inferencepb.ModelConfig){
		func(c *inferencepb.ModelConfig) { c.MaxBatchSize += 7 },
		func(c *inferencepb.ModelConfig) { batching(c).MaxQueueDelayMicroseconds += 3 },
		policy,
		func(c *inferencepb.ModelConfig) {
			if len(c.InstanceGroup) > 0 {
				c.InstanceGroup[len(c.InstanceGroup)-1].Count += 7
			}
		},
		func(c *inferencepb.ModelConfig) {
			c.InstanceGroup = append(c.InstanceGroup, &inferencepb.ModelInstanceGroup{Count: 1})
		},
		parameter("a", "1"), parameter("c", "'\"\\\n\x00"),
		func(c *inferencepb.ModelConfig) { AddWarmup(c, 32) },
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse(text)
		if err != nil {
			return
		}
		want := file.Config()
		step := file
		for i, change := range changes {
			want := step.Config()
			change(want)
			edited, err := step.Update(want)
			if err != nil {
				continue
			}
			if again, err := Parse([]byte(edited.Text())); err != nil || !proto.Equal(again.Config(), want) {
				t.Fatalf("change %d of %q gave %q, %v", i, step.Text(), edited.Text(), err)
			}
			if got, had := comments(edited.Text()), comments(step.Text()); !slices.Equal(got, had) {
				t.Fatalf("change %d of %q gave %q", i, step.Text(), edited.Text())
			}
			step = edited
		}
		// The way back may take comments along, inside what goes.
		if back, err := step.Update(want); err == nil && !proto.Equal(back.Config(), want) {
			t.Fatalf("%q: the way back gave %q", text, back.Text())
		}
	})
}

func comments(text string) (all []string) {
	_, spans := blank(text)
	for _, c := range spans {
		all = append(all, strings.TrimRight(text[c.start:c.end], " \t"))
	}
	return all
}
