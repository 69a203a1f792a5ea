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
	// Model answers. Required.
	Model Model

	// Attempts is how often a batch is sent before its failure counts.
	// Queue-full and a server that is away cost none. Default 3.
	Attempts int
	// Batch is the most pages in one request. Default: the served config's
	// quire.batch, else its max_batch_size; never above that.
	Batch int
	// InFlight is the most requests at the server at once. Default: the served
	// config's quire.in_flight, else its instances + 1, so that one request is
	// always ready when an instance comes free.
	InFlight int
	// InferTimeout bounds one request. Default 60 s.
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
	// ServerWait is how long a server may be away before the work is given up.
	// Default 10 minutes; negative: for ever.
	ServerWait time.Duration
	// SharedMemoryPrefix starts the names of shared-memory objects. Default
	// empty: slabs are private memory and pages travel inside the requests.
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
	if c.Model == nil {
		return c, fmt.Errorf("orchestrator: Config.Model is nil: there is nothing to ask")
	}
	in := c.Model.Input()
	if in.Width < 1 || in.Height < 1 || in.MaxBatch < 1 || in.Instances < 1 {
		return c, fmt.Errorf("orchestrator: the model wants %d×%d pixels, batches up to %d, %d instances: each must be at least 1", in.Width, in.Height, in.MaxBatch, in.Instances)
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"Attempts", c.Attempts}, {"Batch", c.Batch}, {"InFlight", c.InFlight}, {"Queue", c.Queue}, {"Workers", c.Workers}, {"InferTimeout", int(c.InferTimeout)}} {
		if f.value < 0 {
			return c, fmt.Errorf("orchestrator: Config.%s is %d: it must be at least 1, or 0 for the default", f.name, f.value)
		}
	}
	if c.Batch > in.MaxBatch {
		return c, fmt.Errorf("batch %d is above the max_batch_size %d that model %s is served with: lower the one or raise the other in its config", c.Batch, in.MaxBatch, c.Model.Info().Name)
	}
	if in.Batch > in.MaxBatch {
		return c, fmt.Errorf("model %s is served with quire.batch %d above its max_batch_size %d: lower the one or raise the other in its config", c.Model.Info().Name, in.Batch, in.MaxBatch)
	}
	c.Attempts = cmp.Or(c.Attempts, 3)
	served := c.limits(in)
	c.Batch, c.InFlight, c.MaxAge = served.batch, served.inFlight, served.maxAge
	c.InferTimeout = cmp.Or(c.InferTimeout, 60*time.Second)
	c.RefreshEvery = cmp.Or(c.RefreshEvery, 5*time.Second)
	c.Queue = cmp.Or(c.Queue, max(64, 4*(c.InFlight+1)*c.Batch))
	c.ServerWait = cmp.Or(c.ServerWait, 10*time.Minute)
	c.SoftStop = cmp.Or(c.SoftStop, 30*time.Second)
	c.StallAfter = cmp.Or(c.StallAfter, time.Minute)
	c.Workers = cmp.Or(c.Workers, runtime.GOMAXPROCS(0))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ServerWait > 0 && c.InferTimeout > c.ServerWait {
		return c, fmt.Errorf("orchestrator: InferTimeout %v is above ServerWait %v: one request would outlast the patience with the server", c.InferTimeout, c.ServerWait)
	}
	return c, nil
}

// limits are what a reload of the model may change.
type limits struct {
	batch, inFlight int
	maxAge          time.Duration
}

// limits is what the caller asked for, else what the served config does. The
// batch never exceeds what the server takes.
func (c Config) limits(in Input) limits {
	return limits{
		batch:    min(cmp.Or(c.Batch, in.Batch, in.MaxBatch), in.MaxBatch),
		inFlight: cmp.Or(c.InFlight, in.InFlight, in.Instances+1),
		maxAge:   cmp.Or(c.MaxAge, in.MaxAge, DefaultMaxAge),
	}
}
