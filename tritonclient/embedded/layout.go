package embedded

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"quire/scripts"
	"quire/tritonclient/guard"
)

// backendScript is our backend for the name onnxruntime.
//
//go:embed backend/onnxruntime/model.py
var backendScript []byte

// endScript is for the models of the Python backend, ours among them.
//
//go:embed backend/python/end_with_server.py
var endScript []byte

// ServerEnv installs what the server needs, if it is not there.
func ServerEnv(ctx context.Context, o Options) (*Env, error) {
	return Install(ctx, o, Requirements{Name: "server", Lock: scripts.RequirementsServer})
}

// tritonDir is where the wheel has the server.
func tritonDir(e *Env) string { return filepath.Join(e.SitePackages(), "pytriton", "tritonserver") }

func serverPath(e *Env) string { return filepath.Join(tritonDir(e), "bin", "tritonserver") }

// libraryPath is what server and stub need of LD_LIBRARY_PATH: the libraries in
// the wheel, and one directory that holds nothing but libpython, because a whole
// foreign lib directory would put its own versions of other libraries first.
func (e *Env) libraryPath(backends string) string {
	path := filepath.Join(e.SitePackages(), "nvidia_pytriton.libs") + ":" + filepath.Join(backends, "lib")
	if user := os.Getenv("LD_LIBRARY_PATH"); user != "" {
		path += ":" + user
	}
	return path
}

// layOut makes Triton's backend directory for an environment, and returns it: the Python
// backend with the stub for the environment's interpreter, and ours for
// onnxruntime beside it. A new one is checked for libraries that it lacks.
func layOut(ctx context.Context, o Options, e *Env) (dir string, err error) {
	cache, err := CacheDir(o)
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "backends")
	const unfinished = ".tmp-"
	dir = filepath.Join(parent, digest(layoutVersion, e.dir, e.python.Libpython, string(backendScript), string(endScript)))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := checkShell(); err != nil {
		return "", err
	}
	lock, err := lockFile(ctx, cache, filepath.Join(parent, ".lock"), nil)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil { // another process was faster
		return dir, nil
	}
	if killed, err := filepath.Glob(filepath.Join(parent, unfinished+"*")); err == nil {
		for _, left := range killed {
			_ = os.RemoveAll(left)
		}
	}
	tmp, err := os.MkdirTemp(parent, unfinished)
	if err != nil {
		return "", cacheError(cache, err)
	}
	defer os.RemoveAll(tmp)
	if err := fillBackends(tmp, e); err != nil {
		return "", cacheError(cache, err)
	}
	if err := checkLoads(ctx, o.Guard, e, tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", cacheError(cache, err)
	}
	return dir, nil
}

func fillBackends(dir string, e *Env) error {
	if err := os.Chmod(dir, 0o755); err != nil { // MkdirTemp is for secrets
		return err
	}
	for _, sub := range []string{"lib", "python", "onnxruntime"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	triton := tritonDir(e)
	// Copies: Triton refuses links that lead out of a backend's directory.
	files := map[string]string{
		"libtriton_python.so":            filepath.Join(triton, "backends", "python", "libtriton_python.so"),
		"triton_python_backend_utils.py": filepath.Join(triton, "backends", "python", "triton_python_backend_utils.py"),
		"triton_python_backend_stub":     stubPath(e),
	}
	for name, from := range files {
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := replaceFile(filepath.Join(dir, "python", name), content, 0o755); err != nil {
			return err
		}
	}
	if e.python.Libpython != "" {
		if err := os.Symlink(e.python.Libpython, filepath.Join(dir, "lib", fmt.Sprintf("libpython3.%d.so.1.0", e.python.Minor))); err != nil {
			return err
		}
	}
	return errors.Join(
		replaceFile(filepath.Join(dir, "python", "end_with_server.py"), endScript, 0o644),
		replaceFile(filepath.Join(dir, "onnxruntime", "model.py"), backendScript, 0o644),
	)
}

func stubPath(e *Env) string {
	return filepath.Join(tritonDir(e), "python_backend_stubs", fmt.Sprintf("3.%d", e.python.Minor), "triton_python_backend_stub")
}

var missingLibrary = regexp.MustCompile(`error while loading shared libraries: ([^\s:]+): (.*)`)

// checkShell looks for what Triton's Python backend starts its stubs with; it
// waits for minutes when there is none.
func checkShell() error {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin", "/bin") {
		if info, err := os.Stat(filepath.Join(dir, "bash")); err == nil && info.Mode()&0o111 != 0 {
			return nil
		}
	}
	return &SetupError{Thing: "bash", Reason: "not found, and the server starts Python with it", Remedy: installCommand("bash", "bash") + ", " + wayOut}
}

// ServerHelp is what tritonserver --help says: all of its flags. It installs the
// server if need be.
func ServerHelp(ctx context.Context, o Options) (string, error) {
	e, err := ServerEnv(ctx, o)
	if err != nil {
		return "", err
	}
	backends, err := layOut(ctx, o, e)
	if err != nil {
		return "", err
	}
	var help strings.Builder
	_, err = runLines(ctx, o.Guard, guard.Command{
		Path: serverPath(e),
		Args: []string{"tritonserver", "--help"},
		Env:  e.environ("LD_LIBRARY_PATH=" + e.libraryPath(backends)),
	}, func(line string) { help.WriteString(line + "\n") })
	return help.String(), err
}

// libraryPackages have the system's libraries that server and stub need.
var libraryPackages = map[string]struct{ debian, fedora string }{
	"libstdc++.so.6": {"libstdc++6", "libstdc++"},
	"libgcc_s.so.1":  {"libgcc-s1", "glibc libgcc"},
	"libz.so.1":      {"zlib1g", "zlib"},
	"libc.so.6":      {"libc6", "glibc libgcc"},
}

// checkLoads runs server and stub for nothing but what the dynamic loader says.
func checkLoads(ctx context.Context, g *guard.Guard, e *Env, backends string) error {
	for _, args := range [][]string{{serverPath(e), "--help"}, {filepath.Join(backends, "python", "triton_python_backend_stub")}} {
		var missing []string
		_, err := runLines(ctx, g, guard.Command{
			Path: args[0],
			Args: args,
			Env:  e.environ("LD_LIBRARY_PATH=" + e.libraryPath(backends)),
		}, func(line string) {
			if m := missingLibrary.FindStringSubmatch(line); m != nil {
				missing = m
			}
		})
		if err != nil {
			return err
		}
		if missing == nil {
			continue
		}
		name := missing[1]
		remedy := "install the package that has it"
		if strings.HasPrefix(name, "libpython") {
			remedy = installCommand(fmt.Sprintf("libpython3.%d", e.python.Minor), "python3-libs")
		}
		if in, known := libraryPackages[name]; known {
			remedy = installCommand(in.debian, in.fedora)
		}
		return &SetupError{Thing: name, Reason: "not found by " + filepath.Base(args[0]) + " (" + missing[2] + ")", Remedy: remedy + ", " + wayOut}
	}
	return nil
}
