package tune

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

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
	groups := config.GetInstanceGroup()
	config.InstanceGroup = filledIn(groups, served.GetInstanceGroup())
	from, _, err := settingsOf(config)
	if err != nil {
		return nil, err
	}
	setServer(config, from, to)
	// What the server fills in stays its business, but for what was changed.
	for i, g := range config.GetInstanceGroup() {
		if i < len(groups) {
			g.Gpus = groups[i].GetGpus()
		} else {
			g.Gpus = nil
		}
	}
	if from.Instances == to.Instances {
		config.InstanceGroup = groups
	}
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

// filledIn are a file's instance groups with what the server that took them has
// filled in: the kind, a count, and the devices that the count is for each of.
func filledIn(groups, served []*inferencepb.ModelInstanceGroup) []*inferencepb.ModelInstanceGroup {
	if len(groups) == 0 && len(served) > 0 {
		return []*inferencepb.ModelInstanceGroup{{Kind: served[0].GetKind(), Count: served[0].GetCount(), Gpus: served[0].GetGpus()}}
	}
	var filled []*inferencepb.ModelInstanceGroup
	for i, g := range groups {
		g = proto.CloneOf(g)
		if i < len(served) && g.GetCount() == 0 {
			g.Count = served[i].GetCount()
		}
		if i < len(served) && len(g.GetGpus()) == 0 {
			g.Gpus = served[i].GetGpus()
		}
		filled = append(filled, g)
	}
	return filled
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
	now, _, err := settingsOf(config)
	return err == nil && now.sameServer(s), err
}
