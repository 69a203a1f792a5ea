package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completionFlag is the last argument of a call that asks what could stand in
// place of the argument before it.
const completionFlag = "--generate-bash-completion"

// completionScripts make a shell ask this program. Each passes the words up to
// the cursor, the last of them as far as it is typed, and leaves file names to
// the shell. An answer is a line: the word, a tab, what it means.
var completionScripts = map[string]string{
	"bash": `# Completion of quire for bash. To load it:  source <(quire completion bash)
_quire() {
	local word=${COMP_WORDS[COMP_CWORD]} line
	COMPREPLY=()
	while IFS= read -r line; do
		line=${line%%$'\t'*}
		[[ $line == "$word"* ]] && COMPREPLY+=("$line")
	done < <("${COMP_WORDS[@]:0:COMP_CWORD+1}" --generate-bash-completion 2>/dev/null)
}
complete -o bashdefault -o default -F _quire quire
`,
	"zsh": `#compdef quire
# Completion of quire for zsh. To load it:  source <(quire completion zsh)
# or put it into a file named _quire in a directory of $fpath.
_quire() {
	local line word meaning
	local -a found
	while IFS= read -r line; do
		word=${line%%$'\t'*} meaning=${line#*$'\t'}
		found+=("${word//:/\\:}:${meaning}")
	done < <("${(@Q)words[1,CURRENT]}" --generate-bash-completion 2>/dev/null)
	(( ${#found} )) && _describe quire found || _files
}
if [[ $funcstack[1] == _quire ]]; then
	_quire "$@"
else
	compdef _quire quire
fi
`,
	"fish": `# Completion of quire for fish. To load it:  quire completion fish | source
function __quire_complete
	set -l words (commandline --tokenize --cut-at-cursor --current-process)
	set -l word (commandline --current-token --cut-at-cursor)
	command $words "$word" --generate-bash-completion 2>/dev/null
end
complete --command quire --arguments '(__quire_complete)'
`,
}

func completionCommand() *cli.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes quire's commands and flags in a shell",
		ArgsUsage: strings.Join(shells, "|"),
		Description: "For all shells to come:\n" +
			"  quire completion bash > ~/.local/share/bash-completion/completions/quire\n" +
			"  quire completion zsh > DIR/_quire    # with DIR in $fpath\n" +
			"  quire completion fish > ~/.config/fish/completions/quire.fish\n" +
			"The first lines of each script say how the shell that runs takes it.",
		Action: func(c *cli.Context) error {
			script, ok := completionScripts[c.Args().First()]
			if !ok || c.Args().Len() != 1 {
				return usageError{fmt.Errorf("which shell? quire completion %s", strings.Join(shells, "|"))}
			}
			_, err := io.WriteString(c.App.Writer, script)
			return err
		},
	}
}

// complete answers a shell that asks for completions, and tells whether one did.
// Nothing else is done on such a call, whatever stands before the cursor.
func complete(app *cli.App, args []string) bool {
	if len(args) < 2 || args[len(args)-1] != completionFlag {
		return false
	}
	words := args[1 : len(args)-1]
	if len(words) == 0 {
		return true
	}
	before, word := words[:len(words)-1], words[len(words)-1]
	say := func(name, meaning string) { fmt.Fprintf(app.Writer, "%s\t%s\n", name, oneLine(meaning)) }
	if len(before) == 0 {
		for _, cmd := range app.Commands {
			say(cmd.Name, cmd.Usage)
		}
		return true
	}
	cmd := app.Command(before[0])
	if cmd == nil || slices.Contains(before, "--") {
		return true
	}
	if cmd.Name == "completion" && len(before) == 1 {
		for _, shell := range slices.Sorted(maps.Keys(completionScripts)) {
			say(shell, "a script for "+shell)
		}
		return true
	}
	if !strings.HasPrefix(word, "-") {
		return true // a file, or the value of a flag
	}
	for _, f := range cmd.Flags {
		usage := strings.ReplaceAll(f.(cli.DocGenerationFlag).GetUsage(), "`", "")
		for _, name := range f.Names() {
			if len(name) > 1 {
				say("--"+name, usage)
			}
		}
	}
	say("--help", "what the command does, and its flags")
	return true
}
