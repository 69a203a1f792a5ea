package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// candidates are the words that a shell would be told for what is typed so far,
// the last word as far as it is typed.
func candidates(t *testing.T, words ...string) []string {
	t.Helper()
	code, stdout, stderr := call(t, append(words, completionFlag)...)
	if code != 0 || stderr != "" {
		t.Errorf("%q: code %d, %q", words, code, stderr)
	}
	var found []string
	for line := range strings.Lines(stdout) {
		word, meaning, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok || word == "" || meaning == "" || strings.Contains(meaning, "\t") {
			t.Errorf("%q: line %q", words, line)
		}
		found = append(found, word)
	}
	return found
}

func TestCompletion(t *testing.T) {
	has := func(all []string, want ...string) bool {
		return strings.Contains(" "+strings.Join(all, " ")+" ", " "+strings.Join(want, " ")+" ")
	}
	if got := candidates(t, ""); !has(got, "run") || !has(got, "doctor") || !has(got, "version") {
		t.Errorf("commands %q", got)
	}
	if got := candidates(t, "run", "dir", "-"); !has(got, "--output") || !has(got, "--triton") || has(got, "--o") {
		t.Errorf("flags of run %q", got)
	}
	if got := candidates(t, "completion", ""); len(got) != 3 {
		t.Errorf("shells %q", got)
	}
	// Left to the shell; and however whole the command is, it is not run.
	for _, words := range [][]string{{"run", ""}, {"run", "dir", "-o", ""}, {"run", "--", "-"}, {"run", "--", "dir", "-o", "x", ""}, {"no-such", "-"}, {"version", ""}, {}} {
		if got := candidates(t, words...); len(got) != 0 {
			t.Errorf("%q: %q", words, got)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, script, _ := call(t, "completion", shell)
		if code != 0 || !strings.Contains(script, completionFlag) || !strings.Contains(script, "quire completion "+shell) {
			t.Errorf("%s: code %d\n%s", shell, code, script)
		}
		// Triton's Python backend needs bash, so it is here; the others may be.
		path, err := exec.LookPath(shell)
		if err != nil && shell != "bash" {
			continue
		}
		check := exec.CommandContext(t.Context(), path, "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		if code, _, stderr := call(t, args...); code != exitUsage || !strings.Contains(stderr, "bash|zsh|fish") {
			t.Errorf("%q: code %d, %q", args, code, stderr)
		}
	}
}

// bash itself, with the script and a program that answers as quire does.
func TestCompletionInBash(t *testing.T) {
	_, script, _ := call(t, "completion", "bash")
	test := script + `
quire() { printf 'asked <%s>\n' "$@" >&3; printf 'run\tthe main job\nrest area\tx\nversion\twhat this is\n'; }
COMP_WORDS=(quire 'r' later); COMP_CWORD=1
_quire 3>&1
printf 'offered <%s>\n' "${COMPREPLY[@]}"
complete -p quire
`
	bash := exec.CommandContext(t.Context(), "bash", "--norc", "-c", test)
	var out bytes.Buffer
	bash.Stdout, bash.Stderr = &out, &out
	if err := bash.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	want := "asked <r>\nasked <--generate-bash-completion>\noffered <run>\noffered <rest area>\n"
	if !strings.HasPrefix(out.String(), want) || !strings.Contains(out.String(), "-F _quire quire") {
		t.Errorf("got\n%s\nwant\n%s…", out.String(), want)
	}
}
