package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeQuire plays quire run: it writes what is in its own directory and ends
// as the file "code" says.
const fakeQuire = `#!/bin/sh
here=$(dirname "$0")
mkdir -p "$4" && cp -r "$here"/out/. "$4"
if [ -e "$here/hang" ]; then exec sleep 600; fi
cat "$here/last"
exit "$(cat "$here/code")"
`

func result(path, status, more, pages string) string {
	return `{"schema":"quire/1","source":{"path":"` + path + `","size":9},"status":"` + status + `",` + more + `"pages":[` + pages + `]}`
}

// TestCorpusScript holds that the script believes accounts that agree and
// names what does not.
func TestCorpusScript(t *testing.T) {
	const (
		donePage   = `{"page_no":1,"status":"done","regions":[]}`
		failedPage = `{"page_no":2,"status":"failed","error":{"stage":"render","category":"timeout","message":"m"},"regions":[]}`
		failures   = `{"path":"b.pdf","page":2,"stage":"render","category":"timeout","message":"m"}` + "\n" +
			`{"path":"sub/bad %FF.pdf","path_encoding":"percent","page":null,"stage":"open","category":"empty","message":"m"}` + "\n"
	)
	sound := map[string]string{
		"out/run.json":                   "{}",
		"out/a.pdf.json":                 result("a.pdf", "done", `"page_count":1,`, donePage),
		"out/b.pdf.json":                 result("b.pdf", "partial", `"page_count":2,`, donePage+","+failedPage),
		"out/sub/bad %FF.pdf.json":       result("sub/bad %FF.pdf", "failed", `"error":{"stage":"open","category":"empty","message":"m"},"page_count":null,`, ""),
		"out/.quire/not-a-result-a.json": "{",
		"out/failed.jsonl":               failures,
		"last":                           "documents: 3 = 1 done + 1 partial + 1 failed + 0 skipped; pages: 3 = 2 done + 1 failed + 0 skipped + 0 cancelled; 1s\n",
		"code":                           "3",
	}
	for name, c := range map[string]struct {
		change map[string]string // "" takes a file away
		says   string
	}{
		"sound":               {nil, "Every file is accounted for."},
		"a result is missing": {map[string]string{"out/a.pdf.json": ""}, "a.pdf: no result"},
		"a result too many":   {map[string]string{"out/z.pdf.json": result("z.pdf", "done", `"page_count":1,`, donePage)}, "z.pdf: a result of a file that is not there"},
		"a page is missing":   {map[string]string{"out/a.pdf.json": result("a.pdf", "done", `"page_count":2,`, donePage)}, "a.pdf: page_count 2, 1 pages"},
		"a wrong status":      {map[string]string{"out/b.pdf.json": result("b.pdf", "done", `"page_count":2,`, donePage+","+failedPage)}, "b.pdf: status done, but its pages say partial"},
		"failed.jsonl lacks":  {map[string]string{"out/failed.jsonl": strings.SplitAfter(failures, "\n")[0]}, "failed.jsonl lacks ('sub/bad %FF.pdf', 0"},
		"failed.jsonl extra":  {map[string]string{"out/failed.jsonl": failures + failures}, "failed.jsonl has"},
		"torn result":         {map[string]string{"out/a.pdf.json": "{"}, "not JSON"},
		"wrong last line":     {map[string]string{"last": strings.Replace(sound["last"], "3 = 2 done", "3 = 3 done", 1)}, "the last line's pages are [3, 3, 1, 0, 0]"},
		"no last line":        {map[string]string{"last": "\n"}, "does not count documents"},
		"wrong exit code":     {map[string]string{"code": "0"}, "exit code 0, wanted 3"},
		"hangs":               {map[string]string{"hang": "yes"}, "still ran after"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put := func(name, text string, mode os.FileMode) {
				t.Helper()
				full := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o700), os.WriteFile(full, []byte(text), mode)); err != nil {
					t.Fatal(err)
				}
			}
			for _, pdf := range []string{"in/a.pdf", "in/b.pdf", "in/sub/bad \xff.pdf", "in/notes.txt"} {
				put(pdf, "", 0o600)
			}
			put("quire", fakeQuire, 0o700)
			for file, text := range sound {
				if changed, ok := c.change[file]; !ok {
					put(file, text, 0o600)
				} else if changed != "" {
					put(file, changed, 0o600)
				}
			}
			for file, text := range c.change {
				if _, ok := sound[file]; !ok {
					put(file, text, 0o600)
				}
			}
			args := []string{"-B", "corpus.py", filepath.Join(dir, "in"), filepath.Join(dir, "result"), "--quire", filepath.Join(dir, "quire")}
			if name == "hangs" {
				args = append(args, "--limit", "1")
			}
			out, err := exec.CommandContext(t.Context(), "python3", args...).CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), c.says) || (err == nil) != (name == "sound") {
				t.Errorf("%v; %q is missing in\n%s", err, c.says, out)
			}
		})
	}
}
