package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
	"quire/orchestrator/doctor"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/tune"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

func doctorCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "say what is wrong with this setup, and what mends it",
		Description: "Looks at this machine and at the server: with --triton at that one, else at\n" +
			"what quire needs to start one of its own, which it starts if that is installed.\n" +
			"Installs nothing unless --install is given, and changes nothing but a model that\n" +
			"an interrupted quire tune has left on trial settings: that is put back. Each\n" +
			"finding is ok, warn (quire works, with less or later) or fail, with the command\n" +
			"that mends it. The exit code is 0 when quire run would work, 4 when it would not\n" +
			"because of a server or its model, 1 when it would not for another reason.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "triton", EnvVars: []string{"QUIRE_TRITON"}, Usage: "look at the server at `HOST:PORT` (its gRPC port); several with commas, or dns:///NAME:PORT for every address of a name", DefaultText: "quire's own"},
			&cli.StringFlag{Name: "model-repository", EnvVars: []string{"QUIRE_MODEL_REPOSITORY"}, Usage: "the models in `DIR` are what the server that quire starts would serve", DefaultText: "./model_repository if it is there, else quire's own copy"},
		}, connectionFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "install", EnvVars: []string{"QUIRE_INSTALL"}, Usage: "install the server and build the model first, if that is still to do"},
			&cli.BoolFlag{Name: "json", EnvVars: []string{"QUIRE_JSON"}, Usage: "print a JSON object a line, for programs (docs/events.md)"},
		}),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{fmt.Errorf("%s: doctor takes no arguments", c.Args().First())}
			}
			if c.String("triton") != "" && (c.String("model-repository") != "" || c.Bool("install")) {
				return usageError{errors.New("--triton contradicts --install and --model-repository: those are about the server that quire starts")}
			}
			connection, err := connectionOf(c)
			if err != nil {
				return usageError{err}
			}
			ctx, cancel := untilStopped(c.Context, stop.soft)
			defer cancel(nil)
			return interruptedOr(ctx, examineAll(ctx, c, connection))
		},
	}
}

// examination is one call of quire doctor.
type examination struct {
	ctx     context.Context
	report  *doctor.Report
	machine doctor.Machine
	guard   *guard.Guard
	screen  *screen
	// connection is how servers are connected to.
	connection tritonclient.Config
	// badServer is set when a server or its model is what does not work.
	badServer bool
	// pageBuffers is what a run will take of /dev/shm for pages; an estimate
	// until a model has been asked.
	pageBuffers int64
	// inFlight is what all servers that were asked take together, batch the
	// smallest of their batches; shared tells that one takes shared memory.
	inFlight, batch int
	shared          bool
	// first is the model of the first server that has one, and where that is.
	first      *layout.Contract
	firstWhere string
	// several tells that there may be other servers than the one that is looked
	// at. down is what is wrong with those that a run would not wait for then.
	several bool
	down    []doctor.Finding
}

// What a run takes of memory in the usual case: this program, a worker on an
// ordinary document, and the embedded server with its model; and of /dev/shm the
// embedded server, and the pages under way with its model as it is delivered.
const (
	ownBytes       = 256 << 20
	workerBytes    = 256 << 20
	embeddedBytes  = 1 << 30
	embeddedShared = 24 << 20
	usualPages     = 34 << 20
)

func examineAll(ctx context.Context, c *cli.Context, connection tritonclient.Config) (err error) {
	screen := newScreen(c.App.ErrWriter)
	defer screen.hide()
	g, err := startGuard(ctx)
	if err != nil {
		return err
	}
	defer func() { err = join(err, g.Close()) }()
	e := &examination{
		ctx: ctx, guard: g, screen: screen, connection: connection,
		report: &doctor.Report{Out: c.App.Writer, JSON: c.Bool("json")},
	}
	workers := runtime.GOMAXPROCS(0)
	memory, shared := ownBytes+int64(workers)*workerBytes, int64(0)
	if servers := c.String("triton"); servers != "" {
		if err := e.servers(servers); err != nil {
			return err
		}
	} else {
		memory, shared, e.pageBuffers = memory+embeddedBytes, embeddedShared, usualPages
		e.embedded(c.String("model-repository"), c.Bool("install"))
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	e.report.Add(e.machine.SharedMemory(shared + e.pageBuffers))
	e.report.Add(e.machine.Memory(memory))
	e.report.Add(e.machine.Files(workers))
	e.report.Add(e.machine.AddressSpace())
	for _, f := range e.machine.Kernel() {
		e.report.Add(f)
	}
	e.sandbox()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	code := exitDone
	switch {
	case e.badServer:
		code = exitServer
	case e.report.Count(doctor.Fail) > 0:
		code = exitFailed
	}
	if err := e.report.Finish(code); err != nil {
		return err
	}
	if code != exitDone {
		return quietError{code}
	}
	return nil
}

func (e *examination) add(check string, status doctor.Status, remedy, format string, args ...any) {
	e.screen.hide()
	e.report.Add(doctor.Finding{Check: check, Status: status, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// sandbox starts a render worker and asks what holds it in.
func (e *examination) sandbox() {
	s, err := render.New(render.Config{Guard: e.guard}).Sandbox(e.ctx)
	var by []string
	if s.Landlock > 0 {
		by = append(by, fmt.Sprintf("Landlock (ABI %d)", s.Landlock))
	}
	if s.Seccomp {
		by = append(by, "seccomp")
	}
	const (
		check  = "sandbox"
		remedy = "use Linux 5.13 or newer, and no container whose profile forbids Landlock or seccomp"
	)
	switch {
	case err != nil && context.Cause(e.ctx) != nil:
	case err != nil:
		e.add(check, doctor.Fail, "look at the limits of this shell: ulimit -a", "%v", err)
	case len(s.Missing) == 0:
		e.add(check, doctor.OK, "", "render workers open no file and no socket and touch no process: %s", strings.Join(by, " and "))
	case len(by) > 0:
		e.add(check, doctor.Warn, remedy, "render workers are held in by %s only (%s)", by[0], strings.Join(s.Missing, "; "))
	default:
		e.add(check, doctor.Warn, remedy, "render workers have your rights (%s)", strings.Join(s.Missing, "; "))
	}
}

// lack adds what an error of embedded says, unless the examination was called
// off.
func (e *examination) lack(check string, err error) {
	if context.Cause(e.ctx) != nil {
		return
	}
	if setup, ok := errors.AsType[*embedded.SetupError](err); ok {
		e.add(check, doctor.Fail, setup.Remedy, "%s: %s", setup.Thing, setup.Reason)
		return
	}
	e.add(check, doctor.Fail, "quire run --triton ADDR, with a server that runs already", "%v", err)
}

const installCommand = "quire doctor --install"

// embedded looks at what the server that quire starts needs, and at the server
// itself if it is installed.
func (e *examination) embedded(repository string, install bool) {
	options := embedded.Options{Guard: e.guard, Progress: e.screen.step}
	python, err := embedded.FindPython(e.ctx, "")
	if err != nil {
		e.lack("python", err)
		return
	}
	e.add("python", doctor.OK, "", "%s (Python %s)", python.Path, python.Version)

	dir, installed, lack := embedded.Installed(e.ctx, options)
	cache, err := embedded.CacheDir(options)
	if err != nil {
		e.lack("cache", err)
		return
	}
	need := int64(embedded.InstallBytes)
	if installed {
		need = 0
	}
	before := e.report.Count(doctor.Fail)
	e.report.Add(e.machine.Cache(cache, need))
	if e.report.Count(doctor.Fail) > before {
		return
	}
	if lack != nil {
		e.lack("embedded_server", lack)
		return
	}
	if !installed && install {
		if _, err := embedded.ServerEnv(e.ctx, options); err != nil {
			e.lack("embedded_server", err)
			return
		}
		installed = true
	}
	if !installed {
		e.add("embedded_server", doctor.Warn, installCommand, "not installed yet (%s): the first quire run downloads it", dir)
		return
	}
	e.add("embedded_server", doctor.OK, "", "installed in %s", dir)
	e.startEmbedded(repository, install, options)
}

// startEmbedded looks at the model and starts the server.
func (e *examination) startEmbedded(repository string, install bool, options embedded.Options) {
	repository, err := findRepository(repository, options)
	if err != nil {
		e.lack("model", err)
		return
	}
	config := filepath.Join(repository, layout.DefaultModel, "config.pbtxt")
	if _, err := os.Stat(config); err != nil {
		e.badServer = true
		e.add("model", doctor.Fail, "quire doctor --model-repository DIR, with a copy of quire's model_repository", "%v", err)
		return
	}
	current := embedded.ModelCurrent(repository)
	if !current && install {
		if err := embedded.PrepareModel(e.ctx, options, repository); err != nil {
			e.lack("model", err)
			return
		}
		current = true
	}
	models := []string{layout.DefaultModel}
	if !current {
		models = []string{}
		e.add("model", doctor.Warn, installCommand, "%s: not built yet, or built by another version: quire run builds it", repository)
	}
	e.screen.doing("starting a Triton Inference Server on the CPU")
	server, err := embedded.Start(e.ctx, embedded.Config{Options: options, ModelRepository: repository, Models: models})
	if err != nil {
		e.badServer = true
		e.lack("server", err)
		return
	}
	defer server.Kill() // what is left of it goes with the guard
	if current {
		e.pageBuffers = 0 // the model tells
	}
	e.examine(tritonclient.Endpoint{Target: server.Addr()}, "started by quire", current)
}

// servers looks at servers that run already.
func (e *examination) servers(list string) error {
	endpoints, err := tritonclient.ParseEndpoints(list)
	if err != nil {
		return usageError{fmt.Errorf("--triton: %w", err)}
	}
	found, err := endpoints.Resolve(e.ctx)
	if err != nil {
		if context.Cause(e.ctx) == nil {
			e.badServer = true
			e.add("server", doctor.Fail, "name servers that there are with --triton HOST:PORT", "%v", err)
		}
		return nil
	}
	_, one := endpoints.Single()
	e.several = !one
	for _, server := range found {
		e.examine(server, server.Target, true)
	}
	if context.Cause(e.ctx) != nil {
		return nil
	}
	for _, f := range e.down {
		if e.first != nil {
			f.Status = doctor.Warn
			f.Text += "; a run begins with the others, and uses this one when it is ready"
		} else {
			e.badServer = true
		}
		e.add(f.Check, f.Status, f.Remedy, "%s", f.Text)
	}
	return nil
}

// away adds what is wrong with a server that may be right later. Of several, a run
// needs one.
func (e *examination) away(check, remedy, format string, args ...any) {
	switch {
	case context.Cause(e.ctx) != nil:
	case e.several:
		e.down = append(e.down, doctor.Finding{Check: check, Status: doctor.Fail, Text: fmt.Sprintf(format, args...), Remedy: remedy})
	default:
		e.badServer = true
		e.add(check, doctor.Fail, remedy, format, args...)
	}
}

// reach is what mends a server that cannot be asked, by what it said; otherwise is
// what does when that tells nothing.
func reach(err error, otherwise string) string {
	text := err.Error()
	says := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case says("speaks without TLS"):
		return "leave --tls and its flags out, or name the port that speaks TLS"
	case says("x509:") || says("tls:"):
		return "--tls-ca FILE, with the certificate that signed the server's; --tls-server-name NAME, one that is in the server's; --tls-cert and --tls-key where it wants one of yours"
	case tritonclient.KindOf(err) == tritonclient.Restricted:
		return "--triton-header KEY=VALUE, as the server's --grpc-restricted-protocol says"
	case says("does it want TLS"):
		return "--tls, or --tls-cert and --tls-key, if the server wants them; else " + otherwise
	}
	return otherwise
}

// sameModel compares a server's model with that of the first one: one run has
// one model.
func (e *examination) sameModel(c *layout.Contract, where string) {
	if e.first == nil {
		e.first, e.firstWhere = c, where
		return
	}
	if differs := e.first.Differs(c); differs != "" {
		e.badServer = true
		e.add("same_model", doctor.Fail, "serve one model_repository everywhere, or name servers that do",
			"the model at %s is not the one at %s: %s", where, e.firstWhere, differs)
	}
}

// examine asks a server, and its model if it is to have one.
func (e *examination) examine(server tritonclient.Endpoint, where string, model bool) {
	client, err := tritonclient.New(server.Target, server.Secure(e.connection))
	if err != nil {
		e.badServer = true
		e.add("server", doctor.Fail, "quire doctor --triton HOST:8001, the server's gRPC port", "%v", err)
		return
	}
	defer client.Close()
	meta, err := client.ServerMetadata(e.ctx)
	if err != nil {
		e.away("server", reach(err, "start Triton there, or name its gRPC port (8001 unless told otherwise) with --triton HOST:PORT"), "%v", err)
		return
	}
	e.add("server", doctor.OK, "", "Triton %s, %s", meta.GetVersion(), where)
	if !model {
		return
	}
	e.leftover(client)
	contract, ok := e.model(client, where)
	if !ok {
		return
	}
	e.sameModel(contract, where)
	// As a run has it: what all take together, of the smallest batch.
	batch := cmp.Or(contract.Batch, contract.MaxBatch)
	e.inFlight += cmp.Or(contract.InFlight, contract.Instances+1)
	e.batch = min(cmp.Or(e.batch, batch), batch)
	e.shared = e.transport(client, where, contract.Version) || e.shared
	if e.shared {
		e.pageBuffers = int64(e.inFlight+1) * int64(e.batch) * int64(contract.PageBytes())
	}
}

// leftover looks whether the model is served for a trial of quire tune, and puts
// it back if that has ended.
func (e *examination) leftover(client *tritonclient.Client) {
	const check, remedy = "trial", "unload the model and load it: that takes its config.pbtxt"
	left, err := tune.Find(e.ctx, client, layout.DefaultModel)
	if _, call := errors.AsType[*tritonclient.Error](err); call || err == nil && left == nil {
		return // e.model tells why a model cannot be asked
	}
	if err == nil && left.Alive {
		e.add(check, doctor.Warn, "wait for it", "quire tune (%s) is at work on the model, until %s at most", left.Note, left.Note.Until.Format(time.RFC3339))
		return
	}
	if err == nil {
		err = left.Repair(e.ctx, client)
	}
	switch {
	case context.Cause(e.ctx) != nil:
	case err != nil:
		e.badServer = true
		e.add(check, doctor.Fail, remedy, "%v", err)
	default:
		e.add(check, doctor.OK, "", "quire tune (%s) had left the model on trial settings; it is served as before again", left.Note)
	}
}

// model looks at the layout model of a server.
func (e *examination) model(client *tritonclient.Client, where string) (*layout.Contract, bool) {
	const load = "tritonserver --model-repository=DIR/model_repository --model-control-mode=explicit --load-model=" + layout.DefaultModel
	ready, err := client.ModelReady(e.ctx, layout.DefaultModel, "")
	if err != nil {
		e.away("model", reach(err, load), "%v", err)
		return nil, false
	}
	if !ready {
		e.away("model", load, "%s is not ready at %s: %s", layout.DefaultModel, where, e.whyNotReady(client))
		return nil, false
	}
	m, err := layout.Open(e.ctx, client, layout.Config{
		Version: e.version(client), Transport: layout.TransportInBand, SharedMemoryPrefix: e.guard.ShmPrefix(),
	})
	if err != nil {
		if me, ok := errors.AsType[*orchestrator.ModelError](err); ok && me.Action == orchestrator.ActionStop && context.Cause(e.ctx) == nil {
			e.badServer = true
			e.add("model", doctor.Fail, reach(err, load), "%v", err)
		} else {
			e.away("model", reach(err, load), "%v", err)
		}
		return nil, false
	}
	defer m.Close()
	c := m.Contract()
	e.add("model", doctor.OK, "", "%s version %s: pages of %d×%d pixels, batches up to %d, %d instances, %d classes",
		c.Model, c.Version, c.Width, c.Height, c.MaxBatch, c.Instances, len(c.Labels))
	return c, true
}

// version is the version that a run asks a server for: not its newest, but the one
// of the first server, if it has that.
func (e *examination) version(client *tritonclient.Client) string {
	if e.first == nil {
		return ""
	}
	meta, err := client.ModelMetadata(e.ctx, layout.DefaultModel, "")
	if err != nil || !slices.Contains(meta.GetVersions(), e.first.Version) {
		return ""
	}
	return e.first.Version
}

// whyNotReady is what the server's index says about the model.
func (e *examination) whyNotReady(client *tritonclient.Client) string {
	models, err := client.RepositoryIndex(e.ctx, false)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, m := range models {
		if m.GetName() == layout.DefaultModel {
			if m.GetState() == "" {
				return "it is in the repository and not loaded"
			}
			return strings.TrimSpace(m.GetState() + " " + m.GetReason())
		}
		names = append(names, m.GetName())
	}
	if len(names) == 0 {
		return "there is no model there"
	}
	slices.Sort(names)
	return "it is not in the repository, which has " + strings.Join(slices.Compact(names), ", ")
}

// transport finds out whether pages can go through shared memory.
func (e *examination) transport(client *tritonclient.Client, where, version string) bool {
	m, err := layout.Open(e.ctx, client, layout.Config{Version: version, Transport: layout.TransportShared, SharedMemoryPrefix: e.guard.ShmPrefix()})
	if err == nil {
		m.Close()
		e.add("transport", doctor.OK, "", "pages go through shared memory to %s", where)
		return true
	}
	if context.Cause(e.ctx) != nil {
		return false
	}
	remedy := "look at the server's log"
	switch tritonclient.KindOf(err) {
	case tritonclient.SharedMemoryDisabled:
		remedy = "tritonserver --allow-client-shm=true …"
	case tritonclient.RegionRefused:
		remedy = "none on another machine; here, run server and quire as one user, and in containers with one /dev/shm (ipc: service:triton)"
	}
	reason := err
	if t, ok := errors.AsType[*tritonclient.Error](err); ok {
		reason = t // without what layout says about it
	}
	e.add("transport", doctor.Warn, remedy, "pages go in gRPC messages to %s, which costs processor time: %v", where, reason)
	return false
}
