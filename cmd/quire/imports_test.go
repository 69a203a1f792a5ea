package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// rule forbids packages, and their tests, to import others. The patterns are import paths; one
// that ends in "/..." stands for what is below as well.
type rule struct {
	why    string
	who    []string // these,
	except []string // but for these,
	never  []string // do not import these,
	allow  []string // but for these
}

// siblings are the parts that the engine is put together from. The tests of
// all together have a package of their own.
func siblings(packages []goPackage) (found []string) {
	for _, p := range packages {
		rest, ok := strings.CutPrefix(p.ImportPath, "quire/orchestrator/")
		name, _, _ := strings.Cut(rest, "/")
		if path := "quire/orchestrator/" + name; ok && name != "internal" && name != "endtoend" && !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	return found
}

func rules(siblings []string) []rule {
	rules := []rule{{
		why: "the client is of use without the pipeline, and the pipeline stands on it: a cycle of meaning if not of imports",
		who: []string{"quire/tritonclient/..."}, never: []string{"quire/orchestrator/..."},
	}, {
		why: "the engine knows its parts by the interfaces that it defines, so that each can be replaced and tested alone",
		who: []string{"quire/orchestrator", "quire/orchestrator/internal/..."}, never: slices.Concat(siblings, []string{"quire/tritonclient/..."}),
	}, {
		why: "MuPDF is C that crashes and hangs; only worker processes run it, and one package knows how",
		who: []string{"quire/..."}, except: []string{"quire/orchestrator/render/..."},
		never: []string{"github.com/gen2brain/go-fitz/..."},
	}, {
		why: "besides drawing only the program has a line of C, which must run before Go does",
		who: []string{"quire/..."}, except: []string{"quire/orchestrator/render/...", "quire/cmd/quire"},
		never: []string{"C"},
	}, {
		why: "one package turns the wire's errors into ours; whoever saw a gRPC status would classify it anew",
		who: []string{"quire/..."}, except: []string{"quire/tritonclient/..."}, never: []string{"google.golang.org/grpc/..."},
	}, {
		why: "flags and exit codes belong to the program; the packages are for programs of others too",
		who: []string{"quire/..."}, except: []string{"quire/cmd/..."}, never: []string{"github.com/urfave/cli/..."},
	}, {
		why: "nothing stands on the program",
		who: []string{"quire/..."}, never: []string{"quire/cmd/..."},
	}}
	for _, s := range siblings {
		rules = append(rules, rule{
			why: "siblings meet in cmd only: two that know each other are one",
			who: []string{s + "/..."}, never: []string{"quire/orchestrator/..."},
			allow: []string{"quire/orchestrator", "quire/orchestrator/internal/...", s + "/..."},
		})
	}
	return rules
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, tree := strings.CutSuffix(p, "/...")
		return path == below || tree && strings.HasPrefix(path, below+"/")
	})
}

// Imports go down only; see the rules.
func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "quire/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if s := siblings(packages); len(s) < 4 {
		t.Errorf("too few parts: %v", s)
	}
	for _, r := range rules(siblings(packages)) {
		concerned := 0
		for _, p := range packages {
			if !matchesAny(r.who, p.ImportPath) || matchesAny(r.except, p.ImportPath) {
				continue
			}
			concerned++
			for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if matchesAny(r.never, i) && !matchesAny(r.allow, i) {
					t.Errorf("%s imports %s, but %s", p.ImportPath, i, r.why)
				}
			}
		}
		if concerned == 0 {
			t.Errorf("a rule that concerns no package: %v", r.who)
		}
	}
}
