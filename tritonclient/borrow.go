package tritonclient

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec behind ours
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// gRPC's own codec copies a message into one buffer, tensors included. The codec
// here hands gRPC the tensors where they lie. What that costs is certainty: gRPC
// writes to the socket from a goroutine of its own (the transport's loopyWriter),
// which may still be at it when a call has been cancelled. So every tensor is
// lent out under a lease, and Infer does not return before the lease is over,
// by one of two signs:
//
//   - gRPC has dropped every reference to the tensor. That is how nearly all
//     calls end, and it is so already when the answer arrives;
//   - the call's connection has been closed by gRPC, which it does when the
//     writing goroutine has ended. A broken connection leaves references
//     undropped for ever, so the first sign alone would not do.
//
// When neither shows within settleTime (a server that stopped reading has the
// writing goroutine blocked), the connection is cut, which brings on the second.

const (
	// borrowMin is the least size of all raw inputs together for which they are
	// lent; smaller ones are copied. It has to be above the 256 KiB that gRPC
	// keeps for transparent retries: a message beyond that belongs to one
	// attempt, hence to one connection, for good.
	borrowMin = 1 << 20
	// lendMin is the least size of one input that is lent. Below 1 KiB
	// [mem.NewBuffer] would not count references.
	lendMin = 64 << 10
	// settleTime is how long after a call's end its connection may take to let
	// go of the tensors, before it is cut.
	settleTime = 200 * time.Millisecond
)

// rawInputContents is the field's number in ModelInferRequest, the last one.
const rawInputContents protowire.Number = 7

// borrowedRequest is a ModelInferRequest whose raw inputs are sent from where
// they lie.
type borrowedRequest struct {
	// message is all but the raw inputs.
	message *inferencepb.ModelInferRequest
	raw     [][]byte
	lease   lease
}

// borrow splits a message for the codec; it is nil when copying is as good.
func borrow(m *inferencepb.ModelInferRequest) *borrowedRequest {
	total := 0
	for _, raw := range m.RawInputContents {
		total += len(raw)
	}
	if total < borrowMin {
		return nil
	}
	b := &borrowedRequest{message: m, raw: m.RawInputContents, lease: lease{over: make(chan struct{})}}
	m.RawInputContents = nil
	return b
}

// marshal is the message in protobuf's wire format, in pieces: the same bytes as
// proto.Marshal with Deterministic set.
func (b *borrowedRequest) marshal() (mem.BufferSlice, error) {
	piece, err := proto.MarshalOptions{Deterministic: true}.Marshal(b.message)
	if err != nil {
		return nil, err
	}
	// Until all are made, the lease cannot end.
	b.lease.refs.Store(1)
	var pieces mem.BufferSlice
	for i := range b.raw {
		piece = protowire.AppendTag(piece, rawInputContents, protowire.BytesType)
		piece = protowire.AppendVarint(piece, uint64(len(b.raw[i])))
		if len(b.raw[i]) < lendMin {
			piece = append(piece, b.raw[i]...)
			continue
		}
		b.lease.refs.Add(1)
		pieces = append(pieces, mem.SliceBuffer(piece), mem.NewBuffer(&b.raw[i], &b.lease))
		piece = nil
	}
	if len(piece) > 0 {
		pieces = append(pieces, mem.SliceBuffer(piece))
	}
	b.lease.Put(nil)
	return pieces, nil
}

// lease is over when nothing refers to the lent tensors any more. gRPC knows it
// as the pool that their buffers return to.
type lease struct {
	refs atomic.Int32
	over chan struct{}
}

// Put takes one buffer back.
func (l *lease) Put(*[]byte) {
	if l.refs.Add(-1) == 0 {
		close(l.over)
	}
}

// Get is no part of a lease.
func (l *lease) Get(int) *[]byte { panic("tritonclient: a lease has no buffers to give") }

// lent reports whether gRPC ever got hold of the tensors.
func (b *borrowedRequest) lent() bool { return b.lease.refs.Load() != 0 || isClosed(b.lease.over) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// settle returns when the tensors are the caller's again. p is the call's peer.
func (b *borrowedRequest) settle(p *peer.Peer) {
	if !b.lent() || isClosed(b.lease.over) {
		return
	}
	address, ok := p.LocalAddr.(connAddr)
	if !ok {
		// Cannot be: what was lent was given to a stream, a stream has a
		// connection, and all connections are made by trackConns.
		<-b.lease.over
		return
	}
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-b.lease.over:
		return
	case <-address.conn.closed:
		return
	case <-timer.C:
	}
	address.conn.cut()
	select {
	case <-b.lease.over:
	case <-address.conn.closed:
	}
}

// borrowCodec is gRPC's codec for protobuf, and borrowedRequest beside it.
type borrowCodec struct{ encoding.CodecV2 }

func newBorrowCodec() borrowCodec { return borrowCodec{encoding.GetCodecV2("proto")} }

// Marshal is part of encoding.CodecV2.
func (c borrowCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(*borrowedRequest); ok {
		return b.marshal()
	}
	return c.CodecV2.Marshal(v)
}

// trackConns makes connections by dial that know when gRPC has closed them, and
// that calls can be traced to.
func trackConns(dial func(context.Context, string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		return &trackedConn{Conn: conn, closed: make(chan struct{})}, nil
	}
}

// trackedConn is a connection as gRPC's transport holds it.
type trackedConn struct {
	net.Conn
	closeOnce sync.Once
	closed    chan struct{}
}

// connAddr is a local address that leads to its connection: gRPC tells a call's
// local address, and nothing else that would tell connections apart.
type connAddr struct {
	net.Addr
	conn *trackedConn
}

// LocalAddr is part of net.Conn.
func (c *trackedConn) LocalAddr() net.Addr { return connAddr{c.Conn.LocalAddr(), c} }

// Close is called by gRPC's transport, and only by it, when its writing
// goroutine has ended; or when that has been blocked in Write for 5 s, which
// ends it here: a failed Write is its last act.
func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.closeOnce.Do(func() { close(c.closed) })
	return err
}

// cut breaks the connection, on which gRPC's transport will close it.
func (c *trackedConn) cut() { _ = c.Conn.Close() }
