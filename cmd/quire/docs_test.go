package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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
