package tritontest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// service answers the RPCs.
type service struct {
	inferencepb.UnimplementedGRPCInferenceServiceServer
	s *Server
}

// faultKey is where intercept leaves the call's Fault for ModelInfer to edit.
type faultKey struct{}

// intercept records every call and does what the script says.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	call := Call{Method: path.Base(info.FullMethod), Request: req}
	call.Header, _ = metadata.FromIncomingContext(ctx)
	call.Deadline, _ = ctx.Deadline()
	switch m := req.(type) {
	case *inferencepb.ModelInferRequest:
		call.Model, call.ID = m.GetModelName(), m.GetId()
		if len(m.GetInputs()) > 0 {
			in := m.GetInputs()[0]
			if len(in.GetShape()) > 0 {
				call.Batch = int(in.GetShape()[0])
			}
			call.Region = in.GetParameters()["shared_memory_region"].GetStringParam()
		}
		for _, raw := range m.GetRawInputContents() {
			call.Bytes += len(raw)
		}
	case interface{ GetModelName() string }:
		call.Model = m.GetModelName()
	case *inferencepb.SystemSharedMemoryRegisterRequest:
		call.Region = m.GetName()
	case *inferencepb.SystemSharedMemoryUnregisterRequest:
		call.Region = m.GetName()
	case interface{ GetName() string }:
		call.Model = m.GetName()
	}

	s.mu.Lock()
	call.Index = s.arrived[call.Method]
	s.arrived[call.Method]++
	s.inFlight[call.Method]++
	call.InFlight = s.inFlight[call.Method]
	recorded := call
	recorded.Request = nil
	s.calls = append(s.calls, recorded)
	s.announceLocked()
	script, l := s.script, s.listener
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inFlight[call.Method]--
		s.announceLocked()
	}()

	if key := s.config.RestrictedKey; key != "" && !strings.HasPrefix(call.Method, "Server") {
		header := "triton-grpc-protocol-" + key
		if !slices.Equal(call.Header.Get(header), []string{s.config.RestrictedValue}) {
			return nil, status.Errorf(codes.Unavailable, "This protocol is restricted, expecting header '%s'", header)
		}
	}
	var fault Fault
	if script != nil {
		fault = script(&call)
	}
	if err := fault.wait(ctx); err != nil {
		return nil, err
	}
	if fault.Disconnect && l != nil {
		l.cut()
	}
	if fault.Err != nil {
		if call.Method == "ModelInfer" {
			s.count(call.Model, 0, 0)
		}
		return nil, fault.Err
	}
	return handle(context.WithValue(ctx, faultKey{}, fault), req)
}

// count adds a ModelInfer to its model's statistics: a batch of n that took so
// long, or a failed one when n is 0.
func (s *Server) count(model string, n int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.models[model]
	switch {
	case m == nil:
	case n == 0:
		m.failed++
	default:
		if m.batches == nil {
			m.batches = map[int]*batchCount{}
		}
		b := m.batches[n]
		if b == nil {
			b = &batchCount{}
			m.batches[n] = b
		}
		m.ok++
		b.count++
		b.total += took
		m.lastInfer = time.Now()
	}
}

// model finds a model that can be used, in Triton's words.
func (v service) model(name, version string) (Model, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	m := v.s.models[name]
	switch {
	case m == nil:
		return Model{}, status.Errorf(codes.NotFound, "Request for unknown model: '%s' is not found", name)
	case !m.ready:
		return Model{}, status.Errorf(codes.NotFound, "Request for unknown model: '%s' has no available versions", name)
	case slices.Contains(m.Older, version):
		older := m.Model
		older.Version = version
		return older, nil
	case version != "" && version != m.Version:
		return Model{}, status.Errorf(codes.NotFound, "Request for unknown model: '%s' version %s is not found", name, version)
	}
	return m.Model, nil
}

func (v service) ServerLive(context.Context, *inferencepb.ServerLiveRequest) (*inferencepb.ServerLiveResponse, error) {
	return &inferencepb.ServerLiveResponse{Live: true}, nil
}

func (v service) ServerReady(context.Context, *inferencepb.ServerReadyRequest) (*inferencepb.ServerReadyResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	ready := true
	for _, m := range v.s.models {
		ready = ready && m.ready
	}
	return &inferencepb.ServerReadyResponse{Ready: ready}, nil
}

func (v service) ModelReady(_ context.Context, req *inferencepb.ModelReadyRequest) (*inferencepb.ModelReadyResponse, error) {
	_, err := v.model(req.GetName(), req.GetVersion())
	return &inferencepb.ModelReadyResponse{Ready: err == nil}, nil
}

func (v service) ServerMetadata(context.Context, *inferencepb.ServerMetadataRequest) (*inferencepb.ServerMetadataResponse, error) {
	return &inferencepb.ServerMetadataResponse{
		Name: "triton", Version: "2.51.0",
		Extensions: []string{"model_repository", "model_configuration", "system_shared_memory", "statistics"},
	}, nil
}

func (v service) ModelMetadata(_ context.Context, req *inferencepb.ModelMetadataRequest) (*inferencepb.ModelMetadataResponse, error) {
	m, err := v.model(req.GetName(), req.GetVersion())
	if err != nil {
		return nil, err
	}
	res := &inferencepb.ModelMetadataResponse{Name: m.Name, Versions: []string{m.Version}, Platform: m.Config.GetPlatform()}
	if req.GetVersion() == "" {
		res.Versions = append(slices.Clone(m.Older), m.Version)
	}
	for _, in := range m.Config.GetInput() {
		res.Inputs = append(res.Inputs, tensorMetadata(m, in.GetName(), in.GetDataType(), in.GetDims()))
	}
	for _, out := range m.Config.GetOutput() {
		res.Outputs = append(res.Outputs, tensorMetadata(m, out.GetName(), out.GetDataType(), out.GetDims()))
	}
	return res, nil
}

func tensorMetadata(m Model, name string, datatype inferencepb.DataType, dims []int64) *inferencepb.ModelMetadataResponse_TensorMetadata {
	if m.Config.GetMaxBatchSize() > 0 {
		dims = append([]int64{-1}, dims...)
	}
	return &inferencepb.ModelMetadataResponse_TensorMetadata{Name: name, Datatype: word(datatype), Shape: dims}
}

// word is a config's data type in the words of requests.
func word(datatype inferencepb.DataType) string {
	if datatype == inferencepb.DataType_TYPE_STRING {
		return "BYTES"
	}
	return strings.TrimPrefix(datatype.String(), "TYPE_")
}

func (v service) ModelConfig(_ context.Context, req *inferencepb.ModelConfigRequest) (*inferencepb.ModelConfigResponse, error) {
	m, err := v.model(req.GetName(), req.GetVersion())
	if err != nil {
		return nil, err
	}
	return &inferencepb.ModelConfigResponse{Config: proto.CloneOf(m.Config)}, nil
}

func (v service) ModelStatistics(_ context.Context, req *inferencepb.ModelStatisticsRequest) (*inferencepb.ModelStatisticsResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if name := req.GetName(); name != "" && v.s.models[name] == nil {
		return nil, status.Errorf(codes.InvalidArgument, "requested model '%s' is not available", name)
	}
	res := &inferencepb.ModelStatisticsResponse{}
	for _, name := range slices.Sorted(maps.Keys(v.s.models)) {
		m := v.s.models[name]
		if !m.ready || req.GetName() != "" && req.GetName() != name {
			continue
		}
		stats := &inferencepb.ModelStatistics{Name: name, Version: m.Version, InferenceStats: &inferencepb.InferStatistics{
			Success: &inferencepb.StatisticDuration{Count: m.ok},
			Fail:    &inferencepb.StatisticDuration{Count: m.failed},
			Queue:   &inferencepb.StatisticDuration{Count: m.ok},
		}}
		if !m.lastInfer.IsZero() {
			stats.LastInference = uint64(m.lastInfer.UnixMilli())
		}
		for _, n := range slices.Sorted(maps.Keys(m.batches)) {
			b := m.batches[n]
			stats.InferenceCount += uint64(n) * b.count
			stats.ExecutionCount += b.count
			compute := &inferencepb.StatisticDuration{Count: b.count, Ns: uint64(b.total)}
			stats.BatchStats = append(stats.BatchStats, &inferencepb.InferBatchStatistics{
				BatchSize: uint64(n), ComputeInfer: compute,
				ComputeInput:  &inferencepb.StatisticDuration{Count: b.count},
				ComputeOutput: &inferencepb.StatisticDuration{Count: b.count},
			})
		}
		res.ModelStats = append(res.ModelStats, stats)
	}
	return res, nil
}

func (v service) RepositoryIndex(_ context.Context, req *inferencepb.RepositoryIndexRequest) (*inferencepb.RepositoryIndexResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	res := &inferencepb.RepositoryIndexResponse{}
	for _, name := range slices.Sorted(maps.Keys(v.s.models)) {
		m := v.s.models[name]
		index := &inferencepb.RepositoryIndexResponse_ModelIndex{Name: name, Version: m.Version, State: "READY"}
		if !m.ready {
			if req.GetReady() {
				continue
			}
			index.State, index.Reason = "UNAVAILABLE", "unloaded"
		}
		res.Models = append(res.Models, index)
	}
	return res, nil
}

func (v service) RepositoryModelLoad(_ context.Context, req *inferencepb.RepositoryModelLoadRequest) (*inferencepb.RepositoryModelLoadResponse, error) {
	if v.s.config.NoModelControl {
		return nil, status.Error(codes.Unavailable, "explicit model load / unload is not allowed if polling is enabled")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	failed := status.Errorf(codes.Internal, "failed to load '%s', failed to poll from model repository", req.GetModelName())
	m := v.s.models[req.GetModelName()]
	if m == nil {
		return nil, failed
	}
	loaded := &served{Model: m.Model, ready: true}
	if override := req.GetParameters()["config"].GetStringParam(); override != "" {
		config := &inferencepb.ModelConfig{}
		if !json.Valid([]byte(override)) || protojson.Unmarshal([]byte(override), config) != nil {
			return nil, failed
		}
		loaded.Config = config
		loaded.Config.Name = m.Name
	}
	v.s.models[m.Name] = loaded
	return &inferencepb.RepositoryModelLoadResponse{}, nil
}

func (v service) RepositoryModelUnload(_ context.Context, req *inferencepb.RepositoryModelUnloadRequest) (*inferencepb.RepositoryModelUnloadResponse, error) {
	if v.s.config.NoModelControl {
		return nil, status.Error(codes.Unavailable, "explicit model load / unload is not allowed if polling is enabled")
	}
	v.s.SetReady(req.GetModelName(), false)
	return &inferencepb.RepositoryModelUnloadResponse{}, nil
}

var errNoSharedMemory = status.Error(codes.Unimplemented,
	"Client shared memory is disabled. Restart the server with --allow-client-shm=true to enable it.")

func (v service) SystemSharedMemoryRegister(_ context.Context, req *inferencepb.SystemSharedMemoryRegisterRequest) (*inferencepb.SystemSharedMemoryRegisterResponse, error) {
	if v.s.config.NoSharedMemory {
		return nil, errNoSharedMemory
	}
	if err := v.s.regions.register(req.GetName(), req.GetKey(), req.GetOffset(), req.GetByteSize()); err != nil {
		return nil, err
	}
	return &inferencepb.SystemSharedMemoryRegisterResponse{}, nil
}

func (v service) SystemSharedMemoryUnregister(_ context.Context, req *inferencepb.SystemSharedMemoryUnregisterRequest) (*inferencepb.SystemSharedMemoryUnregisterResponse, error) {
	if v.s.config.NoSharedMemory {
		return nil, errNoSharedMemory
	}
	unregister := v.s.regions.unregisterAll
	if name := req.GetName(); name != "" {
		unregister = func() error { return v.s.regions.unregister(name) }
	}
	if err := unregister(); err != nil {
		return nil, err
	}
	return &inferencepb.SystemSharedMemoryUnregisterResponse{}, nil
}

func (v service) SystemSharedMemoryStatus(_ context.Context, req *inferencepb.SystemSharedMemoryStatusRequest) (*inferencepb.SystemSharedMemoryStatusResponse, error) {
	v.s.regions.mu.Lock()
	defer v.s.regions.mu.Unlock()
	res := &inferencepb.SystemSharedMemoryStatusResponse{Regions: map[string]*inferencepb.SystemSharedMemoryStatusResponse_RegionStatus{}}
	for name, r := range v.s.regions.byName {
		if req.GetName() == "" || req.GetName() == name {
			res.Regions[name] = &inferencepb.SystemSharedMemoryStatusResponse_RegionStatus{Name: name, Key: r.key, Offset: r.offset, ByteSize: r.size}
		}
	}
	if req.GetName() != "" && len(res.Regions) == 0 {
		return nil, status.Errorf(codes.NotFound, "Unable to find system shared memory region: '%s'", req.GetName())
	}
	return res, nil
}

func (v service) ModelInfer(ctx context.Context, req *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, error) {
	m, err := v.model(req.GetModelName(), req.GetModelVersion())
	if err != nil {
		return nil, err
	}
	n, data, release, err := v.input(m, req)
	if err != nil {
		return nil, err
	}
	defer release()
	start := time.Now()
	outputs := m.Infer(data, n)
	v.s.count(m.Name, n, time.Since(start))

	res := &inferencepb.ModelInferResponse{ModelName: m.Name, ModelVersion: m.Version, Id: req.GetId()}
	for _, out := range outputs {
		if len(req.GetOutputs()) > 0 && !slices.ContainsFunc(req.GetOutputs(), func(o *inferencepb.ModelInferRequest_InferRequestedOutputTensor) bool {
			return o.GetName() == out.Name
		}) {
			continue
		}
		res.Outputs = append(res.Outputs, &inferencepb.ModelInferResponse_InferOutputTensor{Name: out.Name, Datatype: out.Datatype, Shape: out.Shape})
		res.RawOutputContents = append(res.RawOutputContents, out.Raw)
	}
	if fault, _ := ctx.Value(faultKey{}).(Fault); fault.Edit != nil {
		fault.Edit(res)
	}
	return res, nil
}

// input checks a request as Triton does and finds its batch size and bytes,
// which stay valid until release.
func (v service) input(m Model, req *inferencepb.ModelInferRequest) (n int, data []byte, release func(), err error) {
	invalid := func(format string, args ...any) (int, []byte, func(), error) {
		return 0, nil, nil, status.Errorf(codes.InvalidArgument, "[request id: <id_unknown>] "+format, args...)
	}
	want := m.Config.GetInput()[0]
	if len(req.GetInputs()) != 1 {
		return invalid("expected 1 inputs but got %d inputs for model '%s'", len(req.GetInputs()), m.Name)
	}
	for _, out := range req.GetOutputs() {
		if !slices.ContainsFunc(m.Config.GetOutput(), func(o *inferencepb.ModelOutput) bool { return o.GetName() == out.GetName() }) {
			return invalid("unexpected inference output '%s' for model '%s'", out.GetName(), m.Name)
		}
	}
	in := req.GetInputs()[0]
	shape := in.GetShape()
	if in.GetName() != want.GetName() {
		return invalid("unexpected inference input '%s' for model '%s'", in.GetName(), m.Name)
	}
	if in.GetDatatype() != word(want.GetDataType()) {
		return invalid("inference input '%s' data-type is '%s', but model '%s' expects '%s'", in.GetName(), in.GetDatatype(), m.Name, word(want.GetDataType()))
	}
	n, dims := 1, shape
	if limit := m.Config.GetMaxBatchSize(); limit > 0 {
		if len(shape) == 0 {
			return invalid("unexpected shape for input '%s' for model '%s'", in.GetName(), m.Name)
		}
		n, dims = int(shape[0]), shape[1:]
		if n > int(limit) || n < 0 {
			return invalid("inference request batch-size must be <= %d for '%s'", limit, m.Name)
		}
	}
	if !slices.Equal(dims, want.GetDims()) {
		return invalid("unexpected shape for input '%s' for model '%s'. Expected %s, got %s.", in.GetName(), m.Name,
			bracket(append([]int64{-1}, want.GetDims()...)), bracket(shape))
	}
	release = func() {}
	if name := in.GetParameters()["shared_memory_region"].GetStringParam(); name != "" {
		data, release, err = v.s.regions.use(name,
			in.GetParameters()["shared_memory_offset"].GetInt64Param(), in.GetParameters()["shared_memory_byte_size"].GetInt64Param())
		if err != nil {
			return 0, nil, nil, err
		}
	} else if len(req.GetRawInputContents()) == 1 {
		data = req.GetRawInputContents()[0]
	}
	// All inputs that tests use are bytes.
	size := n
	for _, d := range dims {
		size *= int(d)
	}
	if len(data) != size || size == 0 {
		release()
		return invalid("input byte size mismatch for input '%s' for model '%s'. Expected %d, got %d", in.GetName(), m.Name, size, len(data))
	}
	return n, data, release, nil
}

// bracket is a shape as Triton writes it.
func bracket(shape []int64) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
}
