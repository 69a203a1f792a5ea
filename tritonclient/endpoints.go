package tritonclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/resolver"
)

// Endpoint is the address of one server.
type Endpoint struct {
	// Target is the address as New takes it.
	Target string
	// Host is the name that Target was found under, for the server's
	// certificate; empty when Target is what somebody wrote.
	Host string
}

// Secure is how to connect to the endpoint: config, whose TLS, if it names no
// server, expects a certificate for Host.
func (e Endpoint) Secure(config Config) Config {
	if t := config.TLS; t != nil && t.ServerName == "" && e.Host != "" {
		named := *t
		named.ServerName = e.Host
		config.TLS = &named
	}
	return config
}

// Endpoints are servers as people name them: "a:8001,b:8001", or
// "dns:///name:8001" for every address that the name has, or both.
type Endpoints struct {
	entries []string
	// Lookup gives the addresses of a host, for tests; nil is the system's
	// resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
}

// everyAddress begins an entry that stands for every address of its name.
const everyAddress = "dns:///"

// ParseEndpoints reads a list.
func ParseEndpoints(list string) (Endpoints, error) {
	var e Endpoints
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		rest, all := strings.CutPrefix(entry, everyAddress)
		if entry == "" {
			return Endpoints{}, errors.New("an address is missing: servers are HOST:PORT, several with commas")
		}
		if slices.Contains(e.entries, entry) {
			return Endpoints{}, fmt.Errorf("%s is there twice", entry)
		}
		host, port, err := net.SplitHostPort(rest)
		scheme, _, schemed := strings.Cut(entry, "://")
		switch {
		case strings.HasPrefix(entry, "dns:") && !all:
			return Endpoints{}, fmt.Errorf("%s: names are given as dns:///NAME:PORT", entry)
		case all && (err != nil || host == "" || port == ""):
			return Endpoints{}, fmt.Errorf("%s: it is dns:///NAME:PORT (Triton's gRPC port is 8001 by default)", entry)
		case strings.HasPrefix(entry, "unix:"), !all && schemed && resolver.Get(scheme) != nil:
			// gRPC's own ways to name a server.
		case !all && schemed:
			return Endpoints{}, fmt.Errorf("%s: it is HOST:PORT without a scheme (Triton's gRPC port is 8001 by default; TLS is --tls)", entry)
		case err != nil || port == "":
			return Endpoints{}, fmt.Errorf("%s: it is HOST:PORT (Triton's gRPC port is 8001 by default)", entry)
		case !portOrName(port):
			return Endpoints{}, fmt.Errorf("%s: there is no port %s: ports are 1 to 65535 (Triton's gRPC port is 8001 by default)", entry, port)
		}
		e.entries = append(e.entries, entry)
	}
	return e, nil
}

// portOrName tells whether a port is one, or may be a name of one.
func portOrName(port string) bool {
	n, err := strconv.Atoi(port)
	if errors.Is(err, strconv.ErrSyntax) {
		return true
	}
	return err == nil && n >= 1 && n <= 65535
}

// Single gives the target when there is one server and there will be no other.
func (e Endpoints) Single() (target string, ok bool) {
	if len(e.entries) != 1 || e.Changing() {
		return "", false
	}
	return e.entries[0], true
}

// Changing reports whether Resolve may give other servers another time.
func (e Endpoints) Changing() bool {
	return slices.ContainsFunc(e.entries, func(s string) bool { return strings.HasPrefix(s, everyAddress) })
}

// Resolve gives the servers that there are now, each once, those of one name in
// the order of their addresses. A name that cannot be looked up is an error.
func (e Endpoints) Resolve(ctx context.Context) ([]Endpoint, error) {
	lookup := e.Lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	var found []Endpoint
	add := func(one Endpoint) {
		if !slices.ContainsFunc(found, func(f Endpoint) bool { return f.Target == one.Target }) {
			found = append(found, one)
		}
	}
	for _, entry := range e.entries {
		name, all := strings.CutPrefix(entry, everyAddress)
		if !all {
			add(Endpoint{Target: entry})
			continue
		}
		host, port, err := net.SplitHostPort(name)
		if err != nil {
			return nil, err
		}
		addresses, err := lookup(ctx, host)
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", host, err)
		}
		if len(addresses) == 0 {
			return nil, fmt.Errorf("look up %s: it has no address", host)
		}
		slices.Sort(addresses)
		for _, address := range addresses {
			add(Endpoint{Target: net.JoinHostPort(address, port), Host: host})
		}
	}
	return found, nil
}
