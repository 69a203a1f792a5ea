package tritonclient_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

// short makes a client notice in a fraction of a second what takes it 20 s.
var short = tritonclient.Config{Silence: 50 * time.Millisecond, CallTimeout: 100 * time.Millisecond, ConnectTimeout: 100 * time.Millisecond, MaxBackoff: 20 * time.Millisecond}

// viaProxy gives a server with a proxy before it and a client of the proxy.
func viaProxy(t *testing.T) (*tritontest.Server, *tritontest.Proxy, *tritonclient.Client) {
	t.Helper()
	s := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(height, width, 8)}})
	p := tritontest.StartProxy(t, s.Addr())
	c, err := tritonclient.New(p.Addr(), short)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, p, c
}

// TestHalfOpenConnection has the network swallow everything while a request is
// under way. TCP sees nothing amiss, since the proxy's kernel goes on answering.
func TestHalfOpenConnection(t *testing.T) {
	s, p, c := viaProxy(t)
	s.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Method == "ModelInfer" && call.Index == 0 {
			p.Drop(true)
		}
		return tritontest.Fault{}
	})
	_, err := c.Infer(t.Context(), request(1))
	wantKind(t, err, tritonclient.Unavailable)
	if e, ok := errors.AsType[*tritonclient.Error](err); !ok || e.Lost {
		t.Errorf("%v: nothing tells that the server died of it", err)
	}
	// While it lasts a new connection is of no use either; after that a client
	// that waits finds its way by itself.
	waited := make(chan error)
	go func() { waited <- c.WaitModelReady(t.Context(), "layout", "", nil) }()
	for p.Accepted() < 2 {
		select {
		case err := <-waited:
			t.Fatalf("ready over a dead connection, %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	p.Drop(false)
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	res, err := c.Infer(t.Context(), request(2))
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, res, 2)
}

// TestWaitingOverADeadConnection: the connection dies while nothing is under
// way. Whoever waits for the server is not kept by it.
func TestWaitingOverADeadConnection(t *testing.T) {
	_, p, c := viaProxy(t)
	if err := c.WaitModelReady(t.Context(), "layout", "", nil); err != nil {
		t.Fatal(err)
	}
	p.Drop(true)
	p.Drop(false) // the one that was there stays dead
	if err := c.WaitModelReady(t.Context(), "layout", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Infer(t.Context(), request(1)); err != nil {
		t.Error(err)
	}
}

// TestSilentConnectionIsCut: what comes after a request whose server is gone does
// not go to the same connection.
func TestSilentConnectionIsCut(t *testing.T) {
	s, p, c := viaProxy(t)
	s.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Method == "ModelInfer" && call.Index == 0 {
			p.Drop(true)
		}
		return tritontest.Fault{}
	})
	silent := func(err error) bool { return err != nil && strings.Contains(err.Error(), "no sign of life within") }
	_, err := c.Infer(t.Context(), request(1))
	if wantKind(t, err, tritonclient.Unavailable); !silent(err) {
		t.Errorf("it says %v", err)
	}
	p.Drop(false) // the one that was there stays dead
	for {
		if _, err = c.Infer(t.Context(), request(1)); err == nil {
			return
		}
		// Until gRPC has taken notice it fails at once.
		if wantKind(t, err, tritonclient.Unavailable); silent(err) && p.Accepted() < 2 {
			t.Fatal("the dead connection was asked again")
		}
	}
}

// TestSignsOfLife: whatever a server answers when it is asked whether it lives, it
// does; and one that is not to be asked is not.
func TestSignsOfLife(t *testing.T) {
	for _, asked := range []bool{true, false} {
		cfg := tritonclient.Config{Silence: short.Silence}
		if !asked {
			cfg.Silence = -1
		}
		s, c := start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(height, width, 8)}}, cfg)
		answer := make(chan struct{})
		s.Script(func(call *tritontest.Call) tritontest.Fault {
			if call.Method == "ModelInfer" {
				return tritontest.Fault{Hold: answer}
			}
			return tritontest.Fail(codes.Unimplemented, "unknown method")
		})
		go func() {
			most, calls := t.Context(), 5
			if !asked { // as long as it would take to be asked several times
				var cancel context.CancelFunc
				most, cancel = context.WithTimeout(most, 4*short.Silence)
				defer cancel()
				calls = 1
			}
			_ = s.WaitCalls(most, "ServerLive", calls)
			close(answer)
		}()
		res, err := c.Infer(t.Context(), request(3))
		if err != nil {
			t.Fatal(err)
		}
		checkPages(t, res, 3)
		if n := len(s.Calls("ServerLive")); n > 0 != asked {
			t.Errorf("it was asked %d times whether it lives", n)
		}
	}
}

// TestSlowIsNotSilent: a server that takes its time and says that it lives is
// waited for.
func TestSlowIsNotSilent(t *testing.T) {
	s, _, c := viaProxy(t)
	answer := make(chan struct{})
	s.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Method == "ModelInfer" {
			return tritontest.Fault{Hold: answer}
		}
		return tritontest.Fault{}
	})
	go func() {
		_ = s.WaitCalls(t.Context(), "ServerLive", 4)
		close(answer)
	}()
	res, err := c.Infer(t.Context(), request(3))
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, res, 3)
}

// TestLostInFlight tells requests that a server took with it from those that it
// never had.
func TestLostInFlight(t *testing.T) {
	const h, w = 800, 608 // four pages are lent to gRPC, not copied
	for _, n := range []int{1, 4} {
		s, c := start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(h, w, 4)}}, tritonclient.Config{MaxBackoff: 20 * time.Millisecond})
		req := &tritonclient.InferRequest{Model: "layout", Inputs: []tritonclient.Input{
			{Name: "pages", Datatype: "UINT8", Shape: []int64{int64(n), h, w, 3}, Raw: make([]byte, n*h*w*3)},
		}}
		wantLost := func(when string, want bool) {
			t.Helper()
			_, err := c.Infer(t.Context(), req)
			wantKind(t, err, tritonclient.Unavailable)
			if e, ok := errors.AsType[*tritonclient.Error](err); !ok || e.Lost != want {
				t.Errorf("%d pages, %s: %v: Lost is %v", n, when, err, !want)
			}
		}
		s.Script(func(*tritontest.Call) tritontest.Fault { return tritontest.Stopping() })
		wantLost("while it stops", false)
		s.Script(func(*tritontest.Call) tritontest.Fault {
			go s.Disconnect()
			return tritontest.Fault{Hang: true}
		})
		wantLost("that died of it", true)
		s.Script(nil)
		s.Stop()
		wantLost("that is not there", false)
	}
}
