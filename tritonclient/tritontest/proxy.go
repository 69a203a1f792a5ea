package tritontest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy is a TCP proxy before a server. Its methods may be called from any
// goroutine.
type Proxy struct {
	target   string
	listener net.Listener
	group    sync.WaitGroup

	mu       sync.Mutex
	dropping bool
	accepted int
	links    map[*link]struct{}
}

// link is one connection through the proxy.
type link struct {
	client, server net.Conn
	dropping       bool // what comes in is thrown away, for good
}

// StartProxy starts a proxy on loopback that ends with the test.
func StartProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("tritontest: %v", err)
	}
	p := &Proxy{target: target, listener: l, links: map[*link]struct{}{}}
	p.group.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// Addr is where to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Drop makes the proxy swallow every byte in both directions, as a network does
// that loses packets: connections stay, and so does whatever is made new while
// it drops. With false, connections made from then on work; those that have lost
// bytes stay dead.
func (p *Proxy) Drop(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropping = on
	if on {
		for k := range p.links {
			k.dropping = true
		}
	}
}

// Accepted is how many connections there have been.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for k := range p.links {
		_ = k.client.Close()
		_ = k.server.Close()
	}
	p.mu.Unlock()
	p.group.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		k := &link{client: client, server: server}
		p.mu.Lock()
		k.dropping = p.dropping
		p.accepted++
		p.links[k] = struct{}{}
		p.mu.Unlock()
		var ways sync.WaitGroup
		ways.Go(func() { p.carry(k, server, client) })
		ways.Go(func() { p.carry(k, client, server) })
		p.group.Go(func() {
			ways.Wait()
			p.mu.Lock()
			delete(p.links, k)
			p.mu.Unlock()
		})
	}
}

// carry moves bytes one way until a side hangs up. A link that drops keeps its
// other side in the dark about that.
func (p *Proxy) carry(k *link, to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		dropping := k.dropping
		p.mu.Unlock()
		if n > 0 && !dropping {
			if _, err := to.Write(buffer[:n]); err != nil {
				_, _ = io.Copy(io.Discard, from)
				return
			}
		}
		if err != nil {
			if !dropping || from == k.client {
				_ = to.Close()
			}
			return
		}
	}
}
