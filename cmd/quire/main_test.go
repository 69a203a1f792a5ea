package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"

	"quire/orchestrator/render"
	"quire/tritonclient"
	"quire/tritonclient/guard"
)

const (
	examples   = "../../examples"
	repository = "../../model_repository"
)

// theDir is for what the tests of this package share; it is removed at the end.
var theDir string

func TestMain(m *testing.M) {
	guard.Main()
	render.Main()
	var err error
	if theDir, err = os.MkdirTemp("", "quire-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The settings of whoever runs the tests are not what they are about.
	for _, cmd := range newApp(stops{}).Commands {
		for _, f := range cmd.Flags {
			for _, name := range f.(cli.DocGenerationFlag).GetEnvVars() {
				os.Unsetenv(name)
			}
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(theDir)
		os.Exit(code)
	}))
}

// binary is the program, built as a user would build it.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(theDir, "quire")
	return path, command("go", "build", "-o", path, "quire/cmd/quire")
})

// manyPages are so many documents of one page that a run over them, which takes
// every core, lasts some seconds and can be interfered with.
var manyPages = 150 * runtime.NumCPU()

var manyDocuments = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(theDir, "many")
	return dir, command("python3", "../../scripts/make_odd.py", "--many", dir, fmt.Sprint(manyPages))
})

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// makeOdd has scripts/make_odd.py make documents.
func makeOdd(t *testing.T, args ...string) {
	t.Helper()
	if err := command("python3", append([]string{"../../scripts/make_odd.py"}, args...)...); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, content string, elem ...string) (name string) {
	t.Helper()
	name = filepath.Join(elem...)
	if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// unmarshal reads a line of JSON.
func unmarshal(t *testing.T, line string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), into); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
}

// startedGuard and connected end with the test.
func startedGuard(t *testing.T) *guard.Guard {
	t.Helper()
	g, err := guard.Start(t.Context(), guard.Config{Name: "quiretest"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func connected(t *testing.T, addr string) *tritonclient.Client {
	t.Helper()
	client, err := tritonclient.New(addr, tritonclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// must unwraps the two at the top.
func must(t *testing.T, made func() (string, error)) string {
	t.Helper()
	path, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
