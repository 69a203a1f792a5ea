package metrics

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// As a server with two GPUs prints it.
const text = `# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="layout",version="1"} 212
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="layout",version="1"} 3
nv_inference_pending_request_count{model="other",version="2"} 0
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.25
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.93 1395066363000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 85899345920
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 2.5e+09
nv_gpu_memory_used_bytes{gpu_uuid="GPU-b"} 1000000
nv_gpu_power_usage{gpu_uuid="GPU-a"} 301.5
nv_cpu_utilization 0.125
nv_cpu_memory_used_bytes{} 12345
`

func TestParse(t *testing.T) {
	m, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []GPU{
		{ID: "GPU-a", Utilization: 0.93, MemoryUsed: 2_500_000_000, MemoryTotal: 85899345920, Power: 301.5},
		{ID: "GPU-b", Utilization: 0.25, MemoryUsed: 1_000_000},
	}
	if !slices.Equal(m.GPUs, want) || m.CPU != 0.125 {
		t.Errorf("%+v", m)
	}
	for _, c := range []struct {
		model, version string
		n              int
		ok             bool
	}{{"layout", "1", 3, true}, {"other", "2", 0, true}, {"layout", "2", 0, false}} {
		if n, ok := m.Pending(c.model, c.version); n != c.n || ok != c.ok {
			t.Errorf("%s %s: %d, %v", c.model, c.version, n, ok)
		}
	}
	if m, err := Parse(strings.NewReader("nv_x 1\n")); err != nil || m.CPU >= 0 || m.GPUs != nil {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"", "<html></html>\n", "go_goroutines 12\n", "# nv_gpu_utilization 1\n"} {
		if m, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%q gave %+v", text, m)
		}
	}
}

func TestGauge(t *testing.T) {
	for _, c := range []struct {
		line   string
		labels string
		value  float64
		ok     bool
	}{
		{`a 1`, "map[]", 1, true},
		{`a{} 1.5`, "map[]", 1.5, true},
		{`a{b="c"} 1`, "map[b:c]", 1, true},
		{`a{b="c",d="e",} 1`, "map[b:c d:e]", 1, true},
		{`a{b="c}\" 2"} 1`, `map[b:c}" 2]`, 1, true},
		{`a{b=c} 1`, "", 0, false},
		{`a{b="c} 1`, "", 0, false},
		{`a`, "", 0, false},
		{`a x`, "", 0, false},
		{` 1`, "", 0, false},
	} {
		name, labels, value, ok := gauge(c.line)
		if ok != c.ok || ok && (name != "a" || fmt.Sprint(labels) != c.labels || value != c.value) {
			t.Errorf("%s: %q %v %v %v", c.line, name, labels, value, ok)
		}
	}
}

func TestRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	defer server.Close()
	if m, err := Read(t.Context(), server.URL+"/metrics"); err != nil || len(m.GPUs) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := Read(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(text)
	f.Add(`a{b="c`)
	f.Add("a{=\"\"} 1\n{} 1")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := Parse(strings.NewReader(text)); err == nil && !strings.Contains(text, "nv_") {
			t.Errorf("%q gave %+v", text, m)
		}
	})
}
