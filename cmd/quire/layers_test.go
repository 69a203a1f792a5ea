package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImportsGoDown holds the layers that ARCHITECTURE.md describes.
func TestImportsGoDown(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "quire/...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	within := func(pkg, root string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") }
	packages := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := fields[0]
		packages++
		for _, imported := range fields[1:] {
			var rule string
			switch {
			case within(imported, "quire/cmd"):
				rule = "nothing imports a command"
			case within(pkg, "quire/tritonclient") && within(imported, "quire/orchestrator"):
				rule = "tritonclient knows nothing of pages"
			case sibling(pkg) != "" && sibling(imported) != "" && sibling(pkg) != sibling(imported):
				rule = "packages below orchestrator do not know each other"
			case imported == "github.com/gen2brain/go-fitz" && !within(pkg, "quire/orchestrator/render"):
				rule = "only orchestrator/render touches MuPDF"
			case within(imported, "google.golang.org/grpc") && !within(pkg, "quire/tritonclient"):
				rule = "only tritonclient speaks gRPC"
			case within(imported, "github.com/urfave/cli/v2") && !within(pkg, "quire/cmd"):
				rule = "only commands know flags"
			default:
				continue
			}
			t.Errorf("%s imports %s: %s", pkg, imported, rule)
		}
	}
	if packages < 15 {
		t.Errorf("only %d packages looked at", packages)
	}
}

// sibling is the part below orchestrator that a package belongs to; empty for
// the engine itself, for what it is made of, and for everything elsewhere.
func sibling(pkg string) string {
	rest, ok := strings.CutPrefix(pkg, "quire/orchestrator/")
	name, _, _ := strings.Cut(rest, "/")
	if !ok || name == "internal" {
		return ""
	}
	return name
}
