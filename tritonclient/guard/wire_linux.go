package guard

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// The two ends talk gob over a Unix stream socket. A message's descriptors
// travel with its first byte, so they are in the receiver's queue, in order,
// before the message can be decoded, however reads and messages align.

// request goes from the program to the guard.
type request struct {
	ID     uint64
	Spawn  *spawnRequest
	Signal *signalRequest
}

type spawnRequest struct {
	Path      string
	Args, Env []string
	Dir       string
	// Files says for each descriptor of the process whether one came along.
	Files   []bool
	Nice    int
	Rlimits []Rlimit
}

type signalRequest struct {
	Pid, Signal int
	Group       bool
}

// reply goes from the guard to the program.
type reply struct {
	// Hello is set in the first reply.
	Hello bool
	// ID is the request answered, 0 for the end of a process.
	ID    uint64
	Pid   int
	Errno int
	// Op says what failed with Errno.
	Op     string
	Status uint32
}

// conn is one end. Sends must not overlap, nor must receives.
type conn struct {
	sock    *net.UnixConn
	enc     *gob.Encoder
	dec     *gob.Decoder
	out     bytes.Buffer // what enc writes for one message
	pending []int        // received descriptors not yet taken
	oob     []byte
}

func newConn(sock *net.UnixConn) *conn {
	c := &conn{sock: sock, oob: make([]byte, unix.CmsgSpace(4*maxFiles))}
	c.enc = gob.NewEncoder(&c.out)
	c.dec = gob.NewDecoder((*connReader)(c))
	return c
}

// send encodes v and sends it with fds, which the caller keeps.
func (c *conn) send(v any, fds ...int) error {
	c.out.Reset()
	if err := c.enc.Encode(v); err != nil {
		return err
	}
	b := c.out.Bytes()
	if len(fds) > 0 {
		n, _, err := c.sock.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if len(b) == 0 {
		return nil
	}
	_, err := c.sock.Write(b)
	return err
}

// take returns the next n received descriptors; the caller owns them.
func (c *conn) take(n int) ([]int, error) {
	if n > len(c.pending) {
		return nil, fmt.Errorf("guard: %d descriptors announced, %d received", n, len(c.pending))
	}
	fds := c.pending[:n:n]
	c.pending = c.pending[n:]
	return fds, nil
}

// connReader reads bytes and puts the descriptors among them aside.
type connReader conn

func (r *connReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, oobn, flags, _, err := r.sock.ReadMsgUnix(p, r.oob)
	if err != nil {
		return 0, err
	}
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(r.oob[:oobn])
		if err != nil {
			return 0, err
		}
		for i := range messages {
			fds, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				return 0, err
			}
			r.pending = append(r.pending, fds...)
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return 0, fmt.Errorf("guard: descriptors were lost on the way (too many open files?)")
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
