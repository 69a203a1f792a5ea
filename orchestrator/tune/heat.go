package tune

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"quire/orchestrator/internal/measure"
)

// heat is what slows a machine down without anybody's doing.
type heat struct {
	throttled int64 // how often cores were slowed down to cool
	machine   measure.Machine
}

// readHeat reads it for this machine. What cannot be read stays 0.
func readHeat() heat {
	var h heat
	h.machine, _ = measure.ReadMachine()
	files, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		h.throttled += n
	}
	return h
}

// stolenShare is how much of the processors' time other guests of the machine
// may have before a window says more about them.
const stolenShare = 0.1

// since says what has slowed this machine down since before; empty: nothing.
func (h heat) since(before heat) string {
	if n := h.throttled - before.throttled; n > 0 {
		return fmt.Sprintf("the processor was slowed down to cool %d times", n)
	}
	m := h.machine.Sub(before.machine)
	all := m.Busy + m.Idle + m.Stolen
	if share := float64(m.Stolen) / float64(max(1, all)); share > stolenShare {
		return fmt.Sprintf("other guests of this machine took %.0f %% of its processors", 100*share)
	}
	return ""
}
