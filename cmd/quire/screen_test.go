package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/tritonclient/embedded"
)

// terminal is a pseudo-terminal and what a person would see on it.
type terminal struct {
	t      *testing.T
	slave  *os.File
	master *os.File
	width  int

	mu     sync.Mutex
	rows   [][]rune
	row    int // where the cursor is
	column int
	seen   []string // every state of that row
	read   chan struct{}
}

func openTerminal(t *testing.T, width int) *terminal {
	t.Helper()
	t.Setenv("TERM", "xterm")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(width)}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, slave: slave, master: master, width: width, rows: [][]rune{nil}, read: make(chan struct{})}
	go term.show()
	return term
}

// show does what a terminal does with the few things that are written to it.
func (v *terminal) show() {
	defer close(v.read)
	var pending []byte
	buf := make([]byte, 4096)
	for {
		n, err := v.master.Read(buf)
		if err != nil { // EIO: the other side is closed
			return
		}
		pending = append(pending, buf[:n]...)
		v.mu.Lock()
		for len(pending) > 0 && (utf8.FullRune(pending)) {
			if pending[0] == '\x1b' {
				if len(pending) < len("\x1b[K") {
					break
				}
				switch string(pending[:3]) {
				case "\x1b[K":
					v.rows[v.row] = v.last()[:min(v.column, len(v.last()))]
				case "\x1b[A":
					v.row = max(v.row-1, 0)
				default:
					v.t.Errorf("an escape sequence that is not expected: %q", pending)
				}
				pending = pending[3:]
				continue
			}
			r, size := utf8.DecodeRune(pending)
			pending = pending[size:]
			v.put(r)
		}
		v.seen = append(v.seen, string(v.last()))
		v.mu.Unlock()
	}
}

func (v *terminal) last() []rune { return v.rows[v.row] }

func (v *terminal) down() {
	if v.row, v.column = v.row+1, 0; v.row == len(v.rows) {
		v.rows = append(v.rows, nil)
	}
}

func (v *terminal) put(r rune) {
	switch r {
	case '\r':
		v.column = 0
	case '\n':
		v.down()
	default:
		if v.column == v.width {
			v.down()
		}
		row := v.last()
		for len(row) <= v.column {
			row = append(row, ' ')
		}
		row[v.column] = r
		v.rows[v.row] = row
		v.column++
	}
}

// await waits until the last row has had text in it.
func (v *terminal) await(text string) {
	v.t.Helper()
	late := time.After(patience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		v.mu.Lock()
		for i, s := range v.seen {
			if strings.Contains(s, text) {
				v.seen = v.seen[i:]
				v.mu.Unlock()
				return
			}
		}
		v.mu.Unlock()
		select {
		case <-again.C:
		case <-late:
			v.t.Fatalf("%q is not to be seen; the last row is %q", text, string(v.last()))
		}
	}
}

// close closes the terminal and returns what stays on it, without empty rows.
func (v *terminal) close() (rows []string) {
	v.slave.Close()
	<-v.read
	v.master.Close()
	for _, r := range v.rows {
		if s := strings.TrimRight(string(r), " "); s != "" {
			rows = append(rows, s)
		}
	}
	return rows
}

// What moves on a terminal is one row, however narrow; what is logged stays
// whole above it; at the end nothing else is left, not even of a ^C.
func TestScreenOnTerminal(t *testing.T) {
	for _, width := range []int{24, 80, 200} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			v := openTerminal(t, width)
			s := newScreen(v.slave)
			s.step(embedded.Progress{Text: "downloading something with a name that is too long for a narrow terminal", Total: 45_000_000})
			v.await("| downl")
			v.await("/ downl") // it moves
			s.step(embedded.Progress{Text: "downloading something with a name that is too long for a narrow terminal", Total: 45_000_000, Done: 30_000_000})
			v.await(", 66 %")
			if width == 80 {
				v.await(", 66 %, 2s")
			}
			s.step(embedded.Progress{Text: "unpacking\nit"})
			v.await("unpacking it")
			log := newLogger(slog.LevelWarn, s)
			log.Warn("odd")
			s.say("stays")

			var progress orchestrator.Progress
			var mu sync.Mutex
			stats := func() orchestrator.Stats {
				mu.Lock()
				defer mu.Unlock()
				return orchestrator.Stats{Waiting: "it is away, and the reason for that is much longer than any terminal is wide, or nearly any", WaitingSince: time.Now()}
			}
			stop := follow(t.Context(), s, &view{now: progress.Now, stats: stats, disk: noWait}, func(context.Context) (int, error) { return 7, nil })
			v.await("waiting for")
			// Something that is asked for the moving line may log while it is
			// being asked.
			mu.Lock()
			log.Warn("locked")
			v.await("0 pages")
			mu.Unlock()
			if _, err := io.WriteString(v.slave, "^C"); err != nil { // as the terminal itself does
				t.Fatal(err)
			}
			s.say("stopping")
			v.await("0 pages")
			stop()
			s.hide()
			s.say("the end")

			rows := strings.Join(v.close(), "\n")
			unfolded := strings.ReplaceAll(rows, "\n", "")
			for _, want := range []string{"msg=odd", "quire: stays", "msg=locked", "quire: stopping", "quire: the end"} {
				if !strings.Contains(unfolded, want) {
					t.Errorf("%q is not whole in:\n%s", want, rows)
				}
			}
			for _, not := range []string{"pages", "unpacking", "downloading", "^C", "waiting", "…"} {
				if strings.Contains(unfolded, not) {
					t.Errorf("%q is left in:\n%s", not, rows)
				}
			}
		})
	}
}

// Several lines move together, and go together.
func TestScreenOfSeveralLines(t *testing.T) {
	v := openTerminal(t, 40)
	s := newScreen(v.slave)
	var mu sync.Mutex
	text := "one\ntwo\nthree, which is much too long for this terminal"
	s.show(func(int) string {
		mu.Lock()
		defer mu.Unlock()
		return text
	})
	v.await("three, which is")
	s.say("stays")
	mu.Lock()
	text = "four"
	mu.Unlock()
	v.await("four")
	mu.Lock()
	text = strings.Repeat("many\n", 100) + "end" // no more than there are rows
	mu.Unlock()
	v.await("many")
	s.hide()
	s.say("end")
	if rows := strings.Join(v.close(), "|"); rows != "quire: stays|quire: end" {
		t.Errorf("%s is left", rows)
	}
}

// Elsewhere there are only lines, each said once.
func TestScreenInFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		s := newScreen(&out)
		s.step(embedded.Progress{Text: "downloading", Total: 10})
		s.step(embedded.Progress{Text: "downloading", Total: 10, Done: 10})
		s.step(embedded.Progress{Text: "installing"})
		now := func() orchestrator.ProgressNow { // a page that took no time
			return orchestrator.ProgressNow{Opened: 1, Known: 3, Resumed: 1, Pages: orchestrator.Counts{Done: 1}}
		}
		stats := func() orchestrator.Stats { return orchestrator.Stats{} }
		stop := follow(t.Context(), s, &view{now: now, stats: stats, disk: noWait}, func(context.Context) (int, error) { return 1, nil })
		time.Sleep(2*linePause + linePause/2)
		stop()
		s.say("a\x1b[31m\nb")
		want := "quire: downloading\nquire: installing\nquire: 1/3 pages\nquire: 1/3 pages\nquire: a\ufffd[31m b\n"
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestDumbTerminal(t *testing.T) {
	v := openTerminal(t, 80)
	defer v.close()
	t.Setenv("TERM", "dumb")
	if newScreen(v.slave).tty() {
		t.Error("a line moves on a dumb terminal")
	}
}

// noWait is a disk that nobody waits for.
func noWait() (string, time.Time) { return "", time.Time{} }

// The bar fills what room there is, and says nothing that it cannot know.
func TestView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now orchestrator.ProgressNow
		var stats orchestrator.Stats
		var full string
		var fullSince time.Time
		v := &view{
			now:   func() orchestrator.ProgressNow { return now },
			stats: func() orchestrator.Stats { return stats },
			disk:  func() (string, time.Time) { return full, fullSince },
			pace:  newPace(time.Now()),
		}
		wantLine := func(columns int, want string) {
			t.Helper()
			if got := v.line(columns); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		}
		wantLine(40, "0 pages [                             ]") // nothing is counted
		v.documents.Store(4)
		wantLine(40, "0 pages [                             ]") // nothing is open
		now.Listed, now.Opened, now.Known = 2, 1, 10
		wantLine(40, "0/≈40 pages [                         ]")
		time.Sleep(time.Second)
		now.Pages.Done = 5
		wantLine(40, "5/≈40 pages [==>                      ]") // too early for a forecast
		time.Sleep(time.Second)
		wantLine(60, "5/≈40 pages [==>                      ] 2.5 pages/s, ETA 14s")
		wantLine(20, "5/≈40 pages 2.5 pages/s, ETA 14s") // the screen cuts it
		stats.Waiting, stats.WaitingSince = "it is\naway", time.Now().Add(-90*time.Second)
		wantLine(70, "5/≈40 pages [=>                ] waiting for Triton, 1m30s: it is away")
		stats = orchestrator.Stats{}
		full, fullSince = "no space left", time.Now().Add(-12*time.Second)
		wantLine(70, "5/≈40 pages [>            ] waiting for disk space, 12s: no space left")
		full = ""
		stats.Stall, stats.StallSince = "a page to be drawn, a.pdf page 3, for 1m5s", time.Now().Add(-70*time.Second)
		wantLine(99, "5/≈40 pages [>          ] no page for 1m10s, waiting for a page to be drawn, a.pdf page 3, for 1m5s")
		stats = orchestrator.Stats{}
		now.Listed, now.Opened, now.Known = 4, 4, 25
		now.Pages, now.Resumed = orchestrator.Counts{Done: 21, Failed: 2, Skipped: 2}, 3 // which took no time
		now.Documents = orchestrator.Counts{Done: 2, Partial: 1, Failed: 1}
		wantLine(70, "25/25 pages [=============] 10.0 pages/s, failed: 2 pages, 2 documents")
		now.Documents = orchestrator.Counts{Done: 4}
		wantLine(70, "25/25 pages [==========================] 10.0 pages/s, failed: 2 pages")
		now.Pages = orchestrator.Counts{Done: 23, Skipped: 2}
		wantLine(70, "25/25 pages [===========================================] 10.0 pages/s")
		now.Documents = orchestrator.Counts{Done: 3, Failed: 1} // it has no page
		wantLine(70, "25/25 pages [=======================] 10.0 pages/s, failed: 1 document")
		now.Documents = orchestrator.Counts{}
		stats.Endpoints = []orchestrator.EndpointStats{{Name: "a:1", State: orchestrator.EndpointUp}, {Name: "b:1", State: orchestrator.EndpointAway}, {Name: "c:1", State: orchestrator.EndpointChecked}}
		wantLine(70, "25/25 pages [=================================] 10.0 pages/s, b:1 away")
		stats.Endpoints[2].State = orchestrator.EndpointRefused
		wantLine(70, "25/25 pages [=======================] 10.0 pages/s, 2 of 3 servers out")
	})
}

func TestPace(t *testing.T) {
	start := time.Now()
	p := newPace(start)
	for second, want := range map[int]float64{1: 0, 2: 10, 10: 10} {
		if got := newPace(start).rate(start.Add(time.Duration(second)*time.Second), int64(10*second)); got != want {
			t.Errorf("after %d s: %v, want %v", second, got, want)
		}
	}
	// Ten a second, then nothing for a minute, then five a second.
	n := int64(0)
	for second := range 120 {
		switch {
		case second < 20:
			n += 10
		case second >= 80:
			n += 5
		}
		got := p.rate(start.Add(time.Duration(second+1)*time.Second), n)
		if second == 79 && got != 0 || second == 119 && got != 5 {
			t.Errorf("after %d s: %v", second+1, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 400 * time.Millisecond, "59s": 59 * time.Second, "1m00s": 59600 * time.Millisecond,
		"2h05m": 2*time.Hour + 5*time.Minute, "3d4h": 76 * time.Hour,
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
