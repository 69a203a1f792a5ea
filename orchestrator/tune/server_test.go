package tune

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quire/orchestrator"
	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/modelconfig"
	"quire/tritonclient/tritontest"
)

// fake is a scripted server and a client of it.
func fake(t *testing.T, cfg tritontest.Config) (*tritontest.Server, *tritonclient.Client) {
	t.Helper()
	server := tritontest.Start(t, cfg)
	client, err := tritonclient.New(server.Addr(), tritonclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return server, client
}

// take takes the server's model for a search.
func take(t *testing.T, client *tritonclient.Client) *Server {
	t.Helper()
	s, err := Take(t.Context(), client, "layout", time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func served(t *testing.T, client *tritonclient.Client) *inferencepb.ModelConfig {
	t.Helper()
	config, err := client.ModelConfig(t.Context(), "layout", "")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestRefused: a server that cannot be tuned is refused with the flag to set,
// before anything of it is changed.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		cfg  tritontest.Config
		says string
	}{
		{tritontest.Config{NoModelControl: true}, "--model-control-mode=explicit"},
		{tritontest.Config{RestrictedKey: "admin", RestrictedValue: "secret"}, "--triton-header"},
	} {
		_, client := fake(t, c.cfg)
		if _, err := Take(t.Context(), client, "layout", time.Minute, nil); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v; want one that says %s", err, c.says)
		}
	}
	// Of the three protocols that it takes, each may be kept for others.
	for _, method := range []string{"RepositoryModelUnload", "ModelConfig", "ModelStatistics"} {
		server, client := fake(t, tritontest.Config{})
		server.Script(func(call *tritontest.Call) tritontest.Fault {
			if call.Method == method {
				return tritontest.Restricted()
			}
			return tritontest.Fault{}
		})
		if _, err := Take(t.Context(), client, "layout", time.Minute, nil); err == nil || !strings.Contains(err.Error(), "--triton-header") {
			t.Errorf("without %s: %v", method, err)
		}
		if n := len(server.Calls("RepositoryModelLoad")); n != 0 {
			t.Errorf("without %s: %d loads", method, n)
		}
	}
	for _, change := range []func(*inferencepb.ModelConfig){
		func(c *inferencepb.ModelConfig) { c.MaxBatchSize = 0 },
		func(c *inferencepb.ModelConfig) {
			c.SchedulingChoice = &inferencepb.ModelConfig_SequenceBatching{SequenceBatching: &inferencepb.ModelSequenceBatching{}}
		},
	} {
		model := tritontest.Layout(800, 608, 8)
		change(model.Config)
		_, client := fake(t, tritontest.Config{Models: []tritontest.Model{model}})
		if _, err := Take(t.Context(), client, "layout", time.Minute, nil); err == nil {
			t.Errorf("taken: %v", model.Config)
		}
	}
}

// TestOnTrial: settings are served with a note, by which another search sees
// this one, and the server is what it was afterwards.
func TestOnTrial(t *testing.T) {
	model := tritontest.Layout(800, 608, 8)
	model.Config.SchedulingChoice = &inferencepb.ModelConfig_DynamicBatching{DynamicBatching: &inferencepb.ModelDynamicBatching{PreferredBatchSize: []int32{8}}}
	model.Config.ModelWarmup = []*inferencepb.ModelWarmup{{Name: "1", BatchSize: 1}, {Name: "8", BatchSize: 8}}
	model.Config.ResponseCache = &inferencepb.ModelResponseCache{Enable: true}
	modelconfig.SetParameter(model.Config, keyBatch, "6")
	_, client := fake(t, tritontest.Config{Models: []tritontest.Model{model}})
	before := served(t, client)
	s := take(t, client)
	start := s.Start(orchestrator.Input{})
	if want := (Settings{MaxBatch: 8, Instances: 1, Batch: 8, MaxAge: orchestrator.DefaultMaxAge, InFlight: 2}); start != want {
		t.Errorf("start %v, want %v", start, want)
	}
	if err := s.Restore(t.Context()); err != nil || !proto.Equal(served(t, client), before) {
		t.Errorf("nothing to restore: %v", err)
	}

	to := start
	to.MaxBatch, to.Instances, to.Delay = 4, 2, time.Millisecond
	if err := s.Apply(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	now := served(t, client)
	if now.GetMaxBatchSize() != 4 || now.GetInstanceGroup()[0].GetCount() != 2 || now.GetDynamicBatching().GetMaxQueueDelayMicroseconds() != 1000 ||
		len(now.GetDynamicBatching().GetPreferredBatchSize()) != 0 || len(now.GetModelWarmup()) != 1 || now.GetResponseCache().GetEnable() {
		t.Errorf("served: %v", now)
	}
	if got := now.GetParameters()[keyBatch].GetStringValue(); got != "4" {
		t.Errorf("served with requests of %s pages, above max_batch_size", got)
	}
	for key, p := range before.GetParameters() {
		if key != keyBatch && !proto.Equal(now.GetParameters()[key], p) {
			t.Errorf("parameter %s is %v", key, now.GetParameters()[key])
		}
	}
	// A trial of another count of instances alone is another model to the server,
	// which would keep those that it has, and their shares of the processors.
	to.Instances = 1
	if err := s.Apply(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	was, now := now, served(t, client)
	if now.GetInstanceGroup()[0].Count = 2; proto.Equal(was, now) {
		t.Error("with fewer instances nothing else is served")
	}
	if _, err := Take(t.Context(), client, "layout", time.Minute, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("a second search: %v", err)
	}
	if l, err := Find(t.Context(), client, "layout"); err != nil || l == nil || !l.Alive || l.Note.Pid != os.Getpid() {
		t.Errorf("found %+v, %v", l, err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := served(t, client); !proto.Equal(now, before) {
		t.Errorf("restored: %v\nwant %v", now, before)
	}
	if l, err := Find(t.Context(), client, "layout"); err != nil || l != nil {
		t.Errorf("found %+v, %v", l, err)
	}
}

// leave makes a trial look like one of another process.
func leave(t *testing.T, client *tritonclient.Client, change func(*Note)) {
	t.Helper()
	config := served(t, client)
	var n Note
	if err := json.Unmarshal([]byte(config.GetParameters()[keyBy].GetStringValue()), &n); err != nil {
		t.Fatal(err)
	}
	change(&n)
	by, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	config.Parameters[keyBy].StringValue = string(by)
	override, err := protojson.Marshal(config)
	if err == nil {
		err = client.LoadModel(t.Context(), "layout", override)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRepair: a trial whose search has died is put back, by the next search or
// by whoever finds it; one that may be alive is left alone.
func TestRepair(t *testing.T) {
	const noProcess = 1 << 22 // beyond the largest number that there is
	for name, c := range map[string]struct {
		change func(*Note)
		alive  bool
	}{
		"dead here":                    {func(n *Note) { n.Pid = noProcess }, false},
		"its number has another":       {func(n *Note) { n.Life += "1" }, false},
		"elsewhere, its time not over": {func(n *Note) { n.Life = "other pid:[1] 2" }, true},
		"elsewhere, its time over":     {func(n *Note) { n.Life, n.Until = "other pid:[1] 2", time.Now().Add(-time.Second) }, false},
		"it could not tell":            {func(n *Note) { n.Life = "" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, client := fake(t, tritontest.Config{})
			before := served(t, client)
			s := take(t, client)
			to := s.start
			to.MaxBatch = 2
			if err := s.Apply(t.Context(), to); err != nil {
				t.Fatal(err)
			}
			leave(t, client, c.change)
			l, err := Find(t.Context(), client, "layout")
			if err != nil || l == nil || l.Alive != c.alive {
				t.Fatalf("found %+v, %v", l, err)
			}
			told := ""
			again, err := Take(t.Context(), client, "layout", time.Minute, func(s string) { told = s })
			if c.alive {
				if !errors.Is(err, ErrBusy) || served(t, client).GetMaxBatchSize() != 2 {
					t.Errorf("taken from a search that may be alive: %v", err)
				}
				return
			}
			if err != nil || told == "" || !proto.Equal(again.original, before) || !proto.Equal(served(t, client), before) {
				t.Errorf("%v, told %q, served %v", err, told, served(t, client))
			}
			if err := l.Repair(t.Context(), client); err != nil {
				t.Errorf("a second repair: %v", err)
			}
		})
	}
}

// TestReplaced: what somebody else has loaded meanwhile is noticed, and stays.
func TestReplaced(t *testing.T) {
	_, client := fake(t, tritontest.Config{})
	s := take(t, client)
	to := s.start
	to.MaxBatch = 2
	if err := s.Apply(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	other := s.Original()
	other.MaxBatchSize = 3
	override, err := protojson.Marshal(other)
	if err == nil {
		err = client.LoadModel(t.Context(), "layout", override)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Confirm(t.Context()); !errors.Is(err, ErrReplaced) {
		t.Errorf("confirm: %v", err)
	}
	if err := s.Restore(t.Context()); !errors.Is(err, ErrReplaced) {
		t.Errorf("restore: %v", err)
	}
	if now := served(t, client); now.GetMaxBatchSize() != 3 {
		t.Errorf("served: %v", now)
	}
}

// TestReplacedByAnotherSearch: a trial of somebody else's search is not ours,
// however much it looks like it: it is neither measured, nor put back.
func TestReplacedByAnotherSearch(t *testing.T) {
	server, client := fake(t, tritontest.Config{})
	s := take(t, client)
	to := s.start
	to.MaxBatch = 2
	if err := s.Apply(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	leave(t, client, func(n *Note) { n.Host = "elsewhere" })
	loads := len(server.Calls("RepositoryModelLoad"))
	next := to
	next.MaxBatch = 1
	for name, err := range map[string]error{"confirm": s.Confirm(t.Context()), "apply": s.Apply(t.Context(), next), "restore": s.Restore(t.Context())} {
		if !errors.Is(err, ErrReplaced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(server.Calls("RepositoryModelLoad")); n != loads || served(t, client).GetMaxBatchSize() != 2 {
		t.Errorf("%d loads, served %v", n-loads, served(t, client))
	}
}

// TestApplyOnce: what is served already is not loaded again, unless the server
// may have started anew, and a server that serves something else than it was
// asked for is told of.
func TestApplyOnce(t *testing.T) {
	server, client := fake(t, tritontest.Config{})
	s := take(t, client)
	apply := func(maxBatch, batch, loads int) {
		t.Helper()
		to := s.Start(orchestrator.Input{})
		to.MaxBatch, to.Batch = maxBatch, batch
		if err := s.Apply(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		if n := len(server.Calls("RepositoryModelLoad")); n != loads || served(t, client).GetMaxBatchSize() != int32(maxBatch) {
			t.Errorf("%d loads, want %d; served %v", n, loads, served(t, client))
		}
	}
	apply(8, 8, 1) // with the note, so that others see it
	apply(8, 4, 1) // quire's part only
	apply(4, 4, 2)
	apply(4, 2, 2)
	s.Forget()
	apply(4, 2, 3)

	other := served(t, client)
	other.MaxBatchSize = 3
	override, err := protojson.Marshal(other)
	if err == nil {
		err = client.LoadModel(t.Context(), "layout", override)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Confirm(t.Context()); err == nil || errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), "the server says that it serves with") {
		t.Errorf("%v", err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Once is enough.
	loads := len(server.Calls("RepositoryModelLoad"))
	if err := s.Restore(t.Context()); err != nil || len(server.Calls("RepositoryModelLoad")) != loads {
		t.Errorf("%v, %d loads more", err, len(server.Calls("RepositoryModelLoad"))-loads)
	}
}

// TestRestoreFails: a model that could not be put back is on trial still, and the
// next try puts it back.
func TestRestoreFails(t *testing.T) {
	for _, method := range []string{"RepositoryModelLoad", "ModelConfig"} {
		server, client := fake(t, tritontest.Config{})
		before := served(t, client)
		s := take(t, client)
		to := s.start
		to.MaxBatch = 2
		if err := s.Apply(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		server.Script(func(call *tritontest.Call) tritontest.Fault {
			if call.Method == method {
				return tritontest.Stopping()
			}
			return tritontest.Fault{}
		})
		if err := s.Restore(t.Context()); err == nil || tritonclient.KindOf(err) == 0 {
			t.Errorf("%s fails: %v", method, err)
		}
		server.Script(nil)
		if n := served(t, client).GetMaxBatchSize(); n != 2 {
			t.Errorf("%s fails: served with %d", method, n)
		}
		if err := s.Restore(t.Context()); err != nil || !proto.Equal(served(t, client), before) {
			t.Errorf("after %s: %v, served %v", method, err, served(t, client))
		}
	}
}

// TestNoteThatCannotBeRead is nobody's, and no reason to go ahead.
func TestNoteThatCannotBeRead(t *testing.T) {
	good := `{"name":"layout"}`
	for _, c := range [][2]string{{"", `{"pid":1}`}, {good, ""}, {good, "not JSON"}, {"not JSON", `{"pid":1}`}, {"{}", `{"pid":1}`}} {
		config := &inferencepb.ModelConfig{Name: "layout"}
		for i, key := range []string{keyOriginal, keyBy} {
			if c[i] != "" {
				modelconfig.SetParameter(config, key, c[i])
			}
		}
		if l, err := leftover(config); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%q: %+v, %v", c, l, err)
		}
	}
}

// TestNoLife: neither a process that has ended nor one that nobody has waited for
// yet is alive.
func TestNoLife(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Until it is a zombie, and it stays one until it is waited for.
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if life := processLife(cmd.Process.Pid); life != "" {
		t.Errorf("a zombie is alive: %q", life)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if life := processLife(cmd.Process.Pid); life != "" {
		t.Errorf("a process that has ended is alive: %q", life)
	}
	if processLife(os.Getpid()) == "" {
		t.Error("this process is not alive")
	}
}

// TestSettingsOf: what of a config can be changed, and in what steps.
func TestSettingsOf(t *testing.T) {
	type group = inferencepb.ModelInstanceGroup
	for _, c := range []struct {
		name               string
		groups             []*group
		instances, devices int
	}{
		{"none", nil, 1, -1},
		{"no count", []*group{{}}, 1, 1},
		{"one", []*group{{Count: 2}}, 2, 1},
		{"on each of two devices", []*group{{Count: 2, Gpus: []int32{0, 1}}}, 4, 2},
		{"two", []*group{{Count: 1, Gpus: []int32{0}}, {Count: 2, Gpus: []int32{1}}}, 3, -1},
		{"two on devices", []*group{{Count: 1, Gpus: []int32{0, 1}}, {Count: 1}}, 3, -1},
		{"one and a passive one", []*group{{Count: 5, Passive: true}, {Count: 2, Gpus: []int32{0, 1}}, {Count: 7, Passive: true}}, 4, 2},
		{"a passive one", []*group{{Count: 5, Passive: true}}, 1, -1},
	} {
		got, devices, err := settingsOf(&inferencepb.ModelConfig{MaxBatchSize: 8, InstanceGroup: c.groups})
		if want := (Settings{MaxBatch: 8, Instances: c.instances, Delay: noBatcher}); err != nil || got != want || devices != c.devices {
			t.Errorf("%s: %v by %d, %v; want %d by %d", c.name, got, devices, err, c.instances, c.devices)
		}
	}
	ensemble := &inferencepb.ModelConfig{MaxBatchSize: 8, SchedulingChoice: &inferencepb.ModelConfig_EnsembleScheduling{EnsembleScheduling: &inferencepb.ModelEnsembling{}}}
	if _, _, err := settingsOf(ensemble); err == nil {
		t.Error("an ensemble was taken")
	}
}

// TestSetServer: only what a setting is about changes.
func TestSetServer(t *testing.T) {
	config := &inferencepb.ModelConfig{
		MaxBatchSize:  8,
		InstanceGroup: []*inferencepb.ModelInstanceGroup{{Count: 5, Passive: true}, {Count: 1, Gpus: []int32{0, 1}}},
		ModelWarmup:   []*inferencepb.ModelWarmup{{Name: "4", BatchSize: 4}, {Name: "8", BatchSize: 8}},
	}
	modelconfig.SetParameter(config, keyBatch, "2")
	from, _, err := settingsOf(config)
	if err != nil {
		t.Fatal(err)
	}
	to := from
	to.MaxBatch, to.Instances = 4, 6
	setServer(config, from, to)
	want := &inferencepb.ModelConfig{
		MaxBatchSize:  4,
		InstanceGroup: []*inferencepb.ModelInstanceGroup{{Count: 5, Passive: true}, {Count: 3, Gpus: []int32{0, 1}}},
		ModelWarmup:   []*inferencepb.ModelWarmup{{Name: "4", BatchSize: 4}},
	}
	modelconfig.SetParameter(want, keyBatch, "2")
	if !proto.Equal(config, want) { // above all, no batcher where there was none
		t.Errorf("%v\nwant %v", config, want)
	}
	modelconfig.SetParameter(config, keyBatch, "many")
	modelconfig.SetParameter(want, keyBatch, "many")
	from, to.MaxBatch = to, 2
	setServer(config, from, to)
	want.MaxBatchSize, want.ModelWarmup = 2, nil
	if !proto.Equal(config, want) {
		t.Errorf("%v\nwant %v", config, want)
	}
}

// TestDoesNotLoad: settings that the model does not load with are infeasible,
// and other errors are not.
func TestDoesNotLoad(t *testing.T) {
	const deadlineExceeded = 4 // of gRPC's codes
	for _, c := range []struct {
		fault      tritontest.Fault
		infeasible bool
		loads      int
	}{
		{tritontest.BackendError("failed to load 'layout': CUDA out of memory"), true, 1},
		{tritontest.Stopping(), false, 2},
		{tritontest.Fail(deadlineExceeded, "Deadline Exceeded"), true, 2},
	} {
		server, client := fake(t, tritontest.Config{})
		before := served(t, client)
		s := take(t, client)
		server.Script(func(call *tritontest.Call) tritontest.Fault {
			if call.Method == "RepositoryModelLoad" && call.Index == 0 {
				return c.fault
			}
			return tritontest.Fault{}
		})
		to := s.start
		to.MaxBatch = 2
		err := s.Apply(t.Context(), to)
		if _, no := errors.AsType[*Infeasible](err); err == nil || no != c.infeasible {
			t.Errorf("%v", err)
		}
		if err := s.Restore(t.Context()); err != nil {
			t.Errorf("the old config was never replaced: %v", err)
		}
		// A load that took too long may come to be after all.
		if n := len(server.Calls("RepositoryModelLoad")); !proto.Equal(served(t, client), before) || n != c.loads {
			t.Errorf("%v: %d loads, want %d; served %v", err, n, c.loads, served(t, client))
		}
	}
}

// TestInterruptedLoad: a load whose answer did not come may come to be; the
// original is loaded behind it.
func TestInterruptedLoad(t *testing.T) {
	server, client := fake(t, tritontest.Config{})
	before := served(t, client)
	s := take(t, client)
	ctx, cancel := context.WithCancel(t.Context())
	server.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Method == "RepositoryModelLoad" && call.Index == 0 {
			cancel()
			return tritontest.Fault{Hang: true}
		}
		return tritontest.Fault{}
	})
	to := s.start
	to.MaxBatch = 2
	if err := s.Apply(ctx, to); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(server.Calls("RepositoryModelLoad")); n != 2 || !proto.Equal(served(t, client), before) {
		t.Errorf("%d loads, served %v", n, served(t, client))
	}
}
