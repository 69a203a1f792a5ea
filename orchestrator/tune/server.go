package tune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quire/orchestrator"
	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/modelconfig"
)

// Server is a served model that a search may serve otherwise for a while. Its
// methods are called from one goroutine.
type Server struct {
	client   *tritonclient.Client
	original *inferencepb.ModelConfig
	note     Note
	// start is the server's part of the settings that are served when nothing
	// was changed.
	start Settings
	// devices is how many devices each count of the instance group is for;
	// negative when there is no one group whose count could be changed.
	devices int

	trial   Settings // what is served, once touched
	trials  int      // that were asked for
	touched bool
	// pending is set while the answer to a load is not known: it may come to
	// be after all.
	pending bool
}

// ErrBusy is what [Take] returns when another search is at work.
var ErrBusy = errors.New("another quire tune is at work")

// Take makes sure that a model can be served otherwise, and reads how it is
// served now. A trial that a search has left is put back first, which told, if
// not nil, is told. budget is how long the search may take. Nothing of the server
// is changed but that.
func Take(ctx context.Context, client *tritonclient.Client, model string, budget time.Duration, told func(string)) (*Server, error) {
	// To unload a model that is not there does nothing, and takes what to load
	// one takes.
	probe := fmt.Sprintf("quire-tune-%d", time.Now().UnixNano())
	switch err := client.UnloadModel(ctx, probe); tritonclient.KindOf(err) {
	case tritonclient.ModelNotReady, tritonclient.InvalidArgument, tritonclient.LoadFailed:
		// It minds the name: then it would unload others.
	default:
		if err != nil {
			return nil, refused(err)
		}
	}
	if _, err := client.Statistics(ctx, model, ""); err != nil {
		return nil, refused(err)
	}
	config, err := client.ModelConfig(ctx, model, "")
	if err != nil {
		return nil, refused(err)
	}
	left, err := leftover(config)
	if err != nil {
		return nil, err
	}
	if left != nil {
		if left.Alive {
			return nil, fmt.Errorf("model %s at %s: %w (%s): wait for it, until %s at most", model, client.Target(), ErrBusy, left.Note, left.Note.Until.Format(time.RFC3339))
		}
		if err := left.Repair(ctx, client); err != nil {
			return nil, fmt.Errorf("an earlier quire tune (%s) left model %s on trial settings: %w", left.Note, model, err)
		}
		if told != nil {
			told(fmt.Sprintf("an earlier quire tune (%s) had left model %s on trial settings; it is served as before again", left.Note, model))
		}
		if config, err = client.ModelConfig(ctx, model, ""); err != nil {
			return nil, err
		}
	}
	start, devices, err := settingsOf(config)
	if err != nil {
		return nil, err
	}
	return &Server{client: client, original: config, note: newNote(time.Now(), budget), start: start, devices: devices}, nil
}

// refused adds to an error of a server that keeps something for others what to
// do about that.
func refused(err error) error {
	if tritonclient.KindOf(err) != tritonclient.Restricted {
		return err
	}
	return fmt.Errorf("%w: tuning needs the server's protocols model-repository, model-config and statistics, which --grpc-restricted-protocol keeps for those who send its header: send it with --triton-header", err)
}

// settingsOf takes from a config what can be changed: the server's part of the
// settings, and by how many instances their number rises, as Devices has it.
func settingsOf(c *inferencepb.ModelConfig) (t Settings, devices int, err error) {
	switch {
	case c.GetSequenceBatching() != nil || c.GetEnsembleScheduling() != nil:
		return t, 0, fmt.Errorf("model %s has a scheduler of its own: only one with dynamic_batching, or none, can be tuned", c.GetName())
	case c.GetMaxBatchSize() < 1:
		return t, 0, fmt.Errorf("model %s takes no batches: its max_batch_size is %d", c.GetName(), c.GetMaxBatchSize())
	}
	t = Settings{MaxBatch: int(c.GetMaxBatchSize()), Delay: noBatcher}
	if d := c.GetDynamicBatching(); d != nil {
		t.Delay = time.Duration(d.GetMaxQueueDelayMicroseconds()) * time.Microsecond
	}
	for _, g := range c.GetInstanceGroup() {
		if g.GetPassive() {
			continue
		}
		of := max(1, len(g.GetGpus()))
		if t.Instances == 0 {
			devices = of
		} else {
			devices = -1
		}
		t.Instances += max(1, int(g.GetCount())) * of
	}
	if t.Instances == 0 {
		t.Instances, devices = 1, -1
	}
	return t, devices, nil
}

// Start is how the model is served, and how quire feeds it, by what the model
// says that it wants.
func (s *Server) Start(in orchestrator.Input) Settings {
	t := s.start
	t.Batch = min(cmp.Or(in.Batch, t.MaxBatch), t.MaxBatch)
	t.InFlight = cmp.Or(in.InFlight, t.Instances+1)
	t.MaxAge = max(0, cmp.Or(in.MaxAge, orchestrator.DefaultMaxAge))
	return t
}

// Devices is by how many instances their number rises: the devices of the
// instance group. It is negative when the config does not say it in one place.
func (s *Server) Devices() int { return s.devices }

// Original is the config that was served, for the caller to keep.
func (s *Server) Original() *inferencepb.ModelConfig { return proto.CloneOf(s.original) }

// config is the original with other settings.
func (s *Server) config(t Settings) *inferencepb.ModelConfig {
	c := proto.CloneOf(s.original)
	setServer(c, s.start, t)
	// The same pages come again and again.
	c.ResponseCache = nil
	return c
}

// setServer changes a config, which serves as from says, to serve as to says,
// and drops from it what does not go with that.
func setServer(c *inferencepb.ModelConfig, from, to Settings) {
	if from.MaxBatch != to.MaxBatch {
		c.MaxBatchSize = int32(to.MaxBatch)
		// A warm-up that is too large keeps the model from loading.
		var fits []*inferencepb.ModelWarmup
		for _, w := range c.GetModelWarmup() {
			if int(w.GetBatchSize()) <= to.MaxBatch {
				fits = append(fits, w)
			}
		}
		c.ModelWarmup = fits
		// Larger requests than that are refused, by quire itself when it starts.
		if p := c.GetParameters()[keyBatch]; p != nil {
			if n, err := strconv.Atoi(p.GetStringValue()); err == nil && n > to.MaxBatch {
				modelconfig.SetParameter(c, keyBatch, strconv.Itoa(to.MaxBatch))
			}
		}
	}
	if from.Instances != to.Instances {
		for _, g := range c.GetInstanceGroup() {
			if !g.GetPassive() {
				g.Count = int32(to.Instances / max(1, len(g.GetGpus())))
			}
		}
	}
	if !from.sameServer(to) && to.Delay >= 0 {
		if c.GetDynamicBatching() == nil {
			c.SchedulingChoice = &inferencepb.ModelConfig_DynamicBatching{DynamicBatching: &inferencepb.ModelDynamicBatching{}}
		}
		d := c.GetDynamicBatching()
		d.MaxQueueDelayMicroseconds = uint64(to.Delay.Microseconds())
		// Servers fill in what was not given, for the old batch, and it earns
		// its place with padded kernels only.
		d.PreferredBatchSize = nil
	}
}

// Apply serves the model with the server's part of t. It is [Infeasible] when
// the model does not load with that; what was served before is served on then.
func (s *Server) Apply(ctx context.Context, t Settings) error {
	if s.touched && s.trial.sameServer(t) {
		return nil
	}
	if err := s.ours(ctx); err != nil {
		return err
	}
	c := s.config(t)
	s.trials++
	if err := noted(c, s.original, s.note, s.trials); err != nil {
		return err
	}
	override, err := protojson.Marshal(c)
	if err != nil {
		return err
	}
	s.touched, s.pending, s.trial = true, true, Settings{}
	err = s.client.LoadModel(ctx, c.GetName(), override)
	switch tritonclient.KindOf(err) {
	case tritonclient.LoadFailed, tritonclient.InvalidArgument, tritonclient.Internal:
		s.pending = false
		return &Infeasible{Reason: "it does not load: " + messageOf(err)}
	case tritonclient.Deadline:
		if ctx.Err() == nil {
			return &Infeasible{Reason: "it does not load in time"}
		}
	}
	if err != nil {
		return err
	}
	s.pending = false
	if err := s.client.WaitModelReady(ctx, c.GetName(), "", nil); err != nil {
		return err
	}
	s.trial = t
	return s.Confirm(ctx)
}

// ours makes sure that nobody else has loaded the model: what is served is the
// original, or a trial of ours.
func (s *Server) ours(ctx context.Context) error {
	served, err := s.client.ModelConfig(ctx, s.original.GetName(), "")
	if err != nil {
		return err
	}
	if left, err := leftover(served); err == nil && left != nil && left.Note == s.note || proto.Equal(served, s.original) {
		return nil
	}
	return fmt.Errorf("model %s: %w", s.original.GetName(), ErrReplaced)
}

// Confirm makes sure that what was applied is what is served: somebody else may
// have loaded the model meanwhile, or the server may have started anew.
func (s *Server) Confirm(ctx context.Context) error {
	served, err := s.client.ModelConfig(ctx, s.original.GetName(), "")
	if err != nil {
		return err
	}
	if left, err := leftover(served); err != nil || left == nil || left.Note != s.note {
		return fmt.Errorf("model %s: %w", s.original.GetName(), ErrReplaced)
	}
	now, _, err := settingsOf(served)
	if err != nil {
		return err
	}
	if !now.sameServer(s.trial) {
		return fmt.Errorf("model %s was asked to serve with %v, and the server says that it serves with %v", s.original.GetName(), s.trial, now)
	}
	return nil
}

// Forget notes that the server may have started anew, and then serves what its
// files say.
func (s *Server) Forget() { s.trial = Settings{} }

// Restore serves the model as it was. It does nothing when nothing was changed.
// Its context should not be the search's, which may have ended.
func (s *Server) Restore(ctx context.Context) error {
	if !s.touched {
		return nil
	}
	if err := putBack(ctx, s.client, s.original, s.note, s.pending); err != nil {
		return err
	}
	s.touched, s.pending = false, false
	return nil
}

// messageOf is what the server said.
func messageOf(err error) string {
	if e, ok := errors.AsType[*tritonclient.Error](err); ok && e.Message != "" {
		return e.Message
	}
	return err.Error()
}
