package embedded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"quire/tritonclient/guard"
)

// maxLine cuts lines that a process says; what is over goes to the next line.
const maxLine = 16 << 10

// runLines runs a command under the guard and calls line, from one goroutine,
// with each line that it writes to standard output and error. It waits for the
// end of the command; when ctx ends it kills it and returns ctx's cause.
func runLines(ctx context.Context, g *guard.Guard, cmd guard.Command, line func(string)) (guard.State, error) {
	if err := context.Cause(ctx); err != nil {
		return guard.State{}, err
	}
	p, lines, err := spawnLines(g, cmd, line)
	if err != nil {
		return guard.State{}, err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Kill()
		<-p.Done()
	}
	<-lines
	if err := context.Cause(ctx); err != nil {
		return p.State(), err
	}
	return p.State(), g.Err()
}

// spawnLines starts a command whose output goes to line. The channel is closed
// after the last line.
func spawnLines(g *guard.Guard, cmd guard.Command, line func(string)) (*guard.Process, <-chan struct{}, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	// Whatever else the command is to inherit follows.
	cmd.Files = append([]*os.File{nil, w, w}, cmd.Files...)
	p, err := g.Spawn(cmd)
	w.Close()
	if err != nil {
		r.Close()
		return nil, nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer r.Close()
		scanLines(r, line)
	}()
	return p, finished, nil
}

func scanLines(r io.Reader, line func(string)) {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		s, _, err := b.ReadLine()
		if err != nil {
			return
		}
		line(strings.TrimRight(string(s), " \t\r"))
	}
}

// tail keeps the last lines of a log.
type tail struct {
	lines []string
	next  int
}

func newTail(n int) *tail { return &tail{lines: make([]string, 0, n)} }

func (t *tail) add(line string) {
	if len(t.lines) < cap(t.lines) {
		t.lines = append(t.lines, line)
		return
	}
	t.lines[t.next] = line
	t.next = (t.next + 1) % len(t.lines)
}

// all returns the lines, oldest first.
func (t *tail) all() []string {
	return append(append([]string(nil), t.lines[t.next:]...), t.lines[:t.next]...)
}
