package main

import (
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// scrape reads the metrics that a run serves, by name and labels.
func scrape(t *testing.T, url string) map[string]float64 {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", r.Status, err)
	}
	found := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(quire_\S+) (\S+)$`).FindAllStringSubmatch(string(body), -1) {
		if found[m[1]], err = strconv.ParseFloat(m[2], 64); err != nil {
			t.Errorf("%s: %v", m[0], err)
		}
	}
	return found
}

// While a run goes on its metrics tell what is done, and of one that goes on with
// another what was resumed.
func TestRunServesMetrics(t *testing.T) {
	server := instantServer(t, 100)
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	makeOdd(t, "--long", filepath.Join(in, "long.pdf"), "120")
	run := func() (*program, string) {
		p := start(t, nil, "run", in, "-o", out, "--triton", server.Addr(), "--batch", "2", "--metrics", ":0")
		_, url, _ := strings.Cut(p.until("metrics at http://127.0.0.1:"), "metrics at ")
		return p, url
	}
	p, url := run()
	var m map[string]float64
	p.await("pages in the metrics", func() bool {
		m = scrape(t, url)
		return m[`quire_pages_total{status="done"}`] >= 8
	})
	if m["quire_pages_known"] != 120 || m["quire_requests_window"] < 1 || m["quire_pages_resumed_total"] != 0 || m[`quire_batches_total{sealed_by="size"}`] < 4 {
		t.Errorf("%v", m)
	}
	p.signal(syscall.SIGKILL)
	p.wait()
	p, url = run()
	p.await("resumed pages in the metrics", func() bool { m = scrape(t, url); return m["quire_pages_resumed_total"] > 0 })
	resumed := m["quire_pages_resumed_total"]
	if code := p.wait(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if a := p.accounts(); float64(a.resumed) != resumed {
		t.Errorf("the metrics said that %v pages were resumed, the account %d", resumed, a.resumed)
	}

	if code, _, stderr := call(t, "run", in, "-o", out, "--triton", server.Addr(), "--metrics", server.Addr()); code != exitUsage || !strings.Contains(stderr, "--metrics: cannot listen at "+server.Addr()) {
		t.Errorf("at an address that is taken: code %d, %s", code, stderr)
	}
}
