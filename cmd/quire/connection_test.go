package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"quire/tritonclient/tritontest"
)

// A server that wants TLS, a certificate and a header gets them from the flags.
func TestRunWithTLSAndHeaders(t *testing.T) {
	ca := tritontest.NewAuthority(t)
	cert, key := ca.Issue("quire")
	dir := t.TempDir()
	file := func(name string, data []byte) string { return write(t, string(data), dir, name) }
	s := tritontest.Start(t, tritontest.Config{
		TLS:           ca.ServerTLS(true, "triton.test", net.IPv4(127, 0, 0, 1)),
		RestrictedKey: "team", RestrictedValue: "s3cr=et",
	})
	flags := []string{"--triton", s.Addr(), "--tls-ca", file("ca.pem", ca.PEM), "--tls-cert", file("cert.pem", cert), "--tls-key", file("key.pem", key)}
	run := append([]string{"run", examples + "/form.pdf", "-o", filepath.Join(dir, "out")}, flags...)

	code, _, stderr := call(t, run...)
	if code != exitServer || !strings.Contains(stderr, "check headers") {
		t.Errorf("without the header: exit code %d, %s", code, stderr)
	}
	t.Setenv("QUIRE_TRITON_HEADER", "triton-grpc-protocol-team=s3cr=et")
	code, stdout, stderr := call(t, run...)
	if code != exitDone || !strings.Contains(stdout, "1 done") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if code, _, stderr = call(t, append([]string{"bench", "--perf-analyzer", "true"}, flags...)...); code != exitUsage || !strings.Contains(stderr, "it is not told how") {
		t.Errorf("bench: exit code %d, %s", code, stderr)
	}
	if code, stdout, stderr = call(t, append([]string{"doctor"}, flags...)...); code == exitServer || !strings.Contains(stdout, "Triton 2.51.0") || strings.Contains(stdout, "s3cr") {
		t.Errorf("doctor: exit code %d, %s%s", code, stdout, stderr)
	}
}
