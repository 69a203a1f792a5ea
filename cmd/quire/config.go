package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// runConfig is the command line, checked.
type runConfig struct {
	inputs, include, exclude []string
	output                   string
	triton, repository       string
	passwords                []string
	threshold                float64 // as layout.Config has it
	workers, batch, inFlight int
	maxAge, pageTimeout      time.Duration
	logLevel                 string
}

func runConfigOf(c *cli.Context) (runConfig, error) {
	cfg := runConfig{
		inputs: c.Args().Slice(), include: c.StringSlice("include"), exclude: c.StringSlice("exclude"),
		output: c.String("output"), triton: c.String("triton"), repository: c.String("model-repository"),
		workers: c.Int("workers"), batch: c.Int("batch"), inFlight: c.Int("in-flight"),
		maxAge: c.Duration("max-age"), pageTimeout: c.Duration("page-timeout"),
		threshold: c.Float64("threshold"), logLevel: c.String("log-level"),
	}
	if len(cfg.inputs) == 0 {
		return cfg, errors.New("no input: quire run DIR… -o OUT")
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
	if cfg.triton != "" && cfg.repository != "" {
		return cfg, errors.New("--triton and --model-repository contradict each other: the server at --triton has a repository of its own")
	}
	if cfg.repository != "" {
		if info, err := os.Stat(cfg.repository); err != nil || !info.IsDir() {
			return cfg, fmt.Errorf("--model-repository %s: no such directory", cfg.repository)
		}
	}
	if !validLogLevel(cfg.logLevel) {
		return cfg, fmt.Errorf("--log-level %s: it is debug, info, warn or error", cfg.logLevel)
	}
	if name := c.String("password-file"); name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return cfg, fmt.Errorf("--password-file: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				cfg.passwords = append(cfg.passwords, line)
			}
		}
	}
	return cfg, nil
}
