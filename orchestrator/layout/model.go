package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"quire/orchestrator"
	"quire/tritonclient"
)

// DefaultModel is the model's name in quire's own repository.
const DefaultModel = "layout"

// Transport is how pixels reach the server.
type Transport int

// The transports.
const (
	// TransportAuto is shared memory when the server takes it, else in-band.
	TransportAuto Transport = iota
	// TransportShared is system shared memory, or an error.
	TransportShared
	// TransportInBand sends pixels in the gRPC message.
	TransportInBand
)

// ParseTransport reads "auto", "shm" or "grpc".
func ParseTransport(word string) (Transport, error) {
	i := slices.Index(transportWords[:], word)
	if i < 0 {
		return 0, fmt.Errorf("transport %q: it is auto, shm or grpc", word)
	}
	return Transport(i), nil
}

var transportWords = [...]string{"auto", "shm", "grpc"}

func (t Transport) String() string {
	if t < 0 || int(t) >= len(transportWords) {
		return fmt.Sprintf("transport %d", int(t))
	}
	return transportWords[t]
}

// Config says which model to use and how. The zero value is good.
type Config struct {
	// Model is the model's name on the server; default DefaultModel.
	Model string
	// Version is the model's version; default the newest that is served.
	Version string
	// ScoreThreshold, in (0,1), replaces the one that the served config gives;
	// zero keeps that, a negative one lets every detection pass.
	ScoreThreshold float64
	// Transport is how pixels reach the server.
	Transport Transport
	// SharedMemoryPrefix starts the name of the shared-memory object that is
	// made for a moment to find out whether the server takes any. Whoever gave
	// the prefix unlinks what a killed process leaves. Default "quire-".
	SharedMemoryPrefix string
	// Log is told what was found out about shared memory; nil for nobody.
	Log *slog.Logger
}

// Model is a layout model on a Triton server: an [orchestrator.Model]. Its
// methods may be called from any goroutine. It has no goroutine that outlives a call.
type Model struct {
	client *tritonclient.Client
	cfg    Config
	log    *slog.Logger

	refresh  sync.Mutex // one reader of the config at a time
	contract atomic.Pointer[Contract]
	requests atomic.Uint64 // made so far
	// away counts how often the server or the model was found away, and looked how
	// much of that the last look at the config knew of: what comes back may be
	// another model under the same name.
	away, looked atomic.Uint64

	regions regions
	// offered is what Input tells about shared memory; it stays as Open found
	// it. regions knows what holds at the moment.
	offered    bool
	notOffered error
}

var _ orchestrator.Model = (*Model)(nil)

// Open reads the contract of a served model and finds out whether the server
// takes shared memory from this process. It does not wait for the model: see
// [tritonclient.Client.WaitModelReady]. Every error but ctx's is an
// [*orchestrator.ModelError]; one with ActionStop means that the model does not
// fit. The client stays the caller's, and must outlive the model.
func Open(ctx context.Context, client *tritonclient.Client, cfg Config) (*Model, error) {
	cfg.Model = cmp.Or(cfg.Model, DefaultModel)
	cfg.SharedMemoryPrefix = cmp.Or(cfg.SharedMemoryPrefix, "quire-")
	if cfg.ScoreThreshold >= 1 || cfg.ScoreThreshold != cfg.ScoreThreshold {
		return nil, stop(nil, "threshold %v: it must be below 1, for scores are at most 1", cfg.ScoreThreshold)
	}
	m := &Model{client: client, cfg: cfg, log: cfg.Log}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.regions.init(client, m.log)
	c, err := m.read(ctx, cfg.Version)
	if err == nil && c.Labels == nil {
		c.Labels, err = m.askLabels(ctx, c)
	}
	if err != nil {
		return nil, m.failed(ctx, err)
	}
	m.contract.Store(c)
	if cfg.Transport != TransportInBand {
		switch err := m.regions.probe(ctx, cfg.SharedMemoryPrefix); {
		case err == nil:
			m.offered = true
			m.log.Debug("pixels go through shared memory", "server", client.Target())
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case cfg.Transport == TransportShared && (tritonclient.KindOf(err) == tritonclient.Unavailable || tritonclient.KindOf(err) == tritonclient.Deadline):
			return nil, m.failed(ctx, err) // which says nothing about shared memory
		case cfg.Transport == TransportShared:
			return nil, stop(err, "shared memory does not work, and transport is shm: %v: use transport auto or grpc", err)
		default:
			m.notOffered = err
			m.log.Info("pixels go in gRPC messages: no shared memory with this server", "server", client.Target(), "reason", err)
		}
	}
	return m, nil
}

// read gets the contract of a version from the server; of the newest if version
// is empty.
func (m *Model) read(ctx context.Context, version string) (*Contract, error) {
	meta, err := m.client.ModelMetadata(ctx, m.cfg.Model, m.cfg.Version)
	if err != nil {
		return nil, err
	}
	served := meta.GetVersions()
	if version == "" {
		version = newestVersion(served)
	} else if len(served) > 0 && !slices.Contains(served, version) {
		return nil, stop(nil, "model %s at %s was changed while in use: version %s is gone, served is %s: start again to use it as it is now",
			m.cfg.Model, m.client.Target(), version, strings.Join(served, ", "))
	}
	config, err := m.client.ModelConfig(ctx, m.cfg.Model, version)
	if err != nil {
		return nil, err
	}
	c, err := NewContract(config)
	if err != nil {
		return nil, stop(err, "model %s at %s does not fit: %s: serve quire's model_repository there", m.cfg.Model, m.client.Target(), err)
	}
	c.Model, c.Version = m.cfg.Model, version
	switch {
	case m.cfg.ScoreThreshold > 0:
		c.ScoreThreshold = m.cfg.ScoreThreshold
	case m.cfg.ScoreThreshold < 0:
		c.ScoreThreshold = 0
	}
	if old := m.contract.Load(); old != nil && c.Labels == nil {
		// A changed label file shows at the next Open only: to ask for it takes
		// an inference, and this is called when those fail.
		c.Labels = old.Labels
	}
	return c, nil
}

// Contract is what the served config says now, with the threshold of Config in
// force. It is not to be changed.
func (m *Model) Contract() *Contract { return m.contract.Load() }

// Info names the model.
func (m *Model) Info() orchestrator.ModelInfo {
	c := m.contract.Load()
	return orchestrator.ModelInfo{Name: c.Model, Version: c.Version}
}

// Input tells what the model wants to be fed.
func (m *Model) Input() orchestrator.Input {
	c := m.contract.Load()
	return orchestrator.Input{
		Width: c.Width, Height: c.Height, MaxBatch: c.MaxBatch,
		Batch: c.Batch, MaxAge: c.MaxAge, InFlight: c.InFlight, Instances: c.Instances,
		SharedMemory: m.offered,
	}
}

// NoSharedMemory is why TransportAuto came to send pixels in the gRPC message; nil
// if it did not.
func (m *Model) NoSharedMemory() error { return m.notOffered }

// Refresh reads the served config again and takes a new batch size or instance
// count. What would change answers in mid-run (raster, labels, thresholds,
// version, precision) is refused with ActionStop: one run has one model.
func (m *Model) Refresh(ctx context.Context) error {
	m.refresh.Lock()
	defer m.refresh.Unlock()
	old, away := m.contract.Load(), m.away.Load()
	now, err := m.read(ctx, old.Version)
	if err != nil {
		return m.failed(ctx, err)
	}
	if changed := old.differs(now, "was"); changed != "" {
		return stop(nil, "model %s at %s was changed while in use: %s: start again to use it as it is now", m.cfg.Model, m.client.Target(), changed)
	}
	m.contract.Store(now)
	m.looked.Store(away)
	return nil
}

// Infer runs some pages of a slab through the model, in one request.
func (m *Model) Infer(ctx context.Context, s *orchestrator.Slab, first int, frames []orchestrator.Frame) ([]orchestrator.Verdict, error) {
	c := m.contract.Load()
	n := len(frames)
	if n == 0 {
		return nil, nil
	}
	if err := m.fits(ctx, c, s, first, n); err != nil {
		return nil, err
	}
	response, _, err := m.ask(ctx, c, s, first, n)
	if n == 1 && tritonclient.KindOf(err) == tritonclient.BadResponse && ctx.Err() == nil {
		// Once more, before it is held against the page.
		response, _, err = m.ask(ctx, c, s, first, n)
	}
	if err != nil {
		return m.refused(ctx, c, n, err)
	}
	out := outputs{
		boxes:  response.Outputs[outputBoxes].Raw,
		scores: response.Outputs[outputScores].Raw,
		labels: response.Outputs[outputLabels].Raw,
	}
	verdicts := make([]orchestrator.Verdict, n)
	for i := range verdicts {
		verdicts[i] = c.decode(out.page(i, c.Detections), frames[i])
	}
	return verdicts, nil
}

// Raw runs pages [first, first+n) of a slab through the model, in one request as
// Infer does, and returns its outputs as they came: boxes, scores and labels of
// all pages, one after the other. shared tells whether the pages went through
// shared memory.
func (m *Model) Raw(ctx context.Context, s *orchestrator.Slab, first, n int) (raw []byte, shared bool, err error) {
	c := m.contract.Load()
	if err := m.fits(ctx, c, s, first, n); err != nil {
		return nil, false, err
	}
	response, shared, err := m.ask(ctx, c, s, first, n)
	if err != nil {
		return nil, false, m.failed(ctx, err)
	}
	return slices.Concat(response.Outputs[outputBoxes].Raw, response.Outputs[outputScores].Raw, response.Outputs[outputLabels].Raw), shared, nil
}

// fits tells whether pages of a slab can be asked about as things stand.
func (m *Model) fits(ctx context.Context, c *Contract, s *orchestrator.Slab, first, n int) error {
	if away := m.away.Load(); away > m.looked.Load() {
		// What came back may be another model under the same name: look first.
		if err := m.unchanged(ctx, c); err != nil {
			return m.failed(ctx, err)
		}
		m.looked.Store(away)
	}
	switch {
	case n > c.MaxBatch:
		// Reloaded with a smaller batch since these pages were put together.
		return m.reloaded()
	case s.PageBytes != c.PageBytes() || first < 0 || n < 1 || first+n > s.Pages || len(s.Bytes) < s.Pages*s.PageBytes:
		return stop(nil, "pages %d to %d of a slab of %d pages, %d bytes each, do not fit a model that wants %d bytes", first, first+n, s.Pages, s.PageBytes, c.PageBytes())
	}
	return nil
}

// ask makes the request: through shared memory if the slab is and the server
// takes it, else in-band. It tells which.
func (m *Model) ask(ctx context.Context, c *Contract, s *orchestrator.Slab, first, n int) (_ *tritonclient.InferResponse, shared bool, _ error) {
	pages, k := int64(n), int64(c.Detections)
	request := &tritonclient.InferRequest{
		Model: c.Model, Version: c.Version,
		// It comes back, so that no other request's answer is taken for ours.
		ID:     strconv.FormatUint(m.requests.Add(1), 10),
		Inputs: []tritonclient.Input{c.input(n)},
		Outputs: []tritonclient.Output{
			{Name: outputBoxes, Datatype: "FP32", Shape: []int64{pages, k, 4}},
			{Name: outputScores, Datatype: "FP32", Shape: []int64{pages, k}},
			{Name: outputLabels, Datatype: "INT32", Shape: []int64{pages, k}},
		},
	}
	from, to := first*s.PageBytes, (first+n)*s.PageBytes
	// Twice, because a server that was restarted has forgotten the region.
	for range 2 {
		region, err := m.regions.of(ctx, s)
		if err != nil {
			return nil, false, err
		}
		if region == "" {
			break
		}
		request.Inputs[0].Region = &tritonclient.SharedMemoryRef{Region: region, Offset: uint64(from), ByteSize: uint64(to - from)}
		response, err := m.client.Infer(ctx, request)
		switch tritonclient.KindOf(err) {
		case tritonclient.UnknownRegion, tritonclient.RegionRefused, tritonclient.SharedMemoryDisabled:
			m.regions.forget(s, region)
			if ctx.Err() == nil {
				continue
			}
		}
		return response, true, err
	}
	request.Inputs[0].Region = nil
	request.Inputs[0].Raw = s.Bytes[from:to:to]
	response, err := m.client.Infer(ctx, request)
	return response, false, err
}

// refused turns a failed request into what the engine should do.
func (m *Model) refused(ctx context.Context, c *Contract, n int, err error) ([]orchestrator.Verdict, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	kind := tritonclient.KindOf(err)
	switch kind {
	case tritonclient.Unavailable, tritonclient.ModelNotReady:
		m.away.Add(1)
	case tritonclient.InvalidArgument, tritonclient.BadResponse:
		// The commonest reason is that the model is no longer the one that was
		// read. Then the request was right when it was made.
		if changed := m.unchanged(ctx, c); changed != nil {
			m.away.Add(1)
			return nil, m.failed(ctx, changed)
		}
		if kind == tritonclient.BadResponse && n == 1 {
			return []orchestrator.Verdict{fault(orchestrator.CategoryBadOutput, "%v", err)}, nil
		}
	}
	return nil, m.failed(ctx, err)
}

// unchanged is nil when the server still serves contract c, a ModelError with
// ActionRefresh or ActionStop when it does not, or what keeps it from telling.
func (m *Model) unchanged(ctx context.Context, c *Contract) error {
	now, err := m.read(ctx, c.Version)
	if err != nil {
		return err
	}
	if now.MaxBatch != c.MaxBatch || c.differs(now, "was") != "" {
		return m.reloaded()
	}
	return nil
}

func (m *Model) reloaded() error {
	return &orchestrator.ModelError{Action: orchestrator.ActionRefresh, Message: fmt.Sprintf("model %s at %s was reloaded", m.cfg.Model, m.client.Target())}
}

// Release forgets a slab's region before its memory goes.
func (m *Model) Release(s *orchestrator.Slab) {
	m.regions.release(s.Key)
	unspell(s.Key)
}

// Close forgets all regions that are left. The model is not to be used after
// it. It is idempotent.
func (m *Model) Close() error {
	m.regions.releaseAll()
	return nil
}

// failed says what to do about an error of a call.
func (m *Model) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if me, ok := errors.AsType[*orchestrator.ModelError](err); ok {
		return me
	}
	me := &orchestrator.ModelError{Action: action(tritonclient.KindOf(err)), Message: err.Error(), Err: err}
	if e, ok := errors.AsType[*tritonclient.Error](err); ok {
		if e.Op == "ModelInfer" {
			me.Lost = e.Lost
		} else if me.Action == orchestrator.ActionRetry || me.Action == orchestrator.ActionBisect {
			// No page makes a question like this one take so long, or fail.
			me.Action = orchestrator.ActionWait
		}
	}
	return me
}

// action is what to do about a kind of error.
func action(kind tritonclient.Kind) orchestrator.Action {
	switch kind {
	case tritonclient.QueueFull, tritonclient.QueueTimeout:
		// Too much is under way, ours or others'; nothing is wrong with the
		// pages.
		return orchestrator.ActionShrink
	case tritonclient.Unavailable, tritonclient.ModelNotReady:
		// Away, unloaded, being reloaded, or without the process that runs it.
		// What comes back is perhaps something else; see Model.away.
		return orchestrator.ActionWait
	case tritonclient.Deadline:
		// It may be this batch that takes so long, so it costs an attempt.
		return orchestrator.ActionRetry
	case tritonclient.Internal, tritonclient.BadResponse:
		// One page can fail a batch; alone, the others may be fine.
		return orchestrator.ActionBisect
	case tritonclient.InvalidArgument, tritonclient.Restricted, tritonclient.TooLarge:
		// The same for every page, and for ever.
		return orchestrator.ActionStop
	}
	// Not known to be hopeless, not known to be harmless.
	return orchestrator.ActionRetry
}

func stop(err error, format string, args ...any) *orchestrator.ModelError {
	return &orchestrator.ModelError{Action: orchestrator.ActionStop, Message: oneLine(fmt.Sprintf(format, args...)), Err: err}
}

// maxMessage bounds what is said about a served config, which may hold anything.
const maxMessage = 1000

// oneLine makes a text with words of a server in it fit for a line of a
// terminal.
func oneLine(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\n", "; ") // joined errors
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}
