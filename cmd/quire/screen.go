package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"quire/tritonclient/embedded"
)

// refresh is how often the moving line is drawn anew.
const refresh = 150 * time.Millisecond

// screen is where a person reads what is going on: a line, or some, that move at
// the bottom of a terminal, below lines that stay; only the latter elsewhere. Its
// methods may be called from any goroutine, but show and hide from one at a time.
//
// The cursor stays at the end of the moving line, so that what the terminal
// itself writes there, as the ^C of an interrupt, is wiped out with it.
type screen struct {
	out  io.Writer
	size func() (columns, rows int) // nil where no line can move

	mu     sync.Mutex // held while anything is written
	line   string     // what moves, cut to the size; empty for nothing
	moving func()     // ends its moving; nil while nothing moves

	steps step
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.size = func() (columns, rows int) {
			if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
				return w, h
			}
			return 80, 24
		}
	}
	return s
}

func (s *screen) tty() bool { return s.size != nil }

// Write prints whole lines above the one that moves; the log goes here.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.out.Write(p)
	}
	// In one piece, for a terminal shows what it has got so far.
	if _, err := fmt.Fprintf(s.out, "%s%s%s", s.wipe(), p, s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// wipe takes away what moves, up from the line that the cursor is on: carriage
// return, erase in line and cursor up of ECMA-48. s.mu is held.
func (s *screen) wipe() string {
	return "\r\x1b[K" + strings.Repeat("\x1b[A\x1b[K", strings.Count(s.line, "\n"))
}

// say prints one line.
func (s *screen) say(line string) { fmt.Fprintf(s, "quire: %s\n", oneLine(line)) }

// show draws the moving line, or lines, as line makes them for a number of
// columns, until hide is called or others take their place. It is for terminals
// only.
func (s *screen) show(line func(columns int) string) {
	s.hide()
	draw := func() {
		columns, rows := s.size()
		columns = max(columns-len("^C")-1, 1)
		// Not under the lock: what line asks may be waiting to log something.
		lines := strings.Split(line(columns), "\n")
		lines = lines[:min(len(lines), max(rows-1, 1))]
		for i, l := range lines {
			lines[i] = runewidth.Truncate(l, columns, "…")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		wipe := s.wipe()
		s.line = strings.Join(lines, "\n")
		_, _ = io.WriteString(s.out, wipe+s.line)
	}
	s.moving = background(context.Background(), func(ctx context.Context) {
		draw()
		every(ctx, refresh, draw)
	})
}

// hide takes the moving line away.
func (s *screen) hide() {
	if s.moving == nil {
		return
	}
	s.moving()
	s.moving = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.out, s.wipe())
	s.line = ""
}

// step is what the set-up is doing, since when.
type step struct {
	mu    sync.Mutex
	now   embedded.Progress
	since time.Time
}

// doing is step for what nobody can tell the extent of.
func (s *screen) doing(text string) { s.step(embedded.Progress{Text: text}) }

// step shows what the set-up is doing.
func (s *screen) step(p embedded.Progress) {
	p.Text = oneLine(p.Text)
	s.steps.mu.Lock()
	same := s.steps.now.Text == p.Text
	s.steps.now = p
	if !same {
		s.steps.since = time.Now()
	}
	s.steps.mu.Unlock()
	switch {
	case same:
	case !s.tty():
		s.say(p.Text)
	case s.moving == nil:
		s.show(s.steps.line)
	}
}

// line tells how much is done where that is known, and the time where it takes
// long; the text gives way to them.
func (s *step) line(columns int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	tail := ""
	if s.now.Total > 0 {
		tail = fmt.Sprintf(", %d %%", 100*min(s.now.Done, s.now.Total)/s.now.Total)
	}
	if took := now.Sub(s.since); took >= 2*time.Second {
		tail += ", " + duration(took.Truncate(time.Second))
	}
	turn := `|/-\`[now.UnixMilli()/refresh.Milliseconds()%4]
	text := fmt.Sprintf("%c %s", turn, s.now.Text)
	return runewidth.Truncate(text, max(columns-len(tail), 1), "…") + tail
}

// oneLine makes one line of a text, which a terminal takes for nothing else.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.Join(strings.Fields(s), " "))
}

// errorLine is the text of an error in one line; errors.Join puts each of its
// errors on a line of its own, also one that has been told already and is empty.
func errorLine(text string) string {
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
	return oneLine(strings.Join(lines, "; "))
}
