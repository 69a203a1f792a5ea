package tritonclient

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDialerNoticesDeadPeers looks at the socket: the options are all that can
// be seen of a network that swallows packets.
func TestDialerNoticesDeadPeers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := dialer()(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for _, option := range []struct {
			name                string
			level, option, want int
		}{
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20_000},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		} {
			got, err := unix.GetsockoptInt(int(fd), option.level, option.option)
			if err != nil || got != option.want {
				t.Errorf("%s is %d, %v, want %d", option.name, got, err, option.want)
			}
		}
		idle, err1 := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		every, err2 := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
		count, err3 := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		if noticed := time.Duration(idle+every*count) * time.Second; err1 != nil || err2 != nil || err3 != nil || noticed > peerTimeout {
			t.Errorf("a dead peer is noticed after %v, want at most %v", noticed, peerTimeout)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
