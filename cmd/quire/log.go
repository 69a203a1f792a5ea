package main

import (
	"io"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"
)

func logLevelFlag() cli.Flag {
	return &cli.StringFlag{Name: "log-level", EnvVars: []string{"QUIRE_LOG_LEVEL"}, Usage: "log at `LEVEL` and above: debug, info, warn or error", Value: "warn"}
}

func validLogLevel(s string) bool {
	var level slog.Level
	return level.UnmarshalText([]byte(s)) == nil && strings.Trim(s, "+-0123456789") == s
}

func newLogger(level string, w io.Writer) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelWarn
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
}
