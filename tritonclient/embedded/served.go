package embedded

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// plainPath tells whether a shell takes a path for one word that stands for
// itself: Triton's Python backend hands its paths to bash as they are, and waits
// for minutes for a process that cannot start.
func plainPath(path string) bool {
	return !strings.ContainsFunc(path, func(r rune) bool {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r >= 0x80:
			return false
		}
		return !strings.ContainsRune("/._-+=,:@%", r)
	})
}

var statfs = unix.Statfs // tests have others

// usableCache refuses a cache directory that the server cannot run from: its
// paths go through a shell, and into lists that are separated by colons; and what
// is installed in it is to be run.
func usableCache(dir string) error {
	refuse := func(reason, remedy string) error {
		return &SetupError{Thing: "cache directory " + dir, Reason: reason, Remedy: remedy + " with " + EnvCache + ", " + wayOut}
	}
	if !plainPath(dir) || strings.Contains(dir, ":") {
		return refuse("there is a blank or another character in its path that a shell takes for its own, or a colon, and the server does not start from there",
			"name a directory of letters, digits and any of ._-+=,@%")
	}
	var st unix.Statfs_t
	err := statfs(dir, &st)
	for there := dir; err != nil && there != filepath.Dir(there); { // it will be made in what is there
		there = filepath.Dir(there)
		err = statfs(there, &st)
	}
	if err == nil && st.Flags&unix.ST_NOEXEC != 0 {
		return refuse("its file system is mounted noexec, and the server is to run from there", "name a directory elsewhere")
	}
	return nil
}

// servedPath is where the server is told that a repository is: the repository
// itself, or, where a shell would take its path for something else, a link to it
// in the cache directory.
func servedPath(cache, repository string) (string, error) {
	if plainPath(repository) {
		return repository, nil
	}
	link := filepath.Join(cache, "served", digest(repository))
	if to, err := os.Readlink(link); err == nil && to == repository {
		return link, nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return "", cacheError(cache, err)
	}
	// Another quire may be making it, or serving through it.
	fresh := link + "." + rand.Text()
	if err := os.Symlink(repository, fresh); err != nil {
		return "", cacheError(cache, err)
	}
	if err := os.Rename(fresh, link); err != nil {
		_ = os.Remove(fresh)
		return "", cacheError(cache, err)
	}
	return link, nil
}
