// Package metrics reads what a Triton server tells on its metrics port, in the
// text format of Prometheus: what the gRPC API does not have.
package metrics

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// timeout bounds one look; maxBytes what is taken from a server.
const (
	timeout  = 2 * time.Second
	maxBytes = 16 << 20
)

// Metrics are the gauges of a server at one moment.
type Metrics struct {
	// GPUs are in the order of their ids; none for a server without, or without
	// NVIDIA's library for them.
	GPUs []GPU
	// CPU is the share of the machine's processor time that is in use, 0 to 1;
	// negative when the server does not tell.
	CPU     float64
	pending map[[2]string]int
}

// GPU is one GPU of a server's.
type GPU struct {
	ID string
	// Utilization is the share of time in which it computes, 0 to 1.
	Utilization float64
	// MemoryUsed and MemoryTotal are in bytes, whoever uses it.
	MemoryUsed, MemoryTotal int64
	// Power is in watts.
	Power float64
}

// Pending is how many requests wait for execution in a model's queue; not ok when
// the server does not tell.
func (m Metrics) Pending(model, version string) (n int, ok bool) {
	n, ok = m.pending[[2]string{model, version}]
	return n, ok
}

// Read reads the metrics at a URL, usually http://HOST:8002/metrics. It takes two
// seconds at most.
func Read(ctx context.Context, url string) (Metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Metrics{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return Metrics{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Metrics{}, fmt.Errorf("%s: %s: is it the server's metrics port?", url, response.Status)
	}
	m, err := Parse(io.LimitReader(response.Body, maxBytes))
	if err != nil {
		return Metrics{}, fmt.Errorf("%s: %w", url, err)
	}
	return m, nil
}

// Parse reads metrics in the text format of Prometheus. Lines that it does not
// know are passed over; it is an error when nothing in it is Triton's.
func Parse(text io.Reader) (Metrics, error) {
	m := Metrics{CPU: -1, pending: map[[2]string]int{}}
	gpus := map[string]*GPU{}
	triton := false
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, labels, value, ok := gauge(lines.Text())
		if !ok || !strings.HasPrefix(name, "nv_") {
			continue
		}
		triton = true
		gpu := func() *GPU {
			id := labels["gpu_uuid"]
			if gpus[id] == nil {
				gpus[id] = &GPU{ID: id}
			}
			return gpus[id]
		}
		switch name {
		case "nv_gpu_utilization":
			gpu().Utilization = value
		case "nv_gpu_memory_used_bytes":
			gpu().MemoryUsed = int64(value)
		case "nv_gpu_memory_total_bytes":
			gpu().MemoryTotal = int64(value)
		case "nv_gpu_power_usage":
			gpu().Power = value
		case "nv_cpu_utilization":
			m.CPU = value
		case "nv_inference_pending_request_count":
			m.pending[[2]string{labels["model"], labels["version"]}] = int(value)
		}
	}
	if err := lines.Err(); err != nil {
		return Metrics{}, err
	}
	if !triton {
		return Metrics{}, fmt.Errorf("nothing there is a metric of Triton's")
	}
	for _, id := range slices.Sorted(maps.Keys(gpus)) {
		m.GPUs = append(m.GPUs, *gpus[id])
	}
	return m, nil
}

// gauge reads a line `name{label="value",…} number`.
func gauge(line string) (name string, labels map[string]string, value float64, ok bool) {
	end := strings.IndexAny(line, "{ ")
	if end <= 0 || line[0] == '#' {
		return "", nil, 0, false
	}
	name, rest := line[:end], line[end:]
	labels = map[string]string{}
	if inside, labelled := strings.CutPrefix(rest, "{"); labelled {
		for rest = inside; ; {
			rest = strings.TrimLeft(rest, ", ")
			if after, closed := strings.CutPrefix(rest, "}"); closed {
				rest = after
				break
			}
			key, after, _ := strings.Cut(rest, "=")
			quoted, err := strconv.QuotedPrefix(after)
			if err != nil {
				return "", nil, 0, false
			}
			labels[key], _ = strconv.Unquote(quoted)
			rest = after[len(quoted):]
		}
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return "", nil, 0, false
	}
	value, err := strconv.ParseFloat(fields[0], 64) // a time may follow
	return name, labels, value, err == nil
}
