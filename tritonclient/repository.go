package tritonclient

import (
	"context"
	"encoding/json"

	"quire/tritonclient/inferencepb"
)

// RepositoryIndex lists the models of the server's repositories, and with
// onlyReady those that can be used. A model that was never loaded has neither
// version nor state.
func (c *Client) RepositoryIndex(ctx context.Context, onlyReady bool) ([]*inferencepb.RepositoryIndexResponse_ModelIndex, error) {
	res, err := call(ctx, c, "RepositoryIndex", "", c.config.CallTimeout, c.stub.RepositoryIndex,
		&inferencepb.RepositoryIndexRequest{Ready: onlyReady})
	return res.GetModels(), err
}

// LoadModel loads or reloads a model and returns when it is ready. override, when
// not empty, is a whole model configuration as JSON (protojson of
// [inferencepb.ModelConfig] will do) that stands in for config.pbtxt.
//
// An override stays: a later LoadModel without one keeps it, until the model is
// unloaded or the server restarts. While a model is reloaded its old copy keeps
// serving, and when the load fails the old copy stays.
//
// A server without explicit model control answers with kind
// ModelControlDisabled; a model that does not load, or not with that override,
// is LoadFailed.
func (c *Client) LoadModel(ctx context.Context, model string, override []byte) error {
	if model == "" {
		return c.badRequest("RepositoryModelLoad", "", "no model named")
	}
	req := &inferencepb.RepositoryModelLoadRequest{ModelName: model}
	if len(override) > 0 {
		if !json.Valid(override) {
			return c.badRequest("RepositoryModelLoad", model, "the override is not JSON")
		}
		req.Parameters = map[string]*inferencepb.ModelRepositoryParameter{
			"config": {ParameterChoice: &inferencepb.ModelRepositoryParameter_StringParam{StringParam: string(override)}},
		}
	}
	_, err := call(ctx, c, "RepositoryModelLoad", model, c.config.LoadTimeout, c.stub.RepositoryModelLoad, req)
	return err
}

// UnloadModel unloads a model; one that is not loaded is no error. It may return before the last requests in flight
// have ended.
func (c *Client) UnloadModel(ctx context.Context, model string) error {
	if model == "" {
		return c.badRequest("RepositoryModelUnload", "", "no model named")
	}
	_, err := call(ctx, c, "RepositoryModelUnload", model, c.config.LoadTimeout, c.stub.RepositoryModelUnload,
		&inferencepb.RepositoryModelUnloadRequest{ModelName: model})
	return err
}
