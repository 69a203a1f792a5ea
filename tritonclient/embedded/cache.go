package embedded

// CacheDir is where this package keeps what it installs, and where others may
// keep small things beside it: QUIRE_CACHE, else quire in the user's cache
// directory. It need not be there yet.
func CacheDir() (string, error) { return Options{}.cacheDir() }
