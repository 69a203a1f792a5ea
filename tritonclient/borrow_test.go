package tritonclient

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// FuzzBorrowedRequest compares the codec with proto.Marshal, byte for byte, and
// counts that every reference is given back.
func FuzzBorrowedRequest(f *testing.F) {
	for _, m := range []*inferencepb.ModelInferRequest{
		{},
		{ModelName: "layout", ModelVersion: "1", Id: "a.pdf page 7"},
		{
			ModelName:  "layout",
			Parameters: map[string]*inferencepb.InferParameter{"timeout": intParameter(-1), "a": stringParameter("b"), "c": {}},
			Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{{
				Name: "pages", Datatype: "UINT8", Shape: []int64{4, 800, 608, 3},
				Parameters: map[string]*inferencepb.InferParameter{"shared_memory_region": stringParameter("r"), "shared_memory_byte_size": intParameter(9)},
			}},
			Outputs: []*inferencepb.ModelInferRequest_InferRequestedOutputTensor{{Name: "boxes"}, {Name: "scores"}},
		},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for _, sizes := range [][3]uint32{{0, 0, 0}, {borrowMin, 0, 0}, {borrowMin - 1, 1, 0}, {lendMin, lendMin - 1, borrowMin}, {5, borrowMin + 127, 200}} {
			f.Add(data, sizes[0], sizes[1], sizes[2])
		}
	}
	content := make([]byte, 2*borrowMin)
	for i := range content {
		content[i] = byte(i ^ i>>8 ^ i>>16)
	}
	codec := newBorrowCodec()
	f.Fuzz(func(t *testing.T, data []byte, a, b, c uint32) {
		m := &inferencepb.ModelInferRequest{}
		if proto.Unmarshal(data, m) != nil || len(m.ProtoReflect().GetUnknown()) > 0 {
			// Unknown fields go last, behind the tensors; Infer makes none.
			return
		}
		for _, size := range []uint32{a, b, c} {
			n := size % uint32(len(content))
			// No more room than bytes: by that gRPC tells what it counts references of.
			m.RawInputContents = append(m.RawInputContents, content[:n:n])
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		borrowed := borrow(m)
		if borrowed == nil {
			return
		}
		if borrowed.lent() {
			t.Fatal("lent before it was marshalled")
		}
		pieces, err := codec.Marshal(borrowed)
		if err != nil {
			t.Fatal(err)
		}
		lent := 0
		for _, raw := range borrowed.raw {
			if len(raw) >= lendMin {
				lent++
			}
		}
		if isClosed(borrowed.lease.over) != (lent == 0) || !borrowed.lent() {
			t.Fatalf("%d inputs lent, the lease over: %v", lent, isClosed(borrowed.lease.over))
		}
		if got := pieces.Materialize(); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes in %d pieces, proto.Marshal has %d", len(got), len(pieces), len(want))
		}
		pieces.Ref()
		pieces.Free()
		if lent > 0 && isClosed(borrowed.lease.over) {
			t.Fatal("the lease is over while references are held")
		}
		pieces.Free()
		if !isClosed(borrowed.lease.over) {
			t.Fatal("the lease is not over when all references are dropped")
		}
	})
}

// closedConn knows when it was closed first.
type closedConn struct {
	net.Conn
	start  time.Time
	once   sync.Once
	closed time.Duration // 0: never
	of     *trackedConn
	early  bool // it was told of before
}

func (c *closedConn) Close() error {
	c.once.Do(func() { c.closed, c.early = time.Since(c.start), isClosed(c.of.closed) })
	return nil
}

// A call waits for its tensors until gRPC has dropped them or closed the call's
// connection, and cuts that only when neither has come in time: others' requests
// are on it, too.
func TestSettle(t *testing.T) {
	for _, tt := range []struct {
		name            string
		dropped, closed time.Duration // 0: never
		returns, cut    time.Duration
	}{
		{"dropped in time", settleTime / 2, 0, settleTime / 2, 0},
		{"closed in time", 0, settleTime / 2, settleTime / 2, settleTime / 2},
		{"cut, and dropped", 2 * settleTime, 0, 2 * settleTime, settleTime},
		{"cut, and closed", 0, 2 * settleTime, 2 * settleTime, settleTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw := &closedConn{start: time.Now()}
				conn := &trackedConn{Conn: raw, closed: make(chan struct{})}
				raw.of = conn
				b := &borrowedRequest{lease: lease{over: make(chan struct{})}}
				b.lease.refs.Store(1)
				if tt.dropped > 0 {
					time.AfterFunc(tt.dropped, func() { b.lease.Put(nil) })
				}
				if tt.closed > 0 {
					time.AfterFunc(tt.closed, func() { conn.Close() })
				}
				b.settle(&peer.Peer{LocalAddr: connAddr{conn: conn}})
				if d := time.Since(raw.start); d != tt.returns || raw.closed != tt.cut {
					t.Errorf("back after %v, the connection closed after %v; want %v and %v", d, raw.closed, tt.returns, tt.cut)
				}
				if raw.early {
					t.Error("the connection was said to be closed before it was")
				}
			})
		})
	}
}

func TestBorrowRefusesWhatIsNoMessage(t *testing.T) {
	b := borrow(&inferencepb.ModelInferRequest{Id: "a\xff", RawInputContents: [][]byte{make([]byte, borrowMin)}})
	if _, err := newBorrowCodec().Marshal(b); err == nil {
		t.Error("invalid UTF-8 was marshalled")
	}
	if b.lent() {
		t.Error("lent by a failed marshal")
	}
}
