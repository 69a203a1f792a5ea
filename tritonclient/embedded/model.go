package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	modelrepository "quire/model_repository"
	"quire/scripts"
)

// LayoutModel is the name of the model that PrepareModel makes.
const LayoutModel = "layout"

// ModelEnv installs what prepare_model.py needs, if it is not there; packages
// that the server has too are shared with it.
func ModelEnv(ctx context.Context, o Options) (*Env, error) {
	base, err := ServerEnv(ctx, o)
	if err != nil {
		return nil, err
	}
	return Install(ctx, o, Requirements{Name: "model", Lock: scripts.RequirementsModel, Base: base})
}

// PrepareModel makes sure that the repository's layout model is there and is
// what this version of quire would build, by running prepare_model.py if need
// be. A model.onnx that did not come from that script is the user's and stays,
// and a repository without the model is left alone. It may be called from
// several processes at once.
func PrepareModel(ctx context.Context, o Options, repository string) error {
	dir, err := filepath.Abs(repository)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, LayoutModel, "config.pbtxt")); os.IsNotExist(err) {
		return nil
	}
	if ModelCurrent(dir) {
		return nil
	}
	cache, err := CacheDir(o)
	if err != nil {
		return err
	}
	// The lock is not in the repository: that may be read-only, or a mount.
	lock, err := lockFile(ctx, cache, filepath.Join(cache, "locks", "model-"+digest(dir)), func() {
		o.report(Progress{Text: "waiting for another quire that is building the same model"})
	})
	if err != nil {
		return err
	}
	defer lock.Close()
	if ModelCurrent(dir) {
		return nil
	}
	env, err := ModelEnv(ctx, o)
	if err != nil {
		return err
	}
	script, err := writeScript(cache, "prepare_model.py", scripts.PrepareModel)
	if err != nil {
		return cacheError(cache, err)
	}
	o.report(Progress{Text: "building the layout model"})
	err = env.Run(ctx, o.Guard, func(line string) {
		o.report(Progress{Text: oneLine(line)})
	}, script, "--repository", dir)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &SetupError{Thing: "layout model in " + dir, Reason: err.Error(), Remedy: "see scripts/prepare_model.py --help, " + wayOut, Err: err}
	}
	return nil
}

// BundledRepository lays out the model repository that this binary carries,
// without a model, and returns its directory. What is there already stays: it
// may have been tuned.
func BundledRepository(o Options) (string, error) {
	return layOutRepository(o, modelrepository.Files, func(content []byte) []byte { return content })
}

// BenchRepository lays out a model repository for measuring, and returns its
// directory: in place of the layout model it has one with the same tensors that
// computes nothing and answers always the same, perBatch + perPage × pages after
// it was asked.
func BenchRepository(o Options, perBatch, perPage time.Duration) (string, error) {
	files, err := fs.Sub(scripts.BenchRepository, "bench_repository/instant")
	if err != nil {
		return "", err
	}
	return layOutRepository(o, files, func(content []byte) []byte {
		for key, value := range map[string]time.Duration{"bench.batch_ms": perBatch, "bench.page_ms": perPage} {
			line := "parameters { key: %q value { string_value: %q } }"
			was, is := fmt.Sprintf(line, key, "0"), fmt.Sprintf(line, key, strconv.FormatFloat(value.Seconds()*1000, 'f', -1, 64))
			content = bytes.Replace(content, []byte(was), []byte(is), 1) // other files have no such line
		}
		return content
	})
}

// layOutRepository puts a repository of this binary into the cache directory,
// each file as edit returns it. What is there already stays.
func layOutRepository(o Options, from fs.FS, edit func([]byte) []byte) (string, error) {
	cache, err := CacheDir(o)
	if err != nil {
		return "", err
	}
	parts := []string{layoutVersion}
	files := map[string][]byte{}
	err = fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(from, name)
		files[name] = edit(content)
		parts = append(parts, name, string(files[name]))
		return err
	})
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "repositories", digest(parts...))
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", cacheError(cache, err)
		}
		if err := replaceFile(path, content, 0o644); err != nil {
			return "", cacheError(cache, err)
		}
	}
	return dir, nil
}

// writeScript puts a script of this binary where Python can run it.
func writeScript(cache, name string, content []byte) (string, error) {
	dir := filepath.Join(cache, "scripts", digest(string(content)))
	path := filepath.Join(dir, name)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, content) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return path, replaceFile(path, content, 0o644)
}

// The metadata that prepare_model.py leaves in its models.
const (
	metaRecipe = "quire.recipe"
	metaBatch  = "quire.checked_batch"
)

// ModelCurrent tells whether [PrepareModel] has nothing to do for the repository's
// layout model, as prepare_model.py would, but without Python: at each start that
// would take seconds. When in doubt it answers false, and the script decides.
func ModelCurrent(repository string) bool {
	model, err := os.ReadFile(filepath.Join(repository, LayoutModel, "1", "model.onnx"))
	if err != nil || len(model) == 0 {
		return false
	}
	recipe, ours := metadata(model, metaRecipe)
	if !ours {
		return true
	}
	sum := sha256.Sum256(scripts.PrepareModel)
	if recipe != hex.EncodeToString(sum[:]) {
		return false
	}
	text, _ := metadata(model, metaBatch)
	checked, err := strconv.Atoi(text)
	if err != nil {
		return false
	}
	largest, err := largestBatch(filepath.Join(repository, LayoutModel))
	return err == nil && checked >= largest
}

// metadata finds a metadata_props entry of an ONNX model: in protobuf a
// StringStringEntryProto {key = 1, value = 2}, whose strings are short here, so
// that each length is one byte.
func metadata(model []byte, key string) (string, bool) {
	mark := append([]byte{1<<3 | 2, byte(len(key))}, key...)
	i := bytes.LastIndex(model, mark) // the metadata follow the graph
	if i < 0 {
		return "", false
	}
	rest := model[i+len(mark):]
	if len(rest) < 2 || rest[0] != 2<<3|2 || rest[1] > 127 || len(rest) < 2+int(rest[1]) {
		return "", false
	}
	return string(rest[2 : 2+int(rest[1])]), true
}

var maxBatchLine = regexp.MustCompile(`(?m)^\s*max_batch_size\s*:\s*(\d+)`)

// largestBatch is the largest max_batch_size that the model's configs allow.
func largestBatch(model string) (int, error) {
	files, err := filepath.Glob(filepath.Join(model, "configs", "*.pbtxt"))
	if err != nil {
		return 0, err
	}
	largest := 0
	for _, file := range append(files, filepath.Join(model, "config.pbtxt")) {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		m := maxBatchLine.FindSubmatch(text)
		if m == nil {
			return 0, fmt.Errorf("%s: no max_batch_size", file)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return 0, err
		}
		largest = max(largest, n)
	}
	if largest < 1 {
		return 0, errors.New("max_batch_size is 0")
	}
	return largest, nil
}
