package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set by the linker for releases (-X main.version=…).
var version = "0.1.0-dev"

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version and what it was built from",
		Action: func(c *cli.Context) error {
			revision, dirty := "unknown", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					switch s.Key {
					case "vcs.revision":
						revision = s.Value
					case "vcs.modified":
						if s.Value == "true" {
							dirty = " with changes"
						}
					}
				}
			}
			_, err := fmt.Fprintf(c.App.Writer, "quire %s\nrevision %s%s\n%s %s/%s\n", version, revision, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
