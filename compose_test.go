// Package quire_test holds what belongs to the whole repository: the tests of
// the files in which it is deployed.
package quire_test

import (
	"bufio"
	"context"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"go.uber.org/goleak"

	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

func TestMain(m *testing.M) {
	guard.Main()
	goleak.VerifyTestMain(m)
}

const (
	composeFile = "docker-compose.yml"
	composeCPU  = "docker-compose.cpu.yml"
)

// load reads compose files as docker compose does: schema, interpolation,
// merging, profiles, consistency.
func load(t *testing.T, env []string, profiles []string, files ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions(files,
		cli.WithWorkingDirectory("."), cli.WithEnv(env), cli.WithProfiles(profiles), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("%v: %v", files, err)
	}
	return project
}

func service(t *testing.T, p *types.Project, name string) types.ServiceConfig {
	t.Helper()
	s, err := p.GetService(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// volume is the mount of a service at target.
func volume(t *testing.T, s types.ServiceConfig, target string) types.ServiceVolumeConfig {
	t.Helper()
	for _, v := range s.Volumes {
		if v.Target == target {
			return v
		}
	}
	t.Fatalf("%s: nothing is mounted at %s", s.Name, target)
	return types.ServiceVolumeConfig{}
}

// flags are the flags of a tritonserver command, by name.
func flags(t *testing.T, s types.ServiceConfig) map[string]string {
	t.Helper()
	if len(s.Command) == 0 || s.Command[0] != "tritonserver" {
		t.Fatalf("%s: the command is %q", s.Name, s.Command)
	}
	m := map[string]string{}
	for _, arg := range s.Command[1:] {
		name, value, ok := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if _, twice := m[name]; !ok || twice || !strings.HasPrefix(arg, "--") {
			t.Fatalf("%s: argument %q: want --NAME=VALUE, once", s.Name, arg)
		}
		m[name] = value
	}
	return m
}

// "up" is the model and then Triton; the job is started by its name only.
func TestComposeUp(t *testing.T) {
	for _, files := range [][]string{{composeFile}, {composeFile, composeCPU}} {
		p := load(t, nil, nil, files...)
		if got := p.ServiceNames(); !slices.Equal(got, []string{"model", "triton"}) {
			t.Errorf("%v: up starts %v", files, got)
		}
		if got := p.DisabledServiceNames(); !slices.Equal(got, []string{"quire"}) {
			t.Errorf("%v: up leaves alone %v", files, got)
		}
		triton := service(t, p, "triton")
		if got := triton.DependsOn["model"].Condition; got != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("%v: triton waits for model: %q", files, got)
		}
		if triton.Image != "nvcr.io/nvidia/tritonserver:26.07-py3" {
			t.Errorf("%v: image %s", files, triton.Image)
		}
	}
}

func TestComposeTriton(t *testing.T) {
	p := load(t, nil, nil, composeFile)
	triton, model := service(t, p, "triton"), service(t, p, "model")
	f := flags(t, triton)

	for _, port := range triton.Ports {
		if port.HostIP != "127.0.0.1" {
			t.Errorf("port %d is published on %q", port.Target, port.HostIP)
		}
	}
	if f["model-control-mode"] != "explicit" || f["allow-client-shm"] != "true" {
		t.Errorf("flags %v", f)
	}
	// The least interval of grpc-go's keepalive.
	if ms, err := strconv.Atoi(f["grpc-http2-min-recv-ping-interval-without-data"]); err != nil || ms > 10_000 || f["grpc-keepalive-permit-without-calls"] != "1" {
		t.Errorf("a client that pings every 10 s would be refused: %v", f)
	}
	exit, err := strconv.Atoi(f["exit-timeout-secs"])
	if err != nil || triton.StopGracePeriod == nil || time.Duration(*triton.StopGracePeriod) < time.Duration(exit)*time.Second+10*time.Second {
		t.Errorf("stop_grace_period %v with an exit timeout of %d s: Triton would be killed", triton.StopGracePeriod, exit)
	}

	// Ready means this model.
	if triton.HealthCheck == nil || !strings.HasSuffix(triton.HealthCheck.Test[len(triton.HealthCheck.Test)-1], ":8000/v2/models/"+f["load-model"]+"/ready") {
		t.Errorf("health check %+v of model %q", triton.HealthCheck, f["load-model"])
	}
	// Both see one repository, which one of them may write to.
	read, write := volume(t, triton, f["model-repository"]), volume(t, model, strings.TrimPrefix(model.Command[0], "--repository="))
	if read.Source != write.Source || !read.ReadOnly || write.ReadOnly {
		t.Errorf("triton reads %+v, model writes %+v", read, write)
	}
	if _, err := os.Stat(filepath.Join(read.Source, f["load-model"], "config.pbtxt")); err != nil {
		t.Error(err)
	}
	devices := triton.Deploy.Resources.Reservations.Devices
	if len(devices) != 1 || devices[0].Driver != "nvidia" || !slices.Contains(devices[0].Capabilities, "gpu") {
		t.Errorf("devices %+v", devices)
	}
}

// The override takes the GPU away, adds one flag, and has quire ask for fewer
// pages at once; nothing else changes.
func TestComposeWithoutGPU(t *testing.T) {
	job := []string{"job"}
	with, without := load(t, nil, job, composeFile), load(t, nil, job, composeFile, composeCPU)
	gpu, cpu := service(t, with, "triton"), service(t, without, "triton")
	if cpu.Deploy != nil {
		t.Errorf("a device is still asked for: %+v", cpu.Deploy)
	}
	want := flags(t, gpu)
	want["model-config-name"] = "cpu"
	if got := flags(t, cpu); !maps.Equal(got, want) {
		t.Errorf("flags %v\nwant  %v", got, want)
	}
	repository := volume(t, cpu, want["model-repository"]).Source
	if _, err := os.Stat(filepath.Join(repository, want["load-model"], "configs", want["model-config-name"]+".pbtxt")); err != nil {
		t.Error(err)
	}
	quire := service(t, without, "quire")
	if got := quire.Environment["QUIRE_BATCH"]; got == nil || *got != "4" {
		t.Errorf("quire's environment %v", quire.Environment)
	}
	delete(quire.Environment, "QUIRE_BATCH")
	cpu.Deploy, cpu.Command = gpu.Deploy, gpu.Command
	without.Services["triton"] = cpu
	a, err := with.MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	b, err := without.MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Errorf("the override changes more than it should:\n%s\nand\n%s", a, b)
	}
}

func TestComposeJob(t *testing.T) {
	pdfs, out := t.TempDir(), t.TempDir()
	env := []string{"UID_GID=1234:5678", "PDF_DIR=" + pdfs, "OUT_DIR=" + out, "TRITON_GRPC_PORT=9001"}
	p := load(t, env, []string{"job"}, composeFile)
	quire, triton := service(t, p, "quire"), service(t, p, "triton")

	if got := quire.DependsOn["triton"].Condition; got != types.ServiceConditionHealthy {
		t.Errorf("quire waits for triton: %q", got)
	}
	if v := volume(t, quire, "/pdfs"); v.Source != pdfs || !v.ReadOnly {
		t.Errorf("/pdfs is %+v", v)
	}
	if v := volume(t, quire, "/out"); v.Source != out || v.ReadOnly {
		t.Errorf("/out is %+v", v)
	}
	// Shared memory: one /dev/shm with room, and one user, since the objects
	// have mode 0600.
	if triton.Ipc != "shareable" || quire.Ipc != "service:triton" || triton.ShmSize < 512<<20 {
		t.Errorf("ipc %q and %q, shm_size %d", triton.Ipc, quire.Ipc, triton.ShmSize)
	}
	for name, s := range p.Services {
		if s.User != "1234:5678" {
			t.Errorf("%s runs as %q", name, s.User)
		}
		for _, v := range s.Volumes {
			if v.Type != "bind" || v.Bind == nil || v.Bind.CreateHostPath {
				t.Errorf("%s: %s would be made by Docker, as root", name, v.Source)
			}
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: security_opt %v", name, s.SecurityOpt)
		}
	}
	// The address that quire is told is where Triton listens by default,
	// whatever is published on the host.
	address := quire.Environment["QUIRE_TRITON"]
	if address == nil || *address != "triton:8001" {
		t.Errorf("QUIRE_TRITON is %v", address)
	}
	if !slices.ContainsFunc(triton.Ports, func(c types.ServicePortConfig) bool { return c.Target == 8001 && c.Published == "9001" }) {
		t.Errorf("ports %+v", triton.Ports)
	}
}

// newer are the flags that came after the server which is embedded, and the
// container that they came with.
var newer = map[string]string{"allow-client-shm": "26.04"}

var helpFlag = regexp.MustCompile(`(?m)^\s*--([a-z0-9-]+)`)

// The flags are flags of a real tritonserver, and it starts with their values.
func TestComposeFlagsAreTritons(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // it may have to be downloaded
	defer cancel()
	g, err := guard.Start(ctx, guard.Config{Name: "quiretest"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	options := embedded.Options{Guard: g, Progress: func(p embedded.Progress) {
		if p.Done == 0 {
			t.Log(p.Text)
		}
	}}
	help, err := embedded.ServerHelp(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range helpFlag.FindAllStringSubmatch(help, -1) {
		known[m[1]] = true
	}
	if !known["model-repository"] {
		t.Fatalf("this is no help: %q", help)
	}
	for name := range newer {
		if known[name] {
			t.Errorf("--%s is no exception any more", name)
		}
	}
	here := []string{"model-repository", "model-control-mode", "load-model"} // the embedded server's own
	var extra []string
	for name, value := range flags(t, service(t, load(t, nil, nil, composeFile, composeCPU), "triton")) {
		if newer[name] != "" {
			continue
		}
		if !known[name] {
			t.Errorf("tritonserver has no flag --%s", name)
		}
		if !slices.Contains(here, name) {
			extra = append(extra, "--"+name+"="+value)
		}
	}
	server, err := embedded.Start(ctx, embedded.Config{
		Options: options, ModelRepository: "model_repository", ModelConfigName: "-", Models: []string{}, ExtraArgs: extra,
	})
	if err != nil {
		t.Fatalf("with %v: %v", extra, err)
	}
	if err := server.Kill(); err != nil {
		t.Error(err)
	}
}

// stage is a part of the Dockerfile.
type stage struct {
	name, image string
	copies      []string // from the build context
	from        []string // stages that files are copied from
	user        string
	text        string
}

// dockerfile reads what the tests need of it; a COPY is one line here.
func dockerfile(t *testing.T) (stages []stage) {
	t.Helper()
	f, err := os.Open("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		if words[0] == "FROM" {
			if len(words) != 4 || words[2] != "AS" {
				t.Fatalf("%q: want FROM IMAGE AS NAME", lines.Text())
			}
			stages = append(stages, stage{image: words[1], name: words[3]})
			continue
		}
		if len(stages) == 0 {
			continue
		}
		s := &stages[len(stages)-1]
		s.text += lines.Text() + "\n"
		switch {
		case words[0] == "USER":
			s.user = words[1]
		case words[0] == "COPY" && strings.HasPrefix(words[1], "--from="):
			s.from = append(s.from, strings.TrimPrefix(words[1], "--from="))
		case words[0] == "COPY":
			s.copies = append(s.copies, words[1:len(words)-1]...)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return stages
}

// buildContext copies what a stage copies, less what .dockerignore keeps out.
func buildContext(t *testing.T, s stage) string {
	t.Helper()
	f, err := os.Open(".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, source := range s.copies {
		copied := 0
		err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if out, err := ignored.MatchesOrParentMatches(path); out || err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			copied++
			to := filepath.Join(dir, path)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, content, 0o644)
		})
		if err != nil || copied == 0 {
			t.Fatalf("stage %s: COPY %s copies %d files: %v", s.name, source, copied, err)
		}
	}
	return dir
}

func TestDockerfile(t *testing.T) {
	stages := dockerfile(t)
	byName := map[string]stage{}
	for _, s := range stages {
		byName[s.name] = s
		for _, from := range s.from {
			if _, ok := byName[from]; !ok {
				t.Errorf("stage %s copies from %q, which is not there before it", s.name, from)
			}
		}
	}
	p := load(t, nil, []string{"job"}, composeFile)
	for name, s := range p.Services {
		if s.Build == nil {
			continue
		}
		built, ok := byName[s.Build.Target]
		if !ok {
			t.Errorf("service %s is built from stage %q, which is not there", name, s.Build.Target)
		}
		if user, _, _ := strings.Cut(built.user, ":"); user == "" || user == "0" || user == "root" {
			t.Errorf("stage %s runs as %q", built.name, built.user)
		}
		buildContext(t, built) // each source is there and not kept out
	}
	if last := stages[len(stages)-1].name; last != "quire" {
		t.Errorf("docker build makes %q unless told otherwise", last)
	}
}

// The Go of the image is the Go of go.mod, and what is copied is all that the
// build needs, embedded files included.
func TestDockerfileBuilds(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))
	build := dockerfile(t)[0]
	if want := "golang:" + version[1] + "-"; !strings.HasPrefix(build.image, want) {
		t.Errorf("built with %s, go.mod wants %s…", build.image, want)
	}
	if strings.Contains(string(mod), "\nreplace ") {
		t.Error("go.mod replaces a module: look whether the image gets it")
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Error}}{{.}}{{end}}", "./cmd/quire")
	list.Dir = buildContext(t, build)
	list.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := list.CombinedOutput(); err != nil {
		t.Errorf("the sources are not complete: %v\n%s", err, out)
	}
}

// The model image has what the embedded set-up has.
func TestDockerfileModel(t *testing.T) {
	stages := dockerfile(t)
	i := slices.IndexFunc(stages, func(s stage) bool { return s.name == "model" })
	if i < 0 {
		t.Fatal("no stage model")
	}
	m := stages[i]
	python := regexp.MustCompile(`^python:3\.(\d+)-slim`).FindStringSubmatch(m.image)
	if python == nil {
		t.Fatalf("image %s", m.image)
	}
	// What the lock files hold.
	if minor, err := strconv.Atoi(python[1]); err != nil || minor < 10 || minor > 13 {
		t.Errorf("Python 3.%s: the wheels are locked for 3.10 to 3.13", python[1])
	}
	for _, want := range []string{"--require-hashes", "--no-deps", "--only-binary :all:", "scripts/requirements-model.txt", "scripts/prepare_model.py"} {
		if !strings.Contains(m.text, want) {
			t.Errorf("stage model does not say %s", want)
		}
	}
}
