package tritonclient_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

func TestNewDoesNoIO(t *testing.T) {
	dialled := make(chan struct{}, 1)
	c, err := tritonclient.New("127.0.0.1:1", tritonclient.Config{Dial: func(context.Context, string) (net.Conn, error) {
		dialled <- struct{}{}
		return nil, errors.New("no network")
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case <-dialled:
		t.Error("New dialled")
	default:
	}
	_, err = c.ServerLive(t.Context())
	wantKind(t, err, tritonclient.Unavailable)
	if !strings.Contains(err.Error(), "no network") {
		t.Errorf("%v does not tell why", err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	_, err = c.ServerLive(t.Context())
	wantKind(t, err, tritonclient.Unavailable)
}

// TestRealDialer connects with the client's own dialer, by TCP and by a Unix
// socket.
func TestRealDialer(t *testing.T) {
	ctx := t.Context()
	s := tritontest.Start(t, tritontest.Config{})
	unixPath := filepath.Join(t.TempDir(), "t.sock")
	l, err := net.Listen("unix", unixPath)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	forwarded := make(chan struct{})
	go func() { // one connection, handed on to the server
		defer close(forwarded)
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := s.Dial(ctx, "")
		if err != nil {
			return
		}
		pipe(in, out)
	}()
	for _, target := range []string{s.Addr(), "passthrough:///" + s.Addr(), "unix:" + unixPath, "unix://" + unixPath} {
		c, err := tritonclient.New(target, tritonclient.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if target == "unix://"+unixPath {
			// Only one connection is forwarded; this one only has to arrive.
			l.Close()
			_, err = c.ServerLive(ctx)
			wantKind(t, err, tritonclient.Unavailable)
			if !strings.Contains(err.Error(), unixPath) {
				t.Errorf("%v does not name the socket", err)
			}
		} else if live, err := c.ServerLive(ctx); err != nil || !live {
			t.Errorf("%s: %v, %v", target, live, err)
		}
		_ = c.Close()
	}
	<-forwarded
}

func TestConfigIsChecked(t *testing.T) {
	for name, config := range map[string]tritonclient.Config{
		"CallTimeout":     {CallTimeout: -1},
		"InferTimeout":    {InferTimeout: -1},
		"LoadTimeout":     {LoadTimeout: -1},
		"ConnectTimeout":  {ConnectTimeout: -1},
		"MaxBackoff":      {MaxBackoff: -1},
		"MaxReceiveBytes": {MaxReceiveBytes: -1},
		"two words":       {Headers: map[string]string{"two words": "x"}},
		"grpc-encoding":   {Headers: map[string]string{"grpc-encoding": "x"}},
		"no name":         {Headers: map[string]string{"": "x"}},
		"auth":            {Headers: map[string]string{"auth": "line\nbreak"}},
		"TLS.CA":          {TLS: &tritonclient.TLS{CA: []byte("nonsense")}},
		"TLS.Key":         {TLS: &tritonclient.TLS{Cert: []byte("x")}},
		"TLS.Cert and":    {TLS: &tritonclient.TLS{Cert: []byte("x"), Key: []byte("y")}},
	} {
		_, err := tritonclient.New("h:1", config)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "break") {
			t.Errorf("the error tells a header's value: %v", err)
		}
	}
	if _, err := tritonclient.New("", tritonclient.Config{}); err == nil {
		t.Error("a client of no server")
	}
}

// pipe copies both ways until both sides have ended.
func pipe(a, b net.Conn) {
	var both sync.WaitGroup
	for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(p[0], p[1])
			_ = p[0].Close()
		})
	}
	both.Wait()
}
