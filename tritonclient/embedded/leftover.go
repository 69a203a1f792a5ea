package embedded

import "path/filepath"

// environmentDirs is where each server's Python backend makes a directory, for
// environments that come packed with a model. The name is fixed in its library,
// and it removes the directory only when the server ends by itself, which takes
// it seconds: quire kills it. A server whose directory has gone before crashes
// then.
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

// leftover is the directory that a server has made since before was listed; empty
// where several have come: another server's is among them.
func leftover(pattern string, before map[string]bool) string {
	made := ""
	for name := range leftovers(pattern) {
		switch {
		case before[name]:
		case made != "":
			return ""
		default:
			made = name
		}
	}
	return made
}
