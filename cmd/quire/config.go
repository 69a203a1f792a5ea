package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

// runConfig is the command line, checked.
type runConfig struct {
	inputs
	output                   string
	server                   serverChoice
	threshold                float64 // as layout.Config has it
	workers, batch, inFlight int
	maxAge, pageTimeout      time.Duration
	logLevel                 string
	json, overlay            bool
}

func runConfigOf(c *cli.Context) (runConfig, error) {
	cfg := runConfig{
		output:  c.String("output"),
		workers: c.Int("workers"), batch: c.Int("batch"), inFlight: c.Int("in-flight"),
		maxAge: c.Duration("max-age"), pageTimeout: c.Duration("page-timeout"),
		threshold: c.Float64("threshold"), logLevel: c.String("log-level"), json: c.Bool("json"), overlay: c.Bool("overlay"),
	}
	var err error
	if cfg.inputs, err = inputsOf(c, "quire run DIR… -o OUT"); err != nil {
		return cfg, err
	}
	if cfg.output == "" {
		return cfg, errors.New("no output directory: add -o OUT")
	}
	for _, name := range []string{"workers", "batch", "in-flight"} {
		if n := c.Int(name); c.IsSet(name) && n < 1 {
			return cfg, fmt.Errorf("--%s %d: it must be at least 1", name, n)
		}
	}
	if cfg.pageTimeout <= 0 {
		return cfg, fmt.Errorf("--page-timeout %v: it must be above 0", cfg.pageTimeout)
	}
	// On the command line 0 means 0; in a Config that is what a negative
	// number says.
	if c.IsSet("max-age") {
		if cfg.maxAge < 0 {
			return cfg, fmt.Errorf("--max-age %v: it must not be negative", cfg.maxAge)
		}
		if cfg.maxAge == 0 {
			cfg.maxAge = -1
		}
	}
	if c.IsSet("threshold") {
		if cfg.threshold < 0 || cfg.threshold >= 1 {
			return cfg, fmt.Errorf("--threshold %v: it must be at least 0 and below 1", cfg.threshold)
		}
		if cfg.threshold == 0 {
			cfg.threshold = -1
		}
	}
	if cfg.server, err = serverChoiceOf(c); err != nil {
		return cfg, err
	}
	if !validLogLevel(cfg.logLevel) {
		return cfg, fmt.Errorf("--log-level %s: it is debug, info, warn or error", cfg.logLevel)
	}
	return cfg, nil
}
