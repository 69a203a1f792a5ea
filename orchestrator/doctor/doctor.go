// Package doctor looks at what a machine offers quire and says what is wrong and
// what mends it. It changes nothing.
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Status is how a finding stands.
type Status string

// The statuses.
const (
	// OK: nothing to do.
	OK Status = "ok"
	// Warn: quire works, and something is slower, smaller or later than it
	// could be.
	Warn Status = "warn"
	// Fail: quire would not work.
	Fail Status = "fail"
)

// Finding is one thing that was looked at.
type Finding struct {
	// Check is what was looked at, in one word; the words are stable.
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Text is what was found, one line.
	Text string `json:"text"`
	// Remedy is the command that mends it, or what else does; empty when there
	// is nothing to mend.
	Remedy string `json:"remedy,omitempty"`
}

// Report gathers findings and writes each as soon as it is known. It is for one
// goroutine.
type Report struct {
	// Out is written to.
	Out io.Writer
	// JSON writes lines for machines: an object a finding and one at the end,
	// told apart by message_type. Fields are only ever added.
	JSON bool

	count map[Status]int
	err   error
}

// Add takes a finding.
func (r *Report) Add(f Finding) {
	if r.count == nil {
		r.count = map[Status]int{}
	}
	r.count[f.Status]++
	f.Text, f.Remedy = oneLine(f.Text), oneLine(f.Remedy)
	if r.JSON {
		r.line(struct {
			MessageType string `json:"message_type"`
			Finding
		}{"finding", f})
		return
	}
	// A remedy stands below the text, where it can be copied whole.
	text := fmt.Sprintf("%-4s  %-15s  %s\n", f.Status, f.Check, f.Text)
	if f.Remedy != "" {
		text += fmt.Sprintf("%23s-> %s\n", "", f.Remedy)
	}
	r.write([]byte(text))
}

// Count is how many findings have a status.
func (r *Report) Count(s Status) int { return r.count[s] }

// Finish writes the summary, with the code that the program will end with, and
// returns the first error of writing.
func (r *Report) Finish(exitCode int) error {
	if r.JSON {
		r.line(struct {
			MessageType string `json:"message_type"`
			OK          int    `json:"ok"`
			Warn        int    `json:"warn"`
			Fail        int    `json:"fail"`
			ExitCode    int    `json:"exit_code"`
		}{"summary", r.count[OK], r.count[Warn], r.count[Fail], exitCode})
		return r.err
	}
	verdict := "quire run would work"
	if r.count[Fail] > 0 {
		verdict = "quire run would not work"
	}
	r.write(fmt.Appendf(nil, "%s: %d ok, %d to look at, %d failed\n", verdict, r.count[OK], r.count[Warn], r.count[Fail]))
	return r.err
}

func (r *Report) line(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers only
	}
	r.write(append(b, '\n'))
}

func (r *Report) write(b []byte) {
	if r.err == nil {
		_, r.err = r.Out.Write(b)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// size writes a number of bytes for people.
func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MB", float64(n)/(1<<20))
}
