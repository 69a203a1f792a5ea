// Package tritonclient is a typed client of Triton Inference Server's gRPC API
// (inference.GRPCInferenceService): health, metadata, configuration, inference,
// statistics, the model repository and system shared memory. It neither batches
// nor retries; it moves one call, and says precisely how the call ended.
//
// # Errors
//
// Every failure is an *[Error] with a stable [Kind], made by one classifier from
// the gRPC code and the text, because Triton answers UNAVAILABLE for half a dozen
// different troubles. A Kind is an error too, so callers branch with
//
//	errors.Is(err, tritonclient.QueueFull)
//
// # Time
//
// Every call is bounded: by its timeout in [Config] or by its context, whichever
// ends first.
//
// # Memory
//
// Input tensors are borrowed for the length of [Client.Infer]: once it has
// returned, cancelled or not, nothing reads their bytes any more.
package tritonclient
