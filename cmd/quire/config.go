package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"
)

// runConfig is the command line, checked.
type runConfig struct {
	inputs
	engineChoice
	output                              string
	server                              serverChoice
	threshold                           float64 // as layout.Config has it
	pageTimeout                         time.Duration
	serverWait                          time.Duration
	diskWait                            time.Duration // as sink.Config has it
	fresh, retryFailed, checksum, prune bool
	logLevel                            slog.Level
	json, overlay                       bool
	metrics                             string // address to serve metrics at; empty for none
}

func runConfigOf(c *cli.Context) (runConfig, error) {
	cfg := runConfig{
		output: c.String("output"), threshold: c.Float64("threshold"), metrics: c.String("metrics"),
		pageTimeout: c.Duration("page-timeout"), serverWait: c.Duration("server-wait"), diskWait: c.Duration("disk-wait"),
		fresh: c.Bool("fresh"), retryFailed: c.Bool("retry-failed"), checksum: c.Bool("checksum"), prune: c.Bool("prune"),
		json: c.Bool("json"), overlay: c.Bool("overlay"),
	}
	var err error
	if cfg.inputs, err = inputsOf(c, "quire run DIR… -o OUT"); err != nil {
		return cfg, err
	}
	if cfg.output == "" {
		return cfg, errors.New("no output directory: add -o OUT")
	}
	if cfg.engineChoice, err = engineChoiceOf(c); err != nil {
		return cfg, err
	}
	if cfg.pageTimeout <= 0 {
		return cfg, fmt.Errorf("--page-timeout %v: it must be above 0", cfg.pageTimeout)
	}
	if cfg.serverWait <= 0 {
		return cfg, fmt.Errorf("--server-wait %v: it must be above 0", cfg.serverWait)
	}
	if cfg.fresh && cfg.retryFailed {
		return cfg, errors.New("--fresh and --retry-failed contradict each other: the one does everything again, the other only what failed")
	}
	if cfg.diskWait < 0 {
		return cfg, fmt.Errorf("--disk-wait %v: it must not be negative", cfg.diskWait)
	}
	if cfg.diskWait == 0 {
		cfg.diskWait = -1
	}
	if c.IsSet("threshold") {
		if !(cfg.threshold >= 0 && cfg.threshold < 1) {
			return cfg, fmt.Errorf("--threshold %v: it must be at least 0 and below 1", cfg.threshold)
		}
		// On the command line 0 means 0; in a Config that is what a negative
		// number says.
		if cfg.threshold == 0 {
			cfg.threshold = -1
		}
	}
	if cfg.server, err = serverChoiceOf(c); err != nil {
		return cfg, err
	}
	cfg.logLevel, err = logLevelOf(c)
	return cfg, err
}
