package tritonclient_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.pem = a.sign(template, template, a.key, a.key)
	return a
}

// issue makes a certificate and key for a name, both PEM.
func (a *authority) issue(name string, ips ...net.IP) (cert, key []byte) {
	a.t.Helper()
	k := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: ips,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	_, cert = a.sign(template, a.cert, k, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (a *authority) sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serverTLS is the server's side; with mutual it wants a client's certificate.
func (a *authority) serverTLS(mutual bool, name string, ips ...net.IP) *tls.Config {
	a.t.Helper()
	cert, key := a.issue(name, ips...)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if mutual {
		c.ClientCAs = x509.NewCertPool()
		c.ClientCAs.AddCert(a.cert)
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	loopback := net.IPv4(127, 0, 0, 1)
	server := tritontest.Start(t, tritontest.Config{TLS: ca.serverTLS(false, "triton.test", loopback)})
	mutual := tritontest.Start(t, tritontest.Config{TLS: ca.serverTLS(true, "triton.test")})
	plain := tritontest.Start(t, tritontest.Config{})
	cert, key := ca.issue("quire")
	otherCert, otherKey := other.issue("quire")

	for _, test := range []struct {
		name   string
		server *tritontest.Server
		tls    *tritonclient.TLS
		// want is Other for a call that goes through.
		want tritonclient.Kind
	}{
		{"by address", server, &tritonclient.TLS{CA: ca.pem}, tritonclient.Other},
		{"by name", server, &tritonclient.TLS{CA: ca.pem, ServerName: "triton.test"}, tritonclient.Other},
		{"another name", server, &tritonclient.TLS{CA: ca.pem, ServerName: "other.test"}, tritonclient.Restricted},
		{"another authority", server, &tritonclient.TLS{CA: other.pem}, tritonclient.Restricted},
		{"the system's authorities", server, &tritonclient.TLS{}, tritonclient.Restricted},
		{"a certificate nobody asked for", server, &tritonclient.TLS{CA: ca.pem, Cert: cert, Key: key}, tritonclient.Other},
		{"TLS to plaintext", plain, &tritonclient.TLS{CA: ca.pem}, tritonclient.Restricted},
		{"plaintext to TLS", server, nil, tritonclient.Unavailable},
		{"mutual", mutual, &tritonclient.TLS{CA: ca.pem, Cert: cert, Key: key, ServerName: "triton.test"}, tritonclient.Other},
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
		"mutual without a certificate": {CA: ca.pem, ServerName: "triton.test"},
		"mutual with a strange one":    {CA: ca.pem, ServerName: "triton.test", Cert: otherCert, Key: otherKey},
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
	ca := newAuthority(t)
	cert, key := ca.issue("quire")
	dir := t.TempDir()
	paths := map[string]string{}
	for name, data := range map[string][]byte{"ca": ca.pem, "cert": cert, "key": key} {
		paths[name] = filepath.Join(dir, name+".pem")
		if err := os.WriteFile(paths[name], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	side, err := tritonclient.ReadTLS(paths["ca"], paths["cert"], paths["key"], "triton.test")
	if err != nil {
		t.Fatal(err)
	}
	s := tritontest.Start(t, tritontest.Config{TLS: ca.serverTLS(true, "triton.test")})
	if live, err := connect(t, s, tritonclient.Config{TLS: side}).ServerLive(t.Context()); err != nil || !live {
		t.Errorf("%v, %v", live, err)
	}
	if _, err := tritonclient.ReadTLS(filepath.Join(dir, "nope.pem"), "", "", ""); err == nil {
		t.Error("a file that is not there was read")
	}
	if side, err := tritonclient.ReadTLS("", "", "", ""); err != nil || side.CA != nil {
		t.Errorf("no files: %v, %v", side, err)
	}
}
