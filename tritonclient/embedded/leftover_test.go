package embedded

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLeftover(t *testing.T) {
	for name, test := range map[string]struct {
		made, stay []string
	}{
		"none":                        {nil, []string{"python_env_old"}},
		"one":                         {[]string{"python_env_a"}, []string{"python_env_old"}},
		"one with something in it":    {[]string{"python_env_a/1"}, []string{"python_env_a", "python_env_old"}},
		"another server's beside it":  {[]string{"python_env_a", "python_env_b"}, []string{"python_env_a", "python_env_b", "python_env_old"}},
		"one, and another name there": {[]string{"python_env_a", "python_b"}, []string{"python_env_old"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pattern := filepath.Join(dir, filepath.Base(environmentDirs))
			add := func(names ...string) {
				for _, name := range names {
					if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			add("python_env_old")
			before := leftovers(pattern)
			add(test.made...)
			dropLeftover(pattern, before)
			var got []string
			for _, path := range slices.Sorted(maps.Keys(leftovers(pattern))) {
				got = append(got, filepath.Base(path))
			}
			if !slices.Equal(got, test.stay) {
				t.Errorf("%v stay, want %v", got, test.stay)
			}
		})
	}
}
