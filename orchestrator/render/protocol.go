//go:build linux

package render

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator/render/internal/mupdf"
)

// maxMessage is more than the longest message: a reply with all that MuPDF's
// message buffer holds, each byte escaped.
const maxMessage = 64 << 10

// command is what a worker is told. Exactly one of Setup, Open and Draw is set;
// Open comes with one descriptor, and so may Setup: a file with the passwords,
// which are too many for a message sometimes, as a list in JSON. The worker answers
// each.
type command struct {
	ID    uint64
	Setup *setupCommand `json:",omitempty"`
	Open  *openCommand  `json:",omitempty"`
	Draw  *drawCommand  `json:",omitempty"`
}

type setupCommand struct {
	Width, Height int
	// Fit asks for pages of their own shape, Width×Height at most.
	Fit    bool
	Memory int64
	// Log asks for MuPDF's messages.
	Log     bool
	Sandbox SandboxMode
}

type openCommand struct {
	Format mupdf.Format
	// Timeout is 0 for none.
	Timeout time.Duration
}

type drawCommand struct {
	// Page counts from 0.
	Page    int
	Timeout time.Duration
	// Reopen is the time for opening the document again where that comes first.
	Reopen time.Duration `json:",omitempty"`
	// Second is which half of the slot the pixels go to.
	Second bool `json:",omitempty"`
}

// reply is a worker's answer to the command of the same ID.
type reply struct {
	ID uint64
	// Reason is 0 when all went well.
	Reason  mupdf.Reason `json:",omitempty"`
	Message string       `json:",omitempty"`
	// Sandbox answers Setup.
	Sandbox *Sandbox `json:",omitempty"`
	// Pages answers Open.
	Pages int `json:",omitempty"`
	// Page answers Draw; also with a Reason, when it came that far.
	Page *drawnPage `json:",omitempty"`
	// Again says that it was not the page that failed: the document did not open
	// once more.
	Again bool `json:",omitempty"`
	// Stale says that the document is opened again before the next page.
	Stale bool `json:",omitempty"`
	// Last says that the process ends with this answer.
	Last bool `json:",omitempty"`
	// CPU is what MuPDF took for Open or Draw.
	CPU time.Duration `json:",omitempty"`
	// MissedLetters says that there was text that no font is there for.
	MissedLetters bool `json:",omitempty"`
	// Log is what MuPDF said, and Lost how many lines more it said.
	Log  []string `json:",omitempty"`
	Lost int      `json:",omitempty"`
}

type drawnPage struct {
	WidthPt, HeightPt float64
	Rotation          int
	CropBox           [4]float64
	// Width and Height are the raster that was drawn, in pixels.
	Width, Height int
}

// conn is the parent's end of the connection with a worker.
type conn struct {
	sock *net.UnixConn
	message
	// aborts is how a worker that is at work is told to stop: it gets the ID of
	// the command, 8 bytes in this machine's order.
	aborts *os.File
}

// message is room for one that comes, and for a descriptor with it.
type message struct{ buf, oob []byte }

func newMessage() message {
	return message{buf: make([]byte, maxMessage), oob: make([]byte, unix.CmsgSpace(4))}
}

// newConn takes both files over.
func newConn(file, aborts *os.File) (*conn, error) {
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		aborts.Close()
		return nil, err
	}
	sock, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		aborts.Close()
		return nil, errors.New("not a Unix socket")
	}
	return &conn{sock: sock, message: newMessage(), aborts: aborts}, nil
}

func pack(message any) ([]byte, error) {
	data, err := json.Marshal(message)
	if err == nil && len(data) > maxMessage {
		err = fmt.Errorf("message of %d bytes, at most %d", len(data), maxMessage)
	}
	return data, err
}

func (c *conn) send(cmd command, file *os.File) error {
	data, err := pack(cmd)
	if err != nil {
		return err
	}
	if file == nil {
		_, err = c.sock.Write(data)
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	// Control keeps the descriptor valid meanwhile.
	err = raw.Control(func(fd uintptr) {
		_, _, sendErr = c.sock.WriteMsgUnix(data, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sendErr)
}

// abort may be called while receive waits.
func (c *conn) abort(id uint64) {
	// One that does not listen must not hold anybody up, and one that is gone
	// need not be stopped.
	_ = c.aborts.SetWriteDeadline(time.Now().Add(cancelGrace))
	_, _ = c.aborts.Write(binary.NativeEndian.AppendUint64(nil, id))
}

// receive reads one reply and the descriptor that came with it, if any. It
// fails with io.EOF when the worker is gone.
func (c *conn) receive(r *reply) (*os.File, error) {
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			err = io.EOF // it died with a message of ours unread
		}
		return nil, err
	}
	return c.unpack(n, oobn, flags, r)
}

// unpack reads what was received.
func (m *message) unpack(n, oobn, flags int, what any) (*os.File, error) {
	file, err := passedFile(m.oob[:oobn])
	if err != nil {
		return nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("message cut off")
	} else {
		err = json.Unmarshal(m.buf[:n], what)
	}
	if err != nil && file != nil {
		file.Close()
		file = nil
	}
	return file, err
}

func passedFile(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var file *os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			if file != nil {
				unix.Close(fd)
				continue
			}
			file = os.NewFile(uintptr(fd), "document")
		}
	}
	return file, nil
}

func (c *conn) close() {
	c.sock.Close()
	c.aborts.Close()
}
