package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
)

// stops are the two ways in which a person ends a command.
type stops struct {
	soft <-chan struct{} // closed at the first signal
	hard <-chan struct{} // closed at the second
}

// watchSignals turns the first SIGINT, SIGTERM or SIGHUP into a soft stop and the
// second into a hard one. A third one ends the program in the system's own way;
// the guard then ends what it has started. A reader of the output that goes away
// is no reason to die on the spot, which would look like a crash to the next run:
// writing fails, and a command ends as it sees fit.
func watchSignals() stops {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // else somebody wants it to outlive the terminal
		signal.Notify(signals, syscall.SIGHUP)
	}
	// Not signal.Ignore: child processes would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	soft, hard := make(chan struct{}), make(chan struct{})
	go func() {
		<-signals
		close(soft)
		<-signals
		close(hard)
		signal.Stop(signals)
	}()
	return stops{soft: soft, hard: hard}
}

// onStop calls do when stop is closed before ctx ends.
func onStop(ctx context.Context, stop <-chan struct{}, do func()) {
	select {
	case <-stop:
		do()
	case <-ctx.Done():
	}
}

// untilStopped is a context that ends, interrupted, when stop is closed.
func untilStopped(parent context.Context, stop <-chan struct{}) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go onStop(ctx, stop, func() { cancel(orchestrator.ErrInterrupted) })
	return ctx, cancel
}

// interruptedOr is err, unless the reason for it is that somebody said stop.
func interruptedOr(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), orchestrator.ErrInterrupted) {
		return orchestrator.ErrInterrupted
	}
	return err
}

// execute runs the program with args (the program's name first) and returns its
// exit code. It is the whole program but for what belongs to the process.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer, stop stops) int {
	app := newApp(stop)
	app.Writer, app.ErrWriter = stdout, stderr
	if complete(app, args) {
		return exitDone
	}
	err := app.RunContext(ctx, flagsFirst(app, args))
	code := exitCode(err)
	switch {
	case err == nil || err.Error() == "": // told already
	case readerGone(err): // who has read enough, as of quire plan | head, knows
	case code == exitInterrupted:
		fmt.Fprintln(stderr, "quire: "+errorLine(lastWords(args[1], err)))
	default:
		fmt.Fprintln(stderr, "quire: "+errorLine(err.Error()))
	}
	return code
}

// readerGone tells whether a command ended because its output has no reader.
func readerGone(err error) bool {
	p, ok := errors.AsType[*fs.PathError](err)
	return ok && p.Path == os.Stdout.Name() && errors.Is(p.Err, syscall.EPIPE)
}

func newApp(stop stops) *cli.App {
	app := &cli.App{
		Name:  "quire",
		Usage: "directories of PDFs to page layout, with a Triton Inference Server",
		Description: "quire renders pages, batches them across documents and sends them to a Triton\n" +
			"Inference Server. Without --triton it starts a Triton of its own on the CPU.",
		Commands:              []*cli.Command{runCommand(stop), planCommand(stop), benchCommand(stop), tuneCommand(stop), verifyCommand(stop), statsCommand(stop), doctorCommand(stop), completionCommand(), versionCommand()},
		CustomAppHelpTemplate: cli.AppHelpTemplate + "\n" + exitCodesHelp,
		HideVersion:           true,
		// A pattern may hold a comma: *.{pdf,PDF}.
		DisableSliceFlagSeparator: true,
		// Errors come back from RunContext, and only execute ends the program.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return usageError{err}
		},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usageError{fmt.Errorf("there is no command %q: see quire help", name)}
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, cmd := range app.Commands {
		cmd.OnUsageError = app.OnUsageError
		cmd.CustomHelpTemplate = helpText(cmd)
		cmd.HideHelpCommand = true // a directory may be called help
		action := cmd.Action
		cmd.Action = func(c *cli.Context) error { return withRemedy(c, action(c)) }
	}
	return app
}

// flagsFirst puts a command's flags before its arguments, since urfave/cli takes
// everything after the first argument for an argument. "--" ends the flags.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) < 2 {
		return args
	}
	cmd := app.Command(args[1])
	if cmd == nil {
		return args
	}
	takesValue := func(name string) bool {
		for _, f := range cmd.Flags {
			if slices.Contains(f.Names(), name) {
				_, isBool := f.(*cli.BoolFlag)
				return !isBool
			}
		}
		return false
	}
	var flags, rest []string
	for i := 2; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		if a == "-h" || a == "--help" {
			return []string{args[0], args[1], "--help"}
		}
		flags = append(flags, a)
		if !strings.Contains(a, "=") && takesValue(strings.TrimLeft(a, "-")) {
			if i++; i == len(args) {
				return slices.Concat(args[:2], flags) // without a value, which the parser says
			}
			flags = append(flags, args[i])
		}
	}
	return slices.Concat(args[:2], flags, []string{"--"}, rest)
}
