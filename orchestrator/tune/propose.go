package tune

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"quire/orchestrator"
	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/modelconfig"
)

// The parameters of a model's config that quire's batcher heeds.
const (
	keyBatch    = string(FieldBatch)
	keyMaxAge   = string(FieldMaxAge)
	keyInFlight = string(FieldInFlight)
)

// Propose returns a config file's text changed so that a server, and quire, do
// as the settings say. served is the config that the server had from the file.
func Propose(file *modelconfig.File, served *inferencepb.ModelConfig, to Settings) (*modelconfig.File, error) {
	config := file.Config()
	here := Server{original: config}
	if err := here.read(); err != nil {
		return nil, err
	}
	if len(config.GetInstanceGroup()) == 0 {
		// The server filled it in, so it knows the kind.
		var filled Server
		filled.original = served
		if err := filled.read(); err != nil {
			return nil, err
		}
		here.start.Instances = filled.start.Instances
		if filled.start.Instances != to.Instances && len(served.GetInstanceGroup()) > 0 {
			config.InstanceGroup = []*inferencepb.ModelInstanceGroup{{Kind: served.GetInstanceGroup()[0].GetKind()}}
		}
	}
	from := here.start
	SetServer(config, from, to)
	if from.MaxBatch != to.MaxBatch {
		modelconfig.AddWarmup(config, to.MaxBatch)
	}
	set := func(key, value, byDefault string) {
		// What is the default anyway is said only where it was said before.
		if _, said := config.GetParameters()[key]; said || value != byDefault {
			modelconfig.SetParameter(config, key, value)
		}
	}
	set(keyBatch, strconv.Itoa(to.Batch), strconv.Itoa(to.MaxBatch))
	set(keyMaxAge, milliseconds(to.MaxAge), milliseconds(orchestrator.DefaultMaxAge))
	set(keyInFlight, strconv.Itoa(to.InFlight), strconv.Itoa(to.Instances+1))
	return file.Update(config)
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', -1, 64)
}

// Instructions are the lines of a config that settings are.
func Instructions(served *inferencepb.ModelConfig, to Settings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  max_batch_size: %d\n", to.MaxBatch)
	for _, g := range served.GetInstanceGroup() {
		if !g.GetPassive() {
			fmt.Fprintf(&b, "  instance_group [ { kind: %v count: %d } ]\n", g.GetKind(), max(1, to.Instances/max(1, len(g.GetGpus()))))
			break
		}
	}
	if to.Delay >= 0 {
		fmt.Fprintf(&b, "  dynamic_batching { max_queue_delay_microseconds: %d }\n", to.Delay.Microseconds())
	}
	for _, p := range [][2]string{{keyBatch, strconv.Itoa(to.Batch)}, {keyMaxAge, milliseconds(to.MaxAge)}, {keyInFlight, strconv.Itoa(to.InFlight)}} {
		fmt.Fprintf(&b, "  parameters { key: %q value { string_value: %q } }\n", p[0], p[1])
	}
	return b.String()
}

// Serves tells whether a server serves a model as the settings say.
func Serves(ctx context.Context, client *tritonclient.Client, model string, s Settings) (bool, error) {
	config, err := client.ModelConfig(ctx, model, "")
	if err != nil {
		return false, err
	}
	now := Server{original: config}
	if err := now.read(); err != nil {
		return false, err
	}
	return now.start.sameServer(s), nil
}
