package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/scripts"
)

// onnx is what is looked at of a model: bytes, and metadata at their end.
func onnx(recipe, batch string) string {
	entry := func(key, value string) string {
		return "\x0a" + string(rune(len(key))) + key + "\x12" + string(rune(len(value))) + value
	}
	return "graph with the words quire.recipe in it" + entry("quire.recipe", recipe) + entry("quire.checked_batch", batch)
}

func TestModelCurrent(t *testing.T) {
	sum := sha256.Sum256(scripts.PrepareModel)
	recipe := hex.EncodeToString(sum[:])
	for name, test := range map[string]struct {
		model string
		want  bool
	}{
		"missing":       {"", false},
		"current":       {onnx(recipe, "16"), true},
		"larger batch":  {onnx(recipe, "32"), true},
		"smaller batch": {onnx(recipe, "8"), false},
		"other recipe":  {onnx(strings.Repeat("0", 64), "16"), false},
		"no batch":      {onnx(recipe, ""), false},
		"a user's own":  {"some other model", true},
		"like another":  {onnx(strings.Repeat("0", 64), "8") + onnx(recipe, "16"), true},
		"cut at once":   {"graph\x0a\x0cquire.recipe", true},
		"cut short":     {"graph\x0a\x0cquire.recipe\x12\x40cut", true},
		"a long entry":  {"graph\x0a\x0cquire.recipe\x12\x80\x01" + strings.Repeat("x", 200), true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFiles(t, dir, map[string]string{
				"layout/config.pbtxt":      "max_batch_size: 16\n",
				"layout/configs/cpu.pbtxt": "  max_batch_size : 4\n",
			})
			if test.model != "" {
				writeFiles(t, dir, map[string]string{"layout/1/model.onnx": test.model})
			}
			if got := ModelCurrent(dir); got != test.want {
				t.Fatalf("current: %v, want %v", got, test.want)
			}
			if test.want {
				// Then nothing is needed, no Python and no guard either.
				t.Setenv("PATH", "")
				if err := PrepareModel(t.Context(), Options{Cache: t.TempDir()}, dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := PrepareModel(t.Context(), Options{}, t.TempDir()); err != nil {
		t.Errorf("a repository without the model: %v", err)
	}
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"layout/config.pbtxt": "max_batch_size: 16\n", "layout/1/model.onnx": ""})
	if ModelCurrent(dir) {
		t.Error("a model that was cut to nothing is taken for a user's own")
	}
}

func TestLargestBatch(t *testing.T) {
	for name, test := range map[string]struct {
		config, cpu string
		want        int // 0: an error
	}{
		"for a GPU":  {"max_batch_size: 16\n", "max_batch_size: 4\n", 16},
		"for a CPU":  {"# so many\nmax_batch_size: 4\n", "\tmax_batch_size : 16\n", 16},
		"none":       {"max_batch_size: 0\n", "max_batch_size: 0\n", 0},
		"not said":   {"max_batch_size: 4\n", "name: \"layout\"\n", 0},
		"a comment":  {"# max_batch_size: 4\n", "max_batch_size: 4\n", 0},
		"beyond all": {"max_batch_size: 99999999999999999999\n", "max_batch_size: 4\n", 0},
	} {
		dir := t.TempDir()
		writeFiles(t, dir, map[string]string{"config.pbtxt": test.config, "configs/cpu.pbtxt": test.cpu})
		if got, err := largestBatch(dir); got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d, %v; want %d", name, got, err, test.want)
		}
	}
	if n, err := largestBatch(t.TempDir()); err == nil {
		t.Errorf("no config at all allows %d", n)
	}
}

// A build that is killed while it writes leaves nothing for good, and one that
// is at work is left alone.
func TestLeftoverOfAKilledBuild(t *testing.T) {
	py, err := FindPython(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"prepare_model.py": string(scripts.PrepareModel), "1/.model-old.tmp": "half of it", "1/.model-new.tmp": "half of it", "1/other.tmp": "",
	})
	before := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{".model-old.tmp", "other.tmp"} {
		if err := os.Chtimes(filepath.Join(dir, "1", name), before, before); err != nil {
			t.Fatal(err)
		}
	}
	write := exec.Command(py.Path, "-B", "-c", "import pathlib, prepare_model; prepare_model.write(pathlib.Path('1/model.onnx'), b'whole')")
	write.Dir = dir
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "1"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != ".model-new.tmp model.onnx other.tmp" {
		t.Errorf("there are %s", got)
	}
}

func TestBundledRepository(t *testing.T) {
	o := Options{Cache: t.TempDir()}
	dir, err := BundledRepository(o)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := largestBatch(filepath.Join(dir, LayoutModel)); err != nil || n < 1 {
		t.Errorf("largest batch %d, %v", n, err)
	}
	tuned := filepath.Join(dir, LayoutModel, "config.pbtxt")
	writeFiles(t, "/", map[string]string{tuned: "tuned"})
	if err := os.Remove(filepath.Join(dir, LayoutModel, "labels.txt")); err != nil {
		t.Fatal(err)
	}
	again, err := BundledRepository(o)
	if err != nil || again != dir {
		t.Fatalf("%s, %v; want %s", again, err, dir)
	}
	if b, err := os.ReadFile(tuned); err != nil || string(b) != "tuned" {
		t.Errorf("%s: %.20q, %v", tuned, b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, LayoutModel, "labels.txt")); err != nil {
		t.Error(err)
	}
}

func TestBenchRepository(t *testing.T) {
	o := Options{Cache: t.TempDir()}
	instant, err := BenchRepository(o, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := BenchRepository(o, 6*time.Millisecond, 800*time.Microsecond)
	if err != nil || slow == instant {
		t.Fatalf("%s, %v", slow, err)
	}
	for dir, wanted := range map[string][]string{
		instant: {`"bench.batch_ms" value { string_value: "0" }`, `"bench.page_ms" value { string_value: "0" }`},
		slow:    {`"bench.batch_ms" value { string_value: "6" }`, `"bench.page_ms" value { string_value: "0.8" }`},
	} {
		config, err := os.ReadFile(filepath.Join(dir, LayoutModel, "configs", "cpu.pbtxt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wanted {
			if !strings.Contains(string(config), want) {
				t.Errorf("%s has no %s", dir, want)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, LayoutModel, "1", "model.py")); err != nil {
			t.Error(err)
		}
	}
}
