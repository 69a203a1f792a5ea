package bench

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
)

// sample chooses at most so many documents of a source, each as likely as any
// other and always the same ones, in no order. found is how many there are.
func sample(ctx context.Context, source orchestrator.Source, most int) (chosen []orchestrator.Document, found int) {
	random := rand.New(rand.NewPCG(1, 2))
	for doc := range source.Documents(ctx) {
		found++
		if len(chosen) < most {
			chosen = append(chosen, doc)
		} else if i := random.IntN(found); i < most {
			chosen[i] = doc
		}
	}
	random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen, found
}

// cores is how many processors this program may use.
func cores() int { return runtime.GOMAXPROCS(0) }

// machine tells what this is.
func machine(cores int) Machine {
	m := Machine{CPU: runtime.GOARCH, Cores: cores}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return m
}
