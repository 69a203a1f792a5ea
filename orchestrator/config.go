package orchestrator

import (
	"cmp"
	"fmt"
	"log/slog"
	"runtime"
	"time"
)

// Config says how pages move. Zero means the default, a negative value means
// none or never where a field says so.
type Config struct {
	// Renderer draws pages. Detect and Run need one, DetectBatch does not.
	Renderer Renderer
	// Model answers. One server needs no more; for several there are Endpoints
	// in its place.
	Model Model
	// Endpoints answer, all with the same model. Others may join and leave
	// later: [Detector.Join], [Detector.Leave]; [Detector.Settings] has those of
	// New.
	Endpoints []Endpoint

	// Attempts is how often a batch is sent before its failure counts.
	// Queue-full and a server that is away cost none. Default 3.
	Attempts int
	// Batch is the most pages in one request. Default: the served config's
	// quire.batch, else its max_batch_size; never above that. Of several
	// endpoints the smallest counts.
	Batch int
	// InFlight is the most requests at once, at each endpoint; in what
	// [Detector.Settings] returns, at all of them together. Default: the served
	// config's quire.in_flight, else its instances + 1, so that one request is
	// always ready when an instance comes free.
	InFlight int
	// InferTimeout bounds one request. Default 60 s, also where ServerWait is less: a
	// server that is slow is not away. A client has a limit of its own (InferTimeout
	// of package tritonclient's Config, 60 s too): the shorter one counts.
	InferTimeout time.Duration
	// Logger takes details. Default: none.
	Logger *slog.Logger
	// MaxAge is how long the first page of a batch waits for company; it waits
	// on while InFlight requests are at the server. Default: the served config's
	// quire.max_age_ms, else 20 ms, about one page's drawing; negative: it does
	// not wait.
	MaxAge time.Duration
	// Queue is the most pages that Detect and DetectBatch have admitted and
	// not answered. Default: 4 × (InFlight + 1) × Batch, at least 64.
	Queue int
	// RefreshEvery is how often the served config is read again while there is
	// work, to notice a reload. Default 5 s; negative: only when a request fails
	// because of one.
	RefreshEvery time.Duration
	// ServerWait is how long the server may be away, of several all at once,
	// before the work is given up; counted from when that is known.
	// Default 10 minutes; negative: for ever.
	ServerWait time.Duration
	// SharedMemoryPrefix starts the names of shared-memory objects. Whoever gives
	// it unlinks what a process that was killed leaves in /dev/shm under it, as
	// a guard does for its own ShmPrefix. Default empty: slabs are private memory
	// and pages travel inside the requests.
	SharedMemoryPrefix string
	// SoftStop is how long a soft stop waits for the pages that are drawn
	// before it becomes a hard one. Default 30 s; negative: for ever.
	SoftStop time.Duration
	// StallAfter is how long no page may end, with work to do, before the log and
	// Stats say what everything waits for. Default 1 minute; negative: never.
	StallAfter time.Duration
	// Workers is how many pages are drawn at once. Default: the CPUs that this
	// process may use.
	Workers int
}

// DefaultMaxAge is what Config.MaxAge is by default: about one page's drawing
// time. Waiting longer than the next page needs to arrive buys nothing.
const DefaultMaxAge = 20 * time.Millisecond

// withDefaults returns a copy whose fields all mean themselves, or names the
// two values that contradict each other.
func (c Config) withDefaults() (Config, error) {
	if c.Model != nil && len(c.Endpoints) == 0 {
		c.Endpoints = []Endpoint{{Model: c.Model}}
	}
	if len(c.Endpoints) == 0 {
		return c, fmt.Errorf("orchestrator: Config.Model is nil and there are no Endpoints: there is nothing to ask")
	}
	for i, e := range c.Endpoints {
		if err := c.fits(e, c.Endpoints[:i]); err != nil {
			return c, err
		}
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"Attempts", c.Attempts}, {"Batch", c.Batch}, {"InFlight", c.InFlight}, {"Queue", c.Queue}, {"Workers", c.Workers}} {
		if f.value < 0 {
			return c, fmt.Errorf("orchestrator: Config.%s is %d: it must be at least 1, or 0 for the default", f.name, f.value)
		}
	}
	if c.InferTimeout < 0 {
		return c, fmt.Errorf("orchestrator: Config.InferTimeout is %v: it must be above 0, or 0 for the default", c.InferTimeout)
	}
	c.Attempts = cmp.Or(c.Attempts, 3)
	served := c.limits(inputs(c.Endpoints)...)
	c.Batch, c.InFlight, c.MaxAge = served.batch, served.inFlight, served.maxAge
	c.RefreshEvery = cmp.Or(c.RefreshEvery, 5*time.Second)
	c.Queue = cmp.Or(c.Queue, max(64, 4*(c.InFlight+1)*c.Batch))
	c.ServerWait = cmp.Or(c.ServerWait, 10*time.Minute)
	c.InferTimeout = cmp.Or(c.InferTimeout, time.Minute)
	c.SoftStop = cmp.Or(c.SoftStop, 30*time.Second)
	c.StallAfter = cmp.Or(c.StallAfter, time.Minute)
	c.Workers = cmp.Or(c.Workers, runtime.GOMAXPROCS(0))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// fits tells why an endpoint cannot be one beside others; nil if it can.
func (c Config) fits(e Endpoint, others []Endpoint) error {
	if e.Model == nil {
		return fmt.Errorf("orchestrator: endpoint %q has no model", e.Name)
	}
	in, name := e.Model.Input(), e.Model.Info().Name
	switch {
	case in.Width < 1 || in.Height < 1 || in.MaxBatch < 1 || in.Instances < 1:
		return fmt.Errorf("orchestrator: the model wants %d×%d pixels, batches up to %d, %d instances: each must be at least 1", in.Width, in.Height, in.MaxBatch, in.Instances)
	case c.Batch > in.MaxBatch:
		return fmt.Errorf("batch %d is above the max_batch_size %d that model %s is served with: lower the one or raise the other in its config", c.Batch, in.MaxBatch, name)
	case in.Batch > in.MaxBatch:
		return fmt.Errorf("model %s is served with quire.batch %d above its max_batch_size %d: lower the one or raise the other in its config", name, in.Batch, in.MaxBatch)
	}
	for _, other := range others {
		switch first := other.Model.Input(); {
		case other.Name == e.Name:
			return fmt.Errorf("orchestrator: two endpoints are called %q", e.Name)
		case first.Width != in.Width || first.Height != in.Height:
			return fmt.Errorf("orchestrator: the model at %s wants %d×%d pixels, that at %s %d×%d: one run has one model",
				e.Name, in.Width, in.Height, other.Name, first.Width, first.Height)
		}
	}
	return nil
}

// limits are what a reload of the model, or another endpoint, may change.
type limits struct {
	batch, inFlight int // of all endpoints together
	maxAge          time.Duration
	shared          bool // slabs are to be shared memory
}

// limits is what the caller asked for, else what the served configs do. The
// batch never exceeds what each server takes.
func (c Config) limits(inputs ...Input) limits {
	var all limits
	for i, in := range inputs {
		batch, maxAge := min(cmp.Or(c.Batch, in.Batch, in.MaxBatch), in.MaxBatch), cmp.Or(c.MaxAge, in.MaxAge, DefaultMaxAge)
		if i == 0 {
			all.batch, all.maxAge = batch, maxAge
		}
		all.batch, all.maxAge = min(all.batch, batch), min(all.maxAge, maxAge)
		all.inFlight += c.inFlight(in)
		all.shared = all.shared || in.SharedMemory && c.SharedMemoryPrefix != ""
	}
	return all
}

// inFlight is how many requests an endpoint may have.
func (c Config) inFlight(in Input) int { return cmp.Or(c.InFlight, in.InFlight, in.Instances+1) }

// inputs are what the models of endpoints want.
func inputs(endpoints []Endpoint) []Input {
	var all []Input
	for _, e := range endpoints {
		all = append(all, e.Model.Input())
	}
	return all
}
