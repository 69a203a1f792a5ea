package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"
)

func logLevelFlag() cli.Flag {
	return &cli.StringFlag{Name: "log-level", EnvVars: []string{"QUIRE_LOG_LEVEL"}, Usage: "log at `LEVEL` and above: debug, info, warn or error", Value: "warn"}
}

// logLevelOf is what logLevelFlag said.
func logLevelOf(c *cli.Context) (level slog.Level, err error) {
	word := c.String("log-level")
	// slog takes "warn+2" too.
	if err := level.UnmarshalText([]byte(word)); err != nil || strings.Trim(word, "+-0123456789") != word {
		return 0, fmt.Errorf("--log-level %s: it is debug, info, warn or error", word)
	}
	return level, nil
}

func newLogger(level slog.Level, w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
