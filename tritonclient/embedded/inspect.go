package embedded

import (
	"context"

	"quire/scripts"
)

// InstallBytes is the room that everything here takes in the cache directory,
// downloads included while they last.
const InstallBytes = 1 << 30

// CacheDir is where this package keeps what it installs, and where others may
// keep small things beside it. It need not be there yet. With an error that comes
// with a directory, others may, and the server cannot.
func CacheDir(o Options) (string, error) { return o.cacheDir() }

// Installed returns where the server's environment is, and whether it is there,
// without changing anything. The error is a *[SetupError] when the machine lacks
// what it takes to install it.
func Installed(ctx context.Context, o Options) (dir string, installed bool, err error) {
	e, err := locate(ctx, o, Requirements{Name: "server", Lock: scripts.RequirementsServer})
	if err != nil {
		return "", false, err
	}
	if err := checkShell(); err != nil {
		return e.dir, false, err
	}
	return e.dir, e.complete(), nil
}

// ModelCurrent tells whether [PrepareModel] would have nothing to do for the
// repository's layout model. When in doubt it answers false.
func ModelCurrent(repository string) bool { return modelCurrent(repository) }
