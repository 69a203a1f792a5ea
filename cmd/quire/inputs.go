package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/walk"
	"quire/tritonclient"
	"quire/tritonclient/guard"
)

// inputFlags are the flags of every command that reads documents.
func inputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "include", EnvVars: []string{"QUIRE_INCLUDE"}, Usage: "take files that match `GLOB`, such as '*.{pdf,png,epub}'; may be given several times", DefaultText: "*.pdf in any case"},
		&cli.StringSliceFlag{Name: "exclude", EnvVars: []string{"QUIRE_EXCLUDE"}, Usage: "leave out files and directories that match `GLOB`; may be given several times"},
		&cli.StringFlag{Name: "password-file", EnvVars: []string{"QUIRE_PASSWORD_FILE"}, Usage: "try the passwords in `FILE`, one a line in UTF-8, on encrypted documents"},
		&cli.StringFlag{Name: "sandbox", EnvVars: []string{"QUIRE_SANDBOX"}, Usage: "hold render workers in by `MODE`: auto is as far as the kernel can, require starts none without all of it, off leaves them your rights", Value: string(render.SandboxAuto)},
	}
}

// inputs are the documents that a command was given.
type inputs struct {
	paths, include, exclude []string
	passwords               []string
	sandbox                 render.SandboxMode
}

func inputsOf(c *cli.Context, usage string) (inputs, error) {
	if c.NArg() == 0 {
		return inputs{}, errors.New("no input: " + usage)
	}
	return inputsFrom(c, c.Args().Slice())
}

// inputsFrom is inputsOf for paths that need not be arguments.
func inputsFrom(c *cli.Context, paths []string) (inputs, error) {
	if slices.Contains(paths, "") {
		return inputs{}, errors.New("an input is the empty string: name a directory or a PDF file (. is the current directory)")
	}
	in := inputs{paths: paths, include: c.StringSlice("include"), exclude: c.StringSlice("exclude")}
	var err error
	if in.sandbox, err = render.ParseSandboxMode(c.String("sandbox")); err != nil {
		return in, fmt.Errorf("--%w", err)
	}
	if name := c.String("password-file"); name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return in, fmt.Errorf("--password-file: %w", err)
		}
		if !utf8.Valid(data) {
			return in, fmt.Errorf("--password-file %s: it is not UTF-8: convert it, for instance with iconv", name)
		}
		for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				in.passwords = append(in.passwords, line)
			}
		}
	}
	return in, nil
}

// walker finds the documents, of which there is one at least; cfg says how, but for
// the patterns. An error is the user's, unless ctx was ended by a stop.
func (in inputs) walker(ctx context.Context, cfg walk.Config) (*walk.Walker, error) {
	cfg.Include, cfg.Exclude = in.include, in.exclude
	w, err := walk.New(in.paths, cfg)
	if err != nil {
		return nil, usageError{err}
	}
	if w.Empty(ctx) {
		_ = w.Close()
		return nil, interruptedOr(ctx, usageError{fmt.Errorf("no PDF found in %s: check the path, or --include", strings.Join(in.paths, ", "))})
	}
	return w, nil
}

// workerNice keeps this program's own goroutines ahead of its workers, as the
// embedded server is.
const workerNice = 10

// rendering is how the documents are opened and drawn.
func (in inputs) rendering(g *guard.Guard, log *slog.Logger) render.Config {
	return render.Config{
		Guard: g, Passwords: in.passwords, OtherFormats: in.otherFormats(), Sandbox: in.sandbox, Nice: workerNice, Logger: log,
	}
}

// otherFormats tells whether somebody asked for files of any name, with
// --include or by naming one: those that are not called PDF are then opened as
// what they are called.
func (in inputs) otherFormats() bool {
	return len(in.include) > 0 || slices.ContainsFunc(in.paths, func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && !info.IsDir()
	})
}

// serverFlags are the flags of every command that asks a server.
func serverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "triton", EnvVars: []string{"QUIRE_TRITON"}, Usage: "use the server at `HOST:PORT` (its gRPC port); where several can be used, with commas, or dns:///NAME:PORT for every address of a name", DefaultText: "start one on the CPU"},
		&cli.StringFlag{Name: "model-repository", EnvVars: []string{"QUIRE_MODEL_REPOSITORY"}, Usage: "serve the models in `DIR` with the server that quire starts", DefaultText: "./model_repository if it is there, else quire's own copy"},
	}
}

// transportFlag is for commands that send pages.
func transportFlag() cli.Flag {
	return &cli.StringFlag{Name: "transport", EnvVars: []string{"QUIRE_TRANSPORT"}, Value: "auto", Usage: "send pages by `WAY`: through shared memory (shm), inside the requests (grpc), or through shared memory where the server takes it (auto)"}
}

// serverChoice is what serverFlags, transportFlag and connectionFlags said.
type serverChoice struct {
	triton, repository string
	endpoints          tritonclient.Endpoints // of triton
	transport          layout.Transport
	connection         tritonclient.Config
}

func serverChoiceOf(c *cli.Context) (serverChoice, error) {
	if c.String("triton") != "" && c.String("model-repository") != "" {
		return serverChoice{}, errors.New("--triton and --model-repository contradict each other: the server at --triton has a repository of its own")
	}
	return serverFlagsOf(c)
}

// serverFlagsOf is serverChoiceOf, where --triton and --model-repository may go
// together.
func serverFlagsOf(c *cli.Context) (serverChoice, error) {
	s := serverChoice{triton: c.String("triton"), repository: c.String("model-repository")}
	if word := c.String("transport"); word != "" {
		var err error
		if s.transport, err = layout.ParseTransport(word); err != nil {
			return s, fmt.Errorf("--transport %s: it is auto, shm or grpc", word)
		}
	}
	var err error
	if s.triton != "" {
		if s.endpoints, err = tritonclient.ParseEndpoints(s.triton); err != nil {
			return s, fmt.Errorf("--triton: %w", err)
		}
	}
	if s.connection, err = connectionOf(c); err != nil {
		return s, err
	}
	return s, s.check()
}

// single is an error where several servers were named for a command that is
// about one.
func (s serverChoice) single(command string) error {
	if _, one := s.endpoints.Single(); s.triton != "" && !one {
		return fmt.Errorf("--triton %s: quire %s is about one server: name one", s.triton, command)
	}
	return nil
}

func (s serverChoice) check() error {
	if s.triton == "" && (s.connection.TLS != nil || s.connection.Headers != nil) {
		return errors.New("--tls and --triton-header are about a server of yours: name it with --triton")
	}
	if s.repository != "" {
		if info, err := os.Stat(s.repository); err != nil || !info.IsDir() {
			return fmt.Errorf("--model-repository %s: no such directory", s.repository)
		}
	}
	return nil
}

// where names the place of a measurement.
func (s serverChoice) where() string {
	switch {
	case s.triton != "":
		return s.triton
	case s.repository != "":
		dir, err := filepath.Abs(s.repository)
		if err != nil {
			dir = s.repository
		}
		return "embedded, " + dir
	}
	return "embedded"
}
