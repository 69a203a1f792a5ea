package tritonclient_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"quire/tritonclient"
)

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct {
		list   string
		single string // or, of several,
		want   []tritonclient.Endpoint
	}{
		{"gpu:8001", "gpu:8001", []tritonclient.Endpoint{{Target: "gpu:8001"}}},
		{"[::1]:8001", "[::1]:8001", []tritonclient.Endpoint{{Target: "[::1]:8001"}}},
		{"gpu:https", "gpu:https", []tritonclient.Endpoint{{Target: "gpu:https"}}}, // a port's name
		{"unix:///run/triton", "unix:///run/triton", []tritonclient.Endpoint{{Target: "unix:///run/triton"}}},
		{"unix:/run/triton", "unix:/run/triton", []tritonclient.Endpoint{{Target: "unix:/run/triton"}}},
		{"passthrough:///x", "passthrough:///x", []tritonclient.Endpoint{{Target: "passthrough:///x"}}},
		{"b:8001, a:8002", "", []tritonclient.Endpoint{{Target: "b:8001"}, {Target: "a:8002"}}},
		{"dns:///fleet:8001", "", []tritonclient.Endpoint{{Target: "10.0.0.1:8001", Host: "fleet"}, {Target: "10.0.0.2:8001", Host: "fleet"}, {Target: "[fd00::1]:8001", Host: "fleet"}}},
		{"10.0.0.2:8001,dns:///fleet:8001", "", []tritonclient.Endpoint{{Target: "10.0.0.2:8001"}, {Target: "10.0.0.1:8001", Host: "fleet"}, {Target: "[fd00::1]:8001", Host: "fleet"}}},
	} {
		e, err := tritonclient.ParseEndpoints(tt.list)
		if err != nil {
			t.Errorf("%s: %v", tt.list, err)
			continue
		}
		e.Lookup = func(_ context.Context, host string) ([]string, error) {
			if host != "fleet" {
				t.Errorf("looked up %q", host)
			}
			return []string{"fd00::1", "10.0.0.2", "10.0.0.1"}, nil
		}
		got, err := e.Resolve(t.Context())
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.list, got, err, tt.want)
		}
		if single, ok := e.Single(); single != tt.single || ok != (tt.single != "") {
			t.Errorf("%s: single is %q, %v", tt.list, single, ok)
		}
		if changing := strings.Contains(tt.list, "dns:"); e.Changing() != changing {
			t.Errorf("%s: changing is %v", tt.list, !changing)
		}
	}
	for list, says := range map[string]string{
		"":                       "address is missing",
		"a:1,":                   "address is missing",
		"gpu":                    "gpu: it is HOST:PORT",
		"a:1,a:1":                "a:1 is there twice",
		"dns:///fleet":           "dns:///NAME:PORT",
		"dns:fleet:1":            "dns:///NAME:PORT",
		"dns://8.8.8.8/fleet:1":  "dns:///NAME:PORT",
		"http://gpu:8000":        "http://gpu:8000: it is HOST:PORT without a scheme",
		"a:1,https://gpu:8001":   "TLS is --tls",
		"grpc://gpu:8001":        "without a scheme",
		"a:65536":                "a:65536: there is no port 65536",
		"a:0":                    "no port 0",
		"a:-1":                   "no port -1",
		"a:99999999999999999999": "no port 9",
		"dns:///fleet:99999":     "no port 99999",
	} {
		if _, err := tritonclient.ParseEndpoints(list); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v does not say %q", list, err, says)
		}
	}
	e, err := tritonclient.ParseEndpoints("dns:///fleet:8001")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no such host")
	for _, lookup := range []func(context.Context, string) ([]string, error){
		func(context.Context, string) ([]string, error) { return nil, broken },
		func(context.Context, string) ([]string, error) { return nil, nil },
	} {
		e.Lookup = lookup
		if got, err := e.Resolve(t.Context()); err == nil || !strings.Contains(err.Error(), "fleet") {
			t.Errorf("%v, %v", got, err)
		}
	}
}
