package embedded

import (
	"io/fs"
	"os"
	"path/filepath"

	"quire/model_repository"
)

// Repository returns a model repository in the cache directory that holds the
// files that are inside this program, made if it is not there. Another version
// of the program has another one. PrepareModel then makes its model.
func Repository(o Options) (string, error) {
	cache, err := o.cacheDir()
	if err != nil {
		return "", err
	}
	var parts []string
	files := map[string][]byte{}
	err = fs.WalkDir(modelrepository.Files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[path], err = modelrepository.Files.ReadFile(path)
		parts = append(parts, path, string(files[path]))
		return err
	})
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, "model_repository", digest(parts...))
	for path, content := range files {
		path = filepath.Join(root, path)
		if _, err := os.Stat(path); err == nil {
			continue // the user's edits of it stay, as tune's do
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", cacheError(cache, err)
		}
		if err := replaceFile(path, content, 0o644); err != nil {
			return "", cacheError(cache, err)
		}
	}
	return root, nil
}
