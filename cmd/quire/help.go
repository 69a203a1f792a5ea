package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Help is written for a terminal of 80 columns.
const (
	helpWidth  = 80
	helpColumn = 27 // where the second column begins
)

// helpText is the help of a command: every flag with its default and its
// environment variable, and the exit codes.
func helpText(cmd *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "NAME:\n   quire %s - %s\n\nUSAGE:\n   quire %s", cmd.Name, cmd.Usage, cmd.Name)
	if len(cmd.Flags) > 0 {
		b.WriteString(" [OPTIONS]")
	}
	if cmd.ArgsUsage != "" {
		b.WriteString(" " + cmd.ArgsUsage)
	}
	b.WriteString("\n\n")
	if cmd.Description != "" {
		fmt.Fprintf(&b, "DESCRIPTION:\n%s\n", description(cmd.Description))
	}
	b.WriteString("OPTIONS:\n")
	for _, f := range slices.Concat(cmd.Flags, []cli.Flag{cli.HelpFlag}) {
		b.WriteString(helpFlag(f.(cli.DocGenerationFlag)))
	}
	fmt.Fprintf(&b, "\n%s", exitCodesHelp)
	return b.String()
}

// description wraps what a command is. A line that begins with a blank is there
// to be copied, and stays whole.
func description(text string) string {
	var b strings.Builder
	prose := ""
	for line := range strings.SplitSeq(text+"\n ", "\n") {
		if !strings.HasPrefix(line, " ") {
			prose += line + " "
			continue
		}
		if prose != "" {
			b.WriteString(wrap(prose, 3))
		}
		if prose = ""; line != " " {
			b.WriteString("   " + line + "\n")
		}
	}
	return b.String()
}

func helpFlag(f cli.DocGenerationFlag) string {
	names := slices.Clone(f.(cli.Flag).Names())
	slices.SortFunc(names, func(a, b string) int { return len(a) - len(b) })
	for i, n := range names {
		names[i] = strings.Repeat("-", min(len(n), 2)) + n
	}
	left := "   " + strings.Join(names, ", ")
	value, usage, found := cutValue(f.GetUsage())
	if found {
		left += " " + value
	}
	if d := strings.Trim(f.GetDefaultText(), `"`); d != "" && f.TakesValue() {
		usage += fmt.Sprintf(" (default: %s)", d)
	}
	if env := f.GetEnvVars(); len(env) > 0 {
		usage += " [$" + env[0] + "]"
	}
	right := wrap(usage, helpColumn)
	if len(left) < helpColumn-1 {
		return left + right[len(left):]
	}
	return left + "\n" + right
}

// cutValue finds the name of a flag's value, in backquotes, as urfave/cli does.
func cutValue(usage string) (value, without string, found bool) {
	before, rest, found := strings.Cut(usage, "`")
	value, after, closed := strings.Cut(rest, "`")
	if !found || !closed {
		return "", usage, false
	}
	return value, before + value + after, true
}

// wrap breaks text into lines of at most helpWidth columns that begin with
// indent spaces.
func wrap(text string, indent int) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
			b.WriteString(strings.Repeat(" ", indent))
			column = indent
		case column+1+len(word) > helpWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String() + "\n"
}
