// Command server is what bench/compare measures against: it installs the
// peers' packages, starts the embedded Triton with the layout model, prints one
// line of JSON about both, and serves until its standard input ends.
//
//	server -lock REQUIREMENTS [-model-repository DIR]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

// ready is the line.
type ready struct {
	Address   string `json:"address"`   // of the server, host:port
	Triton    string `json:"triton"`    // its version
	Precision string `json:"precision"` // that the served model computes in
	Model     string `json:"model"`     // the file that is served
	Python    string `json:"python"`    // the interpreter that has the peers' packages
}

func main() {
	guard.Main() // a copy of this program is the guard

	lock := flag.String("lock", "", "requirements `FILE` of the peers, with hashes")
	repository := flag.String("model-repository", "model_repository", "`DIR` to serve models from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *lock, *repository); err != nil {
		fmt.Fprintln(os.Stderr, "bench/server:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, lock, repository string) (err error) {
	packages, err := os.ReadFile(lock)
	if err != nil {
		return fmt.Errorf("-lock: %w", err)
	}
	// Also while it still installs: then nobody waits for the server any more.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel(errors.New("standard input ended"))
	}()
	g, err := guard.Start(ctx, guard.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()

	options := embedded.Options{Guard: g, Progress: progress()}
	base, err := embedded.ServerEnv(ctx, options)
	if err != nil {
		return err
	}
	peers, err := embedded.Install(ctx, options, embedded.Requirements{Name: "bench", Lock: packages, Base: base})
	if err != nil {
		return err
	}
	if err := embedded.PrepareModel(ctx, options, repository); err != nil {
		return err
	}
	server, err := embedded.Start(ctx, embedded.Config{Options: options, ModelRepository: repository})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Kill()) }()
	line, err := describe(ctx, server.Addr())
	if err != nil {
		return err
	}
	line.Python = peers.Python()
	if line.Model, err = filepath.Abs(filepath.Join(repository, embedded.LayoutModel, "1", "model.onnx")); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-server.Done():
		return fmt.Errorf("the server ended: %s; its log ends with\n%s", server.State(), strings.Join(last(server.Log(), 10), "\n"))
	}
}

func last(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

// describe asks the server what it is.
func describe(ctx context.Context, address string) (ready, error) {
	client, err := tritonclient.New(address, tritonclient.Config{})
	if err != nil {
		return ready{}, err
	}
	defer client.Close()
	metadata, err := client.ServerMetadata(ctx)
	if err != nil {
		return ready{}, err
	}
	config, err := client.ModelConfig(ctx, embedded.LayoutModel, "")
	if err != nil {
		return ready{}, err
	}
	return ready{
		Address: address, Triton: metadata.GetVersion(),
		Precision: config.GetParameters()["quire.precision"].GetStringValue(),
	}, nil
}

// progress tells people each step once.
func progress() func(embedded.Progress) {
	last := ""
	return func(p embedded.Progress) {
		if p.Text != last {
			fmt.Fprintln(os.Stderr, p.Text)
		}
		last = p.Text
	}
}
