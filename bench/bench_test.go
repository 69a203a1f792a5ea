// Package bench compares quire with what one would take instead; see README.md
// here. It has no Go code of its own but the helpers below it.
package bench

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// python runs python3 here and returns what it says and its exit code.
func python(t *testing.T, args ...string) (string, int) {
	t.Helper()
	out, err := exec.Command("python3", append([]string{"-B"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// TestScripts runs the tests that are written in Python.
func TestScripts(t *testing.T) {
	if out, code := python(t, "-W", "error", "test_bench.py"); code != 0 {
		t.Errorf("test_bench.py: exit code %d\n%s", code, out)
	}
}

func TestCompareUsage(t *testing.T) {
	if out, code := python(t, "compare", "--help"); code != 0 || !strings.Contains(out, "--quick") {
		t.Errorf("--help: exit code %d\n%s", code, out)
	}
	for _, args := range [][]string{{"--rounds", "0"}, {"no-such-directory"}, {"--no-such-flag"}} {
		if out, code := python(t, append([]string{"compare"}, args...)...); code != 2 {
			t.Errorf("%v: exit code %d, wanted 2\n%s", args, code, out)
		}
	}
}

// packages are the Python packages that the peers import, by module.
var packages = map[string]string{
	"numpy": "numpy", "openvino": "openvino", "pymupdf": "pymupdf", "pypdfium2": "pypdfium2",
	"rapid_layout": "rapid-layout", "tritonclient": "tritonclient",
}

// pins reads a lockfile: package -> version. Each must have a hash.
func pins(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../scripts", name))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+)==(\S+)( \\\n    --hash=sha256:[0-9a-f]{64})?`).FindAllStringSubmatch(string(text), -1) {
		if strings.HasSuffix(name, ".txt") && m[3] == "" {
			t.Errorf("%s: %s has no hash", name, m[1])
		}
		found[m[1]] = m[2]
	}
	if len(found) == 0 {
		t.Fatalf("%s pins nothing", name)
	}
	return found
}

// TestPeersArePinned holds that what the peers import is locked, that the lock
// is that of the list, and that everybody has the engine that the server has.
func TestPeersArePinned(t *testing.T) {
	locked := pins(t, "requirements-bench.txt")
	if listed := pins(t, "requirements-bench.in"); !maps.Equal(listed, locked) {
		t.Errorf("requirements-bench.txt has %v,\nrequirements-bench.in %v: run scripts/lock.py", locked, listed)
	}
	for name, version := range pins(t, "requirements-server.txt") {
		if have, ok := locked[name]; ok && have != version {
			t.Errorf("the peers have %s %s, the server %s", name, have, version)
		}
	}
	scripts, err := filepath.Glob("peers/*.py")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no peers (%v)", err)
	}
	standard, _ := python(t, "-c", "import sys; print(*sys.stdlib_module_names)")
	imports := regexp.MustCompile(`(?m)^ *(?:import|from) (\w+)`)
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range imports.FindAllStringSubmatch(string(text), -1) {
			module := m[1]
			if slices.Contains(scripts, "peers/"+module+".py") || slices.Contains(strings.Fields(standard), module) {
				continue
			}
			if name := packages[module]; name == "" {
				t.Errorf("%s imports %s: name its package here and in scripts/requirements-bench.in", script, module)
			} else if locked[name] == "" {
				t.Errorf("%s imports %s, and scripts/requirements-bench.txt does not list %s", script, module, name)
			}
		}
	}
}
