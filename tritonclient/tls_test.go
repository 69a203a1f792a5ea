package tritonclient_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

func TestTLS(t *testing.T) {
	ca, other := tritontest.NewAuthority(t), tritontest.NewAuthority(t)
	loopback := net.IPv4(127, 0, 0, 1)
	server := tritontest.Start(t, tritontest.Config{TLS: ca.ServerTLS(false, "triton.test", loopback)})
	mutual := tritontest.Start(t, tritontest.Config{TLS: ca.ServerTLS(true, "triton.test")})
	plain := tritontest.Start(t, tritontest.Config{})
	cert, key := ca.Issue("quire")
	otherCert, otherKey := other.Issue("quire")

	for _, test := range []struct {
		name   string
		server *tritontest.Server
		tls    *tritonclient.TLS
		// want is Other for a call that goes through.
		want tritonclient.Kind
	}{
		{"by address", server, &tritonclient.TLS{CA: ca.PEM}, tritonclient.Other},
		{"by name", server, &tritonclient.TLS{CA: ca.PEM, ServerName: "triton.test"}, tritonclient.Other},
		{"another name", server, &tritonclient.TLS{CA: ca.PEM, ServerName: "other.test"}, tritonclient.Restricted},
		{"another authority", server, &tritonclient.TLS{CA: other.PEM}, tritonclient.Restricted},
		{"the system's authorities", server, &tritonclient.TLS{}, tritonclient.Restricted},
		{"a certificate nobody asked for", server, &tritonclient.TLS{CA: ca.PEM, Cert: cert, Key: key}, tritonclient.Other},
		{"TLS to plaintext", plain, &tritonclient.TLS{CA: ca.PEM}, tritonclient.Restricted},
		{"plaintext to TLS", server, nil, tritonclient.Unavailable},
		{"mutual", mutual, &tritonclient.TLS{CA: ca.PEM, Cert: cert, Key: key, ServerName: "triton.test"}, tritonclient.Other},
	} {
		c := connect(t, test.server, tritonclient.Config{TLS: test.tls})
		live, err := c.ServerLive(t.Context())
		switch {
		case test.want == tritonclient.Other:
			if err != nil || !live {
				t.Errorf("%s: %v, %v", test.name, live, err)
			}
		case err == nil:
			t.Errorf("%s: no error", test.name)
		case tritonclient.KindOf(err) != test.want:
			t.Errorf("%s: %v is %s, want %s", test.name, err, tritonclient.KindOf(err), test.want)
		}
	}

	// A client without the right certificate is turned away; in TLS 1.3 it
	// learns that after its own handshake has ended, as a broken connection or
	// an alert, whichever arrives first.
	for name, side := range map[string]*tritonclient.TLS{
		"mutual without a certificate": {CA: ca.PEM, ServerName: "triton.test"},
		"mutual with a strange one":    {CA: ca.PEM, ServerName: "triton.test", Cert: otherCert, Key: otherKey},
	} {
		_, err := connect(t, mutual, tritonclient.Config{TLS: side}).ServerLive(t.Context())
		if kind := tritonclient.KindOf(err); err == nil || kind != tritonclient.Restricted && kind != tritonclient.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(mutual.Calls("")); n != 1 {
		t.Errorf("%d calls reached the mutual server, want the one with a certificate", n)
	}
}

func TestReadTLS(t *testing.T) {
	ca := tritontest.NewAuthority(t)
	cert, key := ca.Issue("quire")
	dir := t.TempDir()
	paths := map[string]string{}
	for name, data := range map[string][]byte{"ca": ca.PEM, "cert": cert, "key": key} {
		paths[name] = filepath.Join(dir, name+".pem")
		if err := os.WriteFile(paths[name], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	side, err := tritonclient.ReadTLS(paths["ca"], paths["cert"], paths["key"], "triton.test")
	if err != nil {
		t.Fatal(err)
	}
	s := tritontest.Start(t, tritontest.Config{TLS: ca.ServerTLS(true, "triton.test")})
	if live, err := connect(t, s, tritonclient.Config{TLS: side}).ServerLive(t.Context()); err != nil || !live {
		t.Errorf("%v, %v", live, err)
	}
	if _, err := tritonclient.ReadTLS(filepath.Join(dir, "nope.pem"), "", "", ""); err == nil {
		t.Error("a file that is not there was read")
	}
	if _, err := tritonclient.ReadTLS(paths["key"], "", "", ""); err == nil || !strings.Contains(err.Error(), paths["key"]) {
		t.Errorf("a key for a certificate: %v", err)
	}
	if _, err := tritonclient.ReadTLS("", paths["ca"], paths["key"], ""); err == nil || !strings.Contains(err.Error(), paths["ca"]) {
		t.Errorf("another certificate's key: %v", err)
	}
	if side, err := tritonclient.ReadTLS("", "", "", ""); err != nil || side.CA != nil {
		t.Errorf("no files: %v, %v", side, err)
	}
}
