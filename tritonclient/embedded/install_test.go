package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quire/tritonclient/guard"
)

// tinyRequirements is something small to install on top of the server's
// environment, which spares the time that a pip of its own takes.
func tinyRequirements(t *testing.T, o Options) Requirements {
	t.Helper()
	base, err := ServerEnv(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return Requirements{Name: "tiny", Lock: []byte(tinyLock), Base: base}
}

// An installation killed at any stage is made whole by the next.
func TestKilledInstall(t *testing.T) {
	for _, test := range []struct{ role, stage string }{
		{"install", "making a virtual environment"},
		{"install on server", "installing"},
	} {
		t.Run(test.stage, func(t *testing.T) {
			cache := t.TempDir()
			h := startHelper(t, test.role, cache)
			h.until(t, test.stage)
			if err := h.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = h.Wait()
			o := options(t)
			req := tinyRequirements(t, o)
			if test.role == "install" {
				req.Base = nil
			}
			o.Cache = cache
			env, err := Install(t.Context(), o, req)
			if err != nil {
				t.Fatal(err)
			}
			wantImport(t, o, env)
		})
	}
}

func wantImport(t *testing.T, o Options, env *Env) {
	t.Helper()
	var said []string
	err := env.Run(t.Context(), o.Guard, func(line string) { said = append(said, line) },
		"-c", "import typing_extensions, sys; print(typing_extensions.__file__, sys.prefix)")
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(env.SitePackages(), "typing_extensions.py") + " " + filepath.Join(env.Dir(), "venv")
	if len(said) != 1 || said[0] != want {
		t.Errorf("Python said %q, want %q", said, want)
	}
	if err := env.Run(t.Context(), o.Guard, nil, "-c", "raise SystemExit('the reason')"); err == nil || err.Error() != "the reason" {
		t.Errorf("a failing script gave %v", err)
	}
}

// Of two processes that want the same at once, one installs and both have it;
// afterwards nothing is left to do, and an environment on top shares it.
func TestInstallsAtOnce(t *testing.T) {
	o := options(t)
	req := tinyRequirements(t, o)
	cache := t.TempDir()
	var said [2][]string
	var wg sync.WaitGroup
	for i := range said {
		h := startHelper(t, "install on server", cache)
		wg.Go(func() { said[i] = h.rest(t) })
	}
	wg.Wait()
	made := 0
	for _, lines := range said {
		if lines[len(lines)-1] != "installed" {
			t.Fatalf("an installer said %q", lines)
		}
		if slices.ContainsFunc(lines, func(s string) bool { return strings.HasPrefix(s, "making") }) {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d processes installed, want 1: %q", made, said)
	}

	o.Cache = cache
	progress := o.Progress
	o.Progress = func(p Progress) { t.Errorf("something was left to do: %s", p.Text) }
	env, err := Install(t.Context(), o, req)
	if err != nil {
		t.Fatal(err)
	}
	wantImport(t, o, env)

	o.Progress = progress
	top, err := Install(t.Context(), o, Requirements{Name: "top", Lock: []byte("# a comment\n" + tinyLock + otherLock), Base: env})
	if err != nil {
		t.Fatal(err)
	}
	var files string
	if err := top.Run(t.Context(), o.Guard, func(line string) { files = line }, "-c", "import typing_extensions as t, google.protobuf as p; print(t.__file__, p.__file__)"); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(env.SitePackages(), "typing_extensions.py") + " " + filepath.Join(top.SitePackages(), "google", "protobuf", "__init__.py")
	if files != want {
		t.Errorf("the environment on top uses %s, want %s", files, want)
	}
}

// What goes wrong with pip is one line with the reason, and the log's name.
func TestInstallErrors(t *testing.T) {
	o := options(t)
	req := tinyRequirements(t, o)
	o.Cache = t.TempDir()
	wrong := req
	wrong.Lock = []byte(strings.Replace(tinyLock, "sha256:4", "sha256:5", 1))
	_, err := Install(t.Context(), o, wrong)
	wantSetupError(t, err, "does not match its pinned hash", "install.log", "--triton ADDR")

	t.Setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
	t.Setenv("PIP_RETRIES", "1")
	t.Setenv("PIP_FIND_LINKS", "")
	t.Setenv("PIP_NO_CACHE_DIR", "1")
	_, err = Install(t.Context(), o, req)
	wantSetupError(t, err, "cannot reach the package index", "install.log", "HTTPS_PROXY")

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	o.Cache = file
	_, err = Install(t.Context(), o, req)
	wantSetupError(t, err, "cache directory "+file, EnvCache)
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv(EnvCache, "")
	o.Cache = ""
	_, err = Install(t.Context(), o, req)
	wantSetupError(t, err, "cache directory", EnvCache)
	for _, name := range []string{"my cache", "R&D", "a:b", "it's", "$HOME", "x(1)", "tab\tbed"} {
		o.Cache = filepath.Join(t.TempDir(), name)
		for what, try := range map[string]func() error{
			"install": func() error { _, err := Install(t.Context(), o, req); return err },
			"look":    func() error { _, _, err := Installed(t.Context(), o); return err },
			"serve":   func() error { _, err := Start(t.Context(), identityConfig(o, t.TempDir())); return err },
			"lay out": func() error { _, err := BundledRepository(o); return err },
		} {
			err := try()
			if wantSetupError(t, err, strings.Fields(name)[0], EnvCache); !strings.Contains(err.Error(), "cache directory") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := os.Stat(o.Cache); !os.IsNotExist(err) {
			t.Errorf("%q was made: %v", name, err)
		}
		if dir, err := CacheDir(o); dir != o.Cache || err == nil {
			t.Errorf("CacheDir gives %q, %v", dir, err)
		}
	}
	o.Cache = filepath.Join(t.TempDir(), "Ä_1.0-x+y=z,@home%20")
	if _, err := CacheDir(o); err != nil {
		t.Error(err)
	}
}

func TestCacheDir(t *testing.T) {
	work := t.TempDir()
	t.Chdir(work)
	t.Setenv("XDG_CACHE_HOME", "/home/caches")
	for _, tt := range []struct{ option, env, want string }{
		{"", "", "/home/caches/quire"},
		{"", "/elsewhere", "/elsewhere"},
		{"", "here", filepath.Join(work, "here")}, // programs with other directories are told of it
		{"/asked", "/elsewhere", "/asked"},
	} {
		t.Setenv(EnvCache, tt.env)
		if got, err := CacheDir(Options{Cache: tt.option}); err != nil || got != tt.want {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
	}
	for err, want := range map[error]string{
		unix.ENOSPC: "make room (1 GB)", unix.EDQUOT: "make room (1 GB)", unix.EACCES: "make it writable", unix.EROFS: "make it writable",
	} {
		wantSetupError(t, cacheError("/c", &os.PathError{Op: "mkdir", Path: "/c/d", Err: err}), "cache directory /c", err.Error(), want, EnvCache)
	}
}

// An environment is another one with another interpreter, other packages or
// another environment below it, and none without its interpreter.
func TestEnvironments(t *testing.T) {
	programs, cache := t.TempDir(), t.TempDir()
	writeFiles(t, programs, map[string]string{
		"python":       fakePython(t, nil),
		"other-python": fakePython(t, map[string]any{"Executable": "/opt/python3"}),
	})
	env := func(python, name, lock string, base *Env) *Env {
		t.Helper()
		e, err := locate(t.Context(), Options{Cache: cache, Python: filepath.Join(programs, python)}, Requirements{Name: name, Lock: []byte(lock), Base: base})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	one, another := env("python", "a", tinyLock, nil), env("other-python", "a", tinyLock, nil)
	all := []*Env{one, another, env("python", "a", otherLock, nil), env("python", "b", tinyLock, nil), env("", "b", tinyLock, one), env("", "b", tinyLock, another)}
	seen := map[string]int{}
	for i, e := range all {
		if before, have := seen[e.Dir()]; have {
			t.Errorf("environments %d and %d are both %s", before, i, e.Dir())
		}
		seen[e.Dir()] = i
	}
	if again := env("python", "a", tinyLock, nil); again.Dir() != one.Dir() {
		t.Errorf("the same one is at %s and %s", one.Dir(), again.Dir())
	}

	for _, step := range []struct {
		do       func() error
		complete bool
	}{
		{func() error { return os.MkdirAll(one.bin(), 0o755) }, false},
		{func() error { return os.WriteFile(filepath.Join(one.Dir(), completeName), nil, 0o644) }, false},
		{func() error { return os.Symlink(filepath.Join(programs, "python"), one.Python()) }, true},
		{func() error { return os.Remove(filepath.Join(programs, "python")) }, false},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if one.complete() != step.complete {
			t.Errorf("complete: %v, want %v", !step.complete, step.complete)
		}
	}
}

// What the server's libraries lack of the system is told with the package that
// has it.
func TestLibraries(t *testing.T) {
	g := startGuard(t)
	const cannot = "echo \"$0: error while loading shared libraries: %s: cannot open shared object file\" >&2; exit 127\n"
	for name, test := range map[string]struct {
		server, stub string // the library that is missing
		want         []string
	}{
		"all there":  {"", "", nil},
		"known":      {"libz.so.1", "", []string{"libz.so.1: not found by tritonserver", "install zlib1g"}},
		"libpython":  {"", "libpython3.11.so.1.0", []string{"libpython3.11.so.1.0: not found by triton_python_backend_stub", "install libpython3.11"}},
		"who knows":  {"libodd.so.7", "", []string{"libodd.so.7: not found by tritonserver", "install the package that has it"}},
		"the loader": {"libstdc++.so.6", "libz.so.1", []string{"libstdc++6"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, backends := &Env{dir: t.TempDir(), python: Python{Minor: 11}}, t.TempDir()
			program := func(missing string) string {
				if missing == "" {
					return "#!/bin/sh\n"
				}
				return "#!/bin/sh\n" + fmt.Sprintf(cannot, missing)
			}
			writeFiles(t, "/", map[string]string{
				serverPath(e): program(test.server),
				filepath.Join(backends, "python", "triton_python_backend_stub"): program(test.stub),
			})
			err := checkLoads(t.Context(), g, e, backends)
			if test.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantSetupError(t, err, append(test.want, "--triton ADDR")...)
		})
	}
	t.Setenv("LD_LIBRARY_PATH", "/the/users")
	if got := (&Env{}).libraryPath("/backends"); !strings.HasSuffix(got, ":/backends/lib:/the/users") {
		t.Errorf("libraries are looked for in %s", got)
	}
}

func TestDiagnose(t *testing.T) {
	for _, test := range []struct {
		text, reason, remedy string
	}{
		{"ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left", "make room"},
		{"WARNING: Retrying … SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] …\nERROR: No matching distribution found for numpy==2.2.6", "certificate", "PIP_CERT"},
		{"WARNING: … NewConnectionError('… Temporary failure in name resolution')\nERROR: No matching distribution found for x", "cannot reach", "HTTPS_PROXY"},
		{"ERROR: Could not find a version\nERROR: No matching distribution found for numpy==2.2.6", "No matching distribution found for numpy==2.2.6", "PIP_INDEX_URL"},
		{"ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)\nERROR: No matching distribution found for x==1", "unreachable", "HTTPS_PROXY"},
		{"ERROR: something\n  new", "something", ""},
		{"nothing said", "", ""},
	} {
		reason, remedy := diagnose(strings.Split(test.text, "\n"))
		if !strings.Contains(reason, test.reason) || !strings.Contains(remedy, test.remedy) || (test.reason == "") != (reason == "") {
			t.Errorf("%q: %q, %q", test.text, reason, remedy)
		}
	}
}

// venv does not say that the disk is full; a package would be of no help then.
func TestSilentlyFullDisk(t *testing.T) {
	t.Cleanup(func() { statfs = unix.Statfs })
	for free, want := range map[uint64]string{
		10 << 20:  "no space left on device; make room (1 GB) or name another directory with QUIRE_CACHE, or use",
		200 << 20: "exit code 1; apt-get install python3-venv, or use",
	} {
		statfs = func(_ string, st *unix.Statfs_t) error {
			*st = unix.Statfs_t{Bsize: 4096, Bavail: free / 4096}
			return nil
		}
		p := &pip{env: &Env{dir: t.TempDir()}, recent: newTail(9)}
		if err := p.open(filepath.Join(t.TempDir(), "log")); err != nil {
			t.Fatal(err)
		}
		p.line("Error: Command '['venv/bin/python3', '-m', 'ensurepip']' returned non-zero exit status 1.")
		err := p.explain("virtual environment", &exitError{guard.State{Code: 1}}, "apt-get install python3-venv")
		wantSetupError(t, err, want)
		p.close()
	}
}

func TestDownloadLine(t *testing.T) {
	for line, want := range map[string]Progress{
		"  Downloading nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl (55.4 MB)":                      {Text: "downloading nvidia-pytriton 0.7.0 (55.4 MB)", Total: 55_400_000},
		"Downloading https://index/a/b/numpy-2.2.6-cp311-cp311-manylinux_2_17_x86_64.whl (16.8 MB)":             {Text: "downloading numpy 2.2.6 (16.8 MB)", Total: 16_800_000},
		"  Downloading typing_extensions-4.16.0-py3-none-any.whl (45 kB)":                                       {Text: "downloading typing-extensions 4.16.0 (45 kB)", Total: 45_000},
		"Downloading openvino-2026.4.1-22982-cp313-cp313-manylinux_2_28_x86_64.whl (59.1 MB)":                   {Text: "downloading openvino 2026.4.1 (59.1 MB)", Total: 59_100_000},
		"  Downloading numpy-2.2.6-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl.metadata (62 kB)": {},
		"Requirement already satisfied: numpy":                                                                  {},
	} {
		var got Progress
		p := &pip{recent: newTail(1), options: Options{Progress: func(p Progress) { got = p }}}
		log, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		p.log = log
		p.line(line)
		log.Close()
		if got != want {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
}

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for mode, content := range map[os.FileMode]string{0o644: "text", 0o755: "program"} {
		if err := replaceFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != content || info.Mode() != mode {
			t.Errorf("%q, %v, %v; want %q, %v", b, info.Mode(), err, content, mode)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(filepath.Join(dir, "taken"), nil, 0o644); err == nil {
		t.Error("a file is in the place of a directory")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("there are %v, %v", left, err)
	}
}

func TestWithoutLocked(t *testing.T) {
	const a, b, b2, c = "a==1 \\\n    --hash=sha256:11 \\\n    --hash=sha256:12\n", "b==2 \\\n    --hash=sha256:21\n", "b==3 \\\n    --hash=sha256:31\n", "c==4 --hash=sha256:41\n"
	got := string(withoutLocked([]byte("# head\n"+a+b+c), []byte("# other\n\n"+b2+a)))
	if got != b+c {
		t.Errorf("got %q, want %q", got, b+c)
	}
}

func TestTail(t *testing.T) {
	tail := newTail(3)
	for i := range 5 {
		if got, want := len(tail.all()), min(i, 3); got != want {
			t.Errorf("%d lines of %d, want %d", got, i, want)
		}
		tail.add(fmt.Sprint(i))
	}
	if got := strings.Join(tail.all(), " "); got != "2 3 4" {
		t.Errorf("got %s", got)
	}
}
