package bench

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// perfAnalyzer has NVIDIA's perf_analyzer load the server as our own load does:
// the same model, batch, requests under way and way in, pixels of any kind.
func (b *bench) perfAnalyzer(ctx context.Context) (*PerfAnalyzer, error) {
	dir, err := os.MkdirTemp("", "quire-perf-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	table := filepath.Join(dir, "perf.csv")
	info := b.cfg.Engine.Model.Info()
	args := []string{
		"-m", info.Name, "-x", info.Version, "-u", b.cfg.Client.Target(), "-i", "grpc",
		"-b", strconv.Itoa(b.settings.Batch), "--concurrency-range", strconv.Itoa(b.settings.InFlight), "--input-data", "random",
		"-p", strconv.FormatInt(b.cfg.MinTime.Milliseconds(), 10),
		// Three windows, whatever they say: whether they agree is not the question.
		"-r", "3", "-s", "1000", "-f", table,
	}
	if b.shared() && b.cfg.Server != nil {
		// Only at a server of our own: it has the server forget all regions of
		// all clients. Ours are registered again by themselves.
		args = append(args, "--shared-memory", "system", "--output-shared-memory-size", strconv.Itoa(b.settings.Batch*largestOutput))
	}
	cmd := exec.CommandContext(ctx, b.cfg.PerfAnalyzer, args...)
	said, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err == nil {
		var text []byte
		if text, err = os.ReadFile(table); err == nil {
			return parsePerf(string(text))
		}
	}
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	return nil, fmt.Errorf("%s: %w: %s", b.cfg.PerfAnalyzer, err, lines[len(lines)-1])
}

// largestOutput is more than any output of a layout model has for one page.
const largestOutput = 64 << 10

// parsePerf reads perf_analyzer's table, of one line below its heads.
func parsePerf(text string) (*PerfAnalyzer, error) {
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) < 2 {
		return nil, errors.Join(errors.New("perf_analyzer: its table has no line"), err)
	}
	column := slices.Index(rows[0], "Inferences/Second")
	if column < 0 {
		return nil, fmt.Errorf("perf_analyzer: its table has no Inferences/Second but %s", strings.Join(rows[0], ", "))
	}
	rate, err := strconv.ParseFloat(rows[1][column], 64)
	if err != nil {
		return nil, fmt.Errorf("perf_analyzer: Inferences/Second: %w", err)
	}
	return &PerfAnalyzer{PagesPerSecond: rate}, nil
}
