package tune

import (
	"strconv"
	"time"

	"quire/orchestrator"
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
