package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

const root = "../.."

// TestInvariantsNameTheirTests: every test that ARCHITECTURE.md calls to
// witness is there.
func TestInvariantsNameTheirTests(t *testing.T) {
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(read(t, root, "ARCHITECTURE.md"), -1)
	if len(named) < 30 {
		t.Fatalf("only %d tests named", len(named))
	}
	var tests bytes.Buffer
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			var data []byte
			data, err = os.ReadFile(path)
			tests.Write(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range named {
		if !strings.Contains(tests.String(), "\nfunc "+n[1]+"(") {
			t.Errorf("ARCHITECTURE.md names %s, and there is no such test", n[1])
		}
	}
}

// TestArchitectureNamesWhatIsThere: functions, types and files that
// ARCHITECTURE.md names are somewhere in the sources.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	word := regexp.MustCompile(`\w+`)
	there := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // of something else that runs here
			return nil
		}
		if name := d.Name(); err == nil && strings.HasPrefix(name, ".") && d.IsDir() && path != root {
			return fs.SkipDir
		}
		switch filepath.Ext(path) {
		case ".go", ".c", ".h", ".py", ".pbtxt":
			for _, w := range word.FindAllString(d.Name(), -1) {
				there[w] = true
			}
			var data []byte
			data, err = os.ReadFile(path)
			for _, w := range word.FindAll(data, -1) {
				there[string(w)] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(read(t, root, "ARCHITECTURE.md"), "")
	names := regexp.MustCompile("`([A-Za-z_][\\w./]*)`").FindAllStringSubmatch(prose, -1)
	if len(names) < 300 {
		t.Fatalf("only %d names", len(names))
	}
	for _, n := range names {
		for _, w := range word.FindAllString(n[1], -1) {
			if !there[w] {
				t.Errorf("ARCHITECTURE.md names %s, and there is no %s", n[1], w)
			}
		}
	}
}

// TestDocsUseFlagsThatAreThere: commands that the documents show have the flags
// that they are shown with.
func TestDocsUseFlagsThatAreThere(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown, flag := 0, regexp.MustCompile(`(?:^| )--?([a-z][a-z-]*)`)
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		for _, m := range regexp.MustCompile(`(?m)(?:^    |`+"`"+`)quire ([a-z]+)( [^#`+"`"+`\n]*)`).FindAllStringSubmatch(read(t, file), -1) {
			cmd := newApp(stops{}).Command(m[1])
			if cmd == nil {
				t.Errorf("%s shows quire %s, and there is no such command", file, m[1])
				continue
			}
			for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
				shown++
				if f[1] != "help" && !slices.ContainsFunc(cmd.Flags, func(has cli.Flag) bool { return slices.Contains(has.Names(), f[1]) }) {
					t.Errorf("%s shows quire %s with --%s, which it has not", file, m[1], f[1])
				}
			}
		}
	}
	if shown < 40 {
		t.Errorf("only %d flags", shown)
	}
}

// TestDocsListEveryWord: what programs read by name is in the document about it.
func TestDocsListEveryWord(t *testing.T) {
	const key = `json:"(\w+)`
	for _, c := range []struct{ source, words, prefix, doc string }{
		{"orchestrator/page.go", ` Category = "(\w+)"`, "", "results.md"},
		{"orchestrator/page.go", `Stage += "(\w+)"`, "", "results.md"},
		{"orchestrator/sink/document.go", key, "", "results.md"},
		{"orchestrator/sink/finish.go", key, "", "results.md"},
		{"orchestrator/seams.go", `Redone = "(\w+)"`, "", "resume.md"},
		{"orchestrator/sink/identity.go", key, "", "resume.md"},
		{"orchestrator/metrics/metrics.go", `desc\("(\w+)"`, "quire_", "metrics.md"},
		{"orchestrator/seams.go", `return "(\w+)"`, "", "metrics.md"},
		{"cmd/quire/events.go", key, "", "events.md"},
		{"cmd/quire/planevents.go", key, "", "events.md"},
		{"cmd/quire/verify.go", key, "", "events.md"},
		{"orchestrator/doctor/doctor.go", key, "", "events.md"},
	} {
		doc := map[string]bool{}
		for _, code := range regexp.MustCompile("(?m)`[^`\\n]+`|^    .*").FindAllString(read(t, root, "docs", c.doc), -1) {
			for _, w := range regexp.MustCompile(`\w+`).FindAllString(code, -1) {
				doc[w] = true
			}
		}
		words := regexp.MustCompile(c.words).FindAllStringSubmatch(read(t, root, c.source), -1)
		if len(words) < 4 {
			t.Errorf("only %d words match %s in %s", len(words), c.words, c.source)
		}
		for _, w := range words {
			if !doc[c.prefix+w[1]] {
				t.Errorf("docs/%s does not list %s%s of %s", c.doc, c.prefix, w[1], c.source)
			}
		}
	}
}

// TestReadmeShowsTheExample: the Go code in README.md is the code that the end
// to end tests run.
func TestReadmeShowsTheExample(t *testing.T) {
	_, rest, _ := strings.Cut(read(t, root, "README.md"), "```go\n")
	code, _, ok := strings.Cut(rest, "```")
	if !ok || len(code) < 500 {
		t.Fatalf("no Go code in README.md, or little: %q", code)
	}
	if !strings.Contains(read(t, root, "orchestrator/endtoend/example_test.go"), code) {
		t.Error("the Go code in README.md is not a part of orchestrator/endtoend/example_test.go")
	}
}

// TestReadmeTellsExitCodes: the table in README.md has the codes of exit.go.
func TestReadmeTellsExitCodes(t *testing.T) {
	var told []string
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| \S`).FindAllStringSubmatch(read(t, root, "README.md"), -1) {
		told = append(told, row[1])
	}
	for _, code := range regexp.MustCompile(`(?m)^\texit\w+ += (\d+)$`).FindAllStringSubmatch(read(t, root, "cmd/quire/exit.go"), -1) {
		if len(told) == 0 || told[0] != code[1] {
			t.Fatalf("README.md goes on with %v where exit.go has %s", told, code[1])
		}
		told = told[1:]
	}
	if len(told) != 0 {
		t.Errorf("README.md has %v more", told)
	}
}
