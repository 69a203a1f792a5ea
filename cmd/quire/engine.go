package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
)

// engineFlags are the flags of every command that moves pages.
func engineFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "workers", EnvVars: []string{"QUIRE_WORKERS"}, Usage: "draw `N` pages at once", DefaultText: "the CPUs of this machine"},
		&cli.IntFlag{Name: "batch", EnvVars: []string{"QUIRE_BATCH"}, Usage: "send at most `N` pages in a request", DefaultText: "quire.batch, else max_batch_size of the served config; of several servers the smallest"},
		&cli.IntFlag{Name: "in-flight", EnvVars: []string{"QUIRE_IN_FLIGHT"}, Usage: "have at most `N` requests at a server", DefaultText: "quire.in_flight of the served config, else its instances + 1"},
		&cli.DurationFlag{Name: "max-age", EnvVars: []string{"QUIRE_MAX_AGE"}, Usage: "let the first page of a batch wait at most `TIME` for others; 0: not at all", DefaultText: "quire.max_age_ms of the served config, else 20ms"},
	}
}

// engineChoice is what engineFlags said, as orchestrator.Config has it.
type engineChoice struct {
	workers, batch, inFlight int
	maxAge                   time.Duration
}

func engineChoiceOf(c *cli.Context) (engineChoice, error) {
	e := engineChoice{
		workers: c.Int("workers"), batch: c.Int("batch"), inFlight: c.Int("in-flight"), maxAge: c.Duration("max-age"),
	}
	for _, name := range []string{"workers", "batch", "in-flight"} {
		if n := c.Int(name); c.IsSet(name) && n < 1 {
			return e, fmt.Errorf("--%s %d: it must be at least 1", name, n)
		} else if n > math.MaxInt32 {
			return e, fmt.Errorf("--%s %d: no machine has memory for so many", name, n)
		}
	}
	// On the command line 0 means 0; in a Config that is what a negative
	// number says.
	if c.IsSet("max-age") {
		if e.maxAge < 0 {
			return e, fmt.Errorf("--max-age %v: it must not be negative", e.maxAge)
		}
		if e.maxAge == 0 {
			e.maxAge = -1
		}
	}
	return e, nil
}

// engineError tells what a machine has not got for an engine from what the
// command line cannot have.
func engineError(err error) error {
	if _, ok := errors.AsType[*orchestrator.RoomError](err); ok {
		return err
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return err
	}
	return usageError{err}
}

// withRemedy says what helps when too many files are open, or when batches find no
// room, of what the command has flags for.
func withRemedy(c *cli.Context, err error) error {
	if remedy := moreFiles(err); remedy != "" {
		return fmt.Errorf("%w: %s", err, remedy)
	}
	room, ok := errors.AsType[*orchestrator.RoomError](err)
	if !ok {
		return err
	}
	has := func(flag string) bool {
		return slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), flag) })
	}
	var ways []string
	if room.Shared {
		ways = append(ways, "make /dev/shm larger (a container: --shm-size=1g)")
	}
	switch {
	case has("in-flight"):
		ways = append(ways, "send less at once with --batch and --in-flight")
	case has("batch"):
		ways = append(ways, "send less at once with --batch")
	}
	if room.Shared {
		ways = append(ways, "use --transport grpc")
	}
	if len(ways) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(ways, ", or "))
}
