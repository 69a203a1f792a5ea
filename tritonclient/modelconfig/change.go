package modelconfig

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// SetParameter gives a config a parameter, in the place of one with this key.
func SetParameter(config *inferencepb.ModelConfig, key, value string) {
	if config.Parameters == nil {
		config.Parameters = map[string]*inferencepb.ModelParameter{}
	}
	config.Parameters[key] = &inferencepb.ModelParameter{StringValue: value}
}

// AddWarmup gives a config a warm-up request of that batch size, made after the
// one with the largest batch. It does nothing when there is one of that size, and
// when there is none to go by, or its inputs are files, which are made for their
// batch.
func AddWarmup(config *inferencepb.ModelConfig, batch int) {
	if batch < 1 {
		return
	}
	var like *inferencepb.ModelWarmup
	for _, w := range config.ModelWarmup {
		if w.BatchSize == uint32(batch) {
			return
		}
		if like == nil || w.BatchSize >= like.BatchSize {
			like = w
		}
	}
	if like == nil {
		return
	}
	for _, input := range like.Inputs {
		if _, file := input.InputDataType.(*inferencepb.ModelWarmup_Input_InputDataFile); file {
			return
		}
	}
	added := proto.CloneOf(like)
	added.BatchSize = uint32(batch)
	// "batch 8" becomes "batch 16".
	old := strconv.Itoa(int(like.BatchSize))
	if i := strings.LastIndex(like.Name, old); i >= 0 {
		added.Name = like.Name[:i] + strconv.Itoa(batch) + like.Name[i+len(old):]
	}
	if slices.ContainsFunc(config.ModelWarmup, func(w *inferencepb.ModelWarmup) bool { return w.Name == added.Name }) {
		added.Name += " batch " + strconv.Itoa(batch)
	}
	config.ModelWarmup = append(config.ModelWarmup, added)
}
