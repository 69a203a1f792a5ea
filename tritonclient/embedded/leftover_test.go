package embedded

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLeftover(t *testing.T) {
	for name, test := range map[string]struct {
		made []string
		want string
	}{
		"none":                        {nil, ""},
		"one":                         {[]string{"python_env_a"}, "python_env_a"},
		"another server's beside it":  {[]string{"python_env_a", "python_env_b"}, ""},
		"one, and another name there": {[]string{"python_env_a", "python_b"}, "python_env_a"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pattern := filepath.Join(dir, filepath.Base(environmentDirs))
			add := func(names ...string) {
				for _, name := range names {
					if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			add("python_env_old")
			before := leftovers(pattern)
			add(test.made...)
			want := ""
			if test.want != "" {
				want = filepath.Join(dir, test.want)
			}
			if got := leftover(pattern, before); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}
