package embedded

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// environmentDirs is where each server's Python backend makes a directory, for
// environments that come packed with a model. The name is fixed in its library,
// and it removes the directory only when the server ends by itself, which takes
// it seconds: quire kills it.
var environmentDirs = filepath.Join("/tmp", "python_env_*")

// leftovers lists what matches a pattern.
func leftovers(pattern string) map[string]bool {
	found := map[string]bool{}
	names, _ := filepath.Glob(pattern) // fails for a wrong pattern only
	for _, name := range names {
		found[name] = true
	}
	return found
}

// dropLeftover removes the empty directory that a server has made since before
// was listed. Where several have come, another server's is among them, and all stay.
func dropLeftover(pattern string, before map[string]bool) {
	var made []string
	for name := range leftovers(pattern) {
		if !before[name] {
			made = append(made, name)
		}
	}
	if len(made) == 1 {
		_ = unix.Rmdir(made[0]) // a model's environment may be in it
	}
}
