package tune

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// metricsTimeout bounds one look at a server's metrics.
const metricsTimeout = 2 * time.Second

// The metrics of Triton's that tell of GPUs, one line for each GPU.
const (
	metricUtilization = "nv_gpu_utilization"
	metricMemory      = "nv_gpu_memory_used_bytes"
)

// ReadGPU reads what the server's metrics at url (http://HOST:8002/metrics) say
// of its GPUs. It is an error when they say nothing.
func ReadGPU(ctx context.Context, url string) (GPU, error) {
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return GPU{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return GPU{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return GPU{}, fmt.Errorf("%s: %s", url, res.Status)
	}
	var g GPU
	found := 0
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		// name{labels} value, in the text format of Prometheus.
		name, _, _ := strings.Cut(lines.Text(), "{")
		if name != metricUtilization && name != metricMemory {
			continue
		}
		value, err := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
		if err != nil {
			continue
		}
		found++
		if name == metricMemory {
			g.Memory += int64(value)
		} else {
			g.Utilization = max(g.Utilization, value)
		}
	}
	if err := lines.Err(); err != nil {
		return GPU{}, err
	}
	if found == 0 {
		return GPU{}, fmt.Errorf("%s has no GPU in it", url)
	}
	return g, nil
}
