package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakePython is a program that answers the probe with good, changed.
func fakePython(t *testing.T, change map[string]any) string {
	t.Helper()
	answer := map[string]any{
		"Version": "3.11.2", "Implementation": "cpython", "Executable": "/usr/bin/python3", "Machine": "x86_64",
		"Libc": "glibc 2.36", "Venv": true, "Ensure": true, "Libpython": "/usr/lib/libpython3.11.so.1.0", "Prefix": "/usr",
	}
	maps.Copy(answer, change)
	b, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	return "#!/bin/sh\nprintf '%s' '" + string(b) + "'\n"
}

// Each thing that can be missing is named in one line, with what mends it.
func TestMissing(t *testing.T) {
	for name, test := range map[string]struct {
		program string
		want    []string
	}{
		"version":   {fakePython(t, map[string]any{"Version": "3.9.2"}), []string{"Python 3.9.2", "3.10 to 3.13", "QUIRE_PYTHON"}},
		"too new":   {fakePython(t, map[string]any{"Version": "3.14.0"}), []string{"Python 3.14.0", "3.10 to 3.13"}},
		"python 2":  {fakePython(t, map[string]any{"Version": "2.7.18"}), []string{"Python 2.7.18", "3.10 to 3.13"}},
		"pypy":      {fakePython(t, map[string]any{"Implementation": "pypy"}), []string{"pypy", "CPython"}},
		"machine":   {fakePython(t, map[string]any{"Machine": "aarch64"}), []string{"aarch64"}},
		"musl":      {fakePython(t, map[string]any{"Libc": ""}), []string{"not glibc"}},
		"old glibc": {fakePython(t, map[string]any{"Libc": "glibc 2.31"}), []string{"glibc 2.31", "2.35"}},
		"venv":      {fakePython(t, map[string]any{"Venv": false}), []string{"module venv", "apt-get install python3.11-venv"}},
		"ensurepip": {fakePython(t, map[string]any{"Ensure": false}), []string{"ensurepip", "apt-get install python3.11-venv"}},
		"libpython": {fakePython(t, map[string]any{"Libpython": ""}), []string{"libpython3.11.so.1.0", "apt-get install libpython3.11"}},
		"a bare system Python": {fakePython(t, map[string]any{"Ensure": false, "Libpython": ""}),
			[]string{"module ensurepip and libpython3.11.so.1.0", "apt-get install python3.11-venv libpython3.11"}},
		"own static build": {fakePython(t, map[string]any{"Libpython": "", "Prefix": "/opt/python"}),
			[]string{"libpython3.11.so.1.0", "--enable-shared"}},
		"own build in the system's place": {fakePython(t, map[string]any{"Libpython": "", "Prefix": "/usr/local"}),
			[]string{"libpython3.11.so.1.0", "--enable-shared"}},
		"no Python at all":  {"#!/bin/sh\necho hello\n", []string{"does not answer like Python"}},
		"a shim that fails": {"#!/bin/sh\necho 'shim: python3: command not found' >&2\nexit 127\n", []string{"command not found", "does not run"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFiles(t, dir, map[string]string{"python3": test.program})
			path := filepath.Join(dir, "python3")
			t.Setenv("PATH", dir)
			_, err := FindPython(t.Context(), path)
			wantSetupError(t, err, append(test.want, path, "--triton ADDR")...)
		})
	}
}

func wantSetupError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var setup *SetupError
	if !errors.As(err, &setup) {
		t.Fatalf("error %v, want a *SetupError", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not contain %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
}

func TestNoPython(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := FindPython(t.Context(), "python3")
	wantSetupError(t, err, "python3: no such program", "--triton ADDR")
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, reason := range map[string]string{dir: "is a directory", text: "permission denied", filepath.Join(dir, "none"): "no such file or directory"} {
		t.Setenv(EnvPython, name)
		_, err := FindPython(t.Context(), "")
		wantSetupError(t, err, name+": "+reason+"; ", "3.10 to 3.13")
	}
}

// The first interpreter that has everything is taken; when none has, the line
// is about the one that lacks least, and a named one is not replaced.
func TestNextPython(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv(EnvPython, "")
	writeFiles(t, dir, map[string]string{
		"python3":    fakePython(t, map[string]any{"Version": "3.9.2"}),
		"python3.12": fakePython(t, map[string]any{"Version": "3.12.1", "Executable": "/twelve", "Libpython": "/twelve.so"}),
		"python3.13": fakePython(t, map[string]any{"Version": "3.13.0", "Venv": false}),
	})
	got, err := FindPython(t.Context(), "")
	if want := (Python{Path: "/twelve", Version: "3.12.1", Minor: 12, Libpython: "/twelve.so"}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	_, err = FindPython(t.Context(), "python3.13")
	wantSetupError(t, err, "3.13.0", "module venv")
	t.Setenv(EnvPython, "python3")
	_, err = FindPython(t.Context(), "")
	wantSetupError(t, err, "3.9.2")

	if got, err := FindPython(t.Context(), "python3.12"); err != nil || got.Path != "/twelve" {
		t.Errorf("what is asked for goes before %s: %+v, %v", EnvPython, got, err)
	}
	t.Setenv(EnvPython, "")
	if err := os.Remove(filepath.Join(dir, "python3.12")); err != nil {
		t.Fatal(err)
	}
	defer func(path string) { systemPython = path }(systemPython)
	systemPython = filepath.Join(dir, "none")
	_, err = FindPython(t.Context(), "")
	wantSetupError(t, err, "3.13.0", "module venv")

	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := FindPython(ctx, ""); !errors.Is(err, why) {
		t.Errorf("called off: %v", err)
	}

	// The wheel brings a libpython for 3.13.
	writeFiles(t, dir, map[string]string{"python3": fakePython(t, map[string]any{"Version": "3.13.0", "Libpython": ""})})
	if _, err := FindPython(t.Context(), ""); err != nil {
		t.Error(err)
	}
	writeFiles(t, dir, map[string]string{"python3": fakePython(t, map[string]any{"Version": "3.13.0", "Libpython": "/thirteen.so"})})
	if got, err := FindPython(t.Context(), ""); err != nil || got.Libpython != "" {
		t.Errorf("got %+v, %v; want no libpython but the wheel's", got, err)
	}
}

func TestGlibcAtLeast(t *testing.T) {
	for libc, want := range map[string]bool{
		"glibc 2.35": true, "glibc 2.41": true, "glibc 3.0": true, "glibc 2.34": false, "glibc 1.99": false, "musl 2.40": false, "": false,
	} {
		if got := glibcAtLeast(libc); got != want {
			t.Errorf("%q: %v", libc, got)
		}
	}
}

// What is missing is installed with what the system has.
func TestInstallCommand(t *testing.T) {
	for _, tt := range []struct {
		programs []string
		want     string
	}{
		{nil, "apt-get install a-deb"},
		{[]string{"apt-get"}, "apt-get install a-deb"},
		{[]string{"dnf"}, "dnf install a-rpm"},
		{[]string{"apt-get", "dnf"}, "apt-get install a-deb"},
	} {
		dir := t.TempDir()
		t.Setenv("PATH", dir)
		for _, name := range tt.programs {
			writeFiles(t, dir, map[string]string{name: ""})
		}
		if got := installCommand("a-deb", "a-rpm"); got != tt.want {
			t.Errorf("with %q: %s", tt.programs, got)
		}
	}
}

func TestCleanEnv(t *testing.T) {
	t.Setenv("PYTHONPATH", "/elsewhere")
	t.Setenv("PIP_TARGET", "/elsewhere")
	t.Setenv("PIP_INDEX_URL", "mirror")
	t.Setenv("TMPDIR", "/old")
	env := strings.Join(cleanEnv("TMPDIR=/new"), "\n") + "\n"
	for _, unwanted := range []string{"PYTHONPATH=", "PIP_TARGET=", "TMPDIR=/old"} {
		if strings.Contains(env, unwanted) {
			t.Errorf("%s is still there", unwanted)
		}
	}
	for _, wanted := range []string{"PIP_INDEX_URL=mirror\n", "TMPDIR=/new\n"} {
		if !strings.Contains(env, wanted) {
			t.Errorf("%s is missing", wanted)
		}
	}
}
