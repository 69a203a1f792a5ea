package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"quire/orchestrator"
)

// Forecast is everything that a plan says; what is not known is nil.
type Forecast struct {
	Inputs Inputs
	// Rate is the last measurement of the place that the run would use, and
	// Where that place.
	Rate  *Rate
	Where string
	// Output is where the results would go, empty when that was not said, and
	// Free the space there, in bytes for this user.
	Output string
	Free   *int64
}

// Results is about how many bytes the results take, and whether that was
// measured.
func (f Forecast) Results() (size int64, measured bool) {
	return Disk(f.Rate, f.Inputs.Documents, f.Inputs.Pages.Pages), f.Rate != nil
}

// Fits tells whether the results fit into the space that there is, as far as
// one can tell.
func (f Forecast) Fits() bool {
	size, _ := f.Results()
	return f.Free == nil || !f.Inputs.Pages.Known() || size <= *f.Free
}

// Problems tells whether a run would meet any: inputs that do not open, or too
// little space.
func (f Forecast) Problems() bool { return f.Inputs.Problems() > 0 || !f.Fits() }

// JSON writes lines for machines: one object each, which says in message_type
// what it is. Keys are only ever added.
type JSON struct{ W io.Writer }

func (j JSON) line(v any) error {
	data, err := json.Marshal(v)
	if err == nil {
		_, err = j.W.Write(append(data, '\n'))
	}
	return err
}

// Unreadable writes a line about an input that a run would fail to open.
func (j JSON) Unreadable(e *orchestrator.PageError) error {
	line := struct {
		MessageType  string                `json:"message_type"`
		Path         string                `json:"path"`
		PathEncoding string                `json:"path_encoding,omitempty"`
		Stage        orchestrator.Stage    `json:"stage"`
		Category     orchestrator.Category `json:"category"`
		Message      string                `json:"message"`
	}{MessageType: "unreadable", Path: e.Ref.Path, Stage: e.Stage, Category: e.Category, Message: e.Message}
	if !utf8.ValidString(line.Path) {
		line.Path, line.PathEncoding = escape(line.Path), "percent"
	}
	return j.line(line)
}

// escape writes a path that is not UTF-8 as results and failed.jsonl do: '%' and
// the bytes that are not UTF-8 as %XX.
func escape(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); {
		r, size := utf8.DecodeRuneInString(path[i:])
		if r == '%' || r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, "%%%02X", path[i])
		} else {
			b.WriteString(path[i : i+size])
		}
		i += size
	}
	return b.String()
}

type span struct {
	Estimate float64 `json:"estimate"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
}

// Forecast writes the last line.
func (j JSON) Forecast(f Forecast) error {
	type pages struct {
		Estimate          *int64 `json:"estimate"`
		Low               *int64 `json:"low"`
		High              *int64 `json:"high"`
		Exact             bool   `json:"exact"`
		DocumentsOpened   int64  `json:"documents_opened"`
		DocumentsReadable int64  `json:"documents_readable"`
		MoreUnreadable    int64  `json:"more_unreadable_estimate"`
	}
	type rate struct {
		PagesPerSecond float64   `json:"pages_per_second"`
		Where          string    `json:"where"`
		Model          string    `json:"model"`
		ModelVersion   string    `json:"model_version"`
		Pages          int64     `json:"pages"`
		Measured       time.Time `json:"measured"`
	}
	type disk struct {
		Bytes        *int64  `json:"bytes"`
		BytesPerPage float64 `json:"bytes_per_page"`
		Measured     bool    `json:"measured"`
		Output       *string `json:"output"`
		FreeBytes    *int64  `json:"free_bytes"`
		Fits         bool    `json:"fits"`
	}
	e := f.Inputs.Pages
	line := struct {
		MessageType string                          `json:"message_type"`
		Documents   int64                           `json:"documents"`
		Bytes       int64                           `json:"bytes"`
		Unreadable  map[orchestrator.Category]int64 `json:"unreadable"`
		Pages       pages                           `json:"pages"`
		Rate        *rate                           `json:"rate"`
		Seconds     *span                           `json:"seconds"`
		Disk        disk                            `json:"disk"`
	}{
		MessageType: "plan", Documents: f.Inputs.Documents, Bytes: f.Inputs.Bytes, Unreadable: f.Inputs.Unreadable,
		Pages: pages{Exact: e.Exact(), DocumentsOpened: e.Opened, DocumentsReadable: e.Of, MoreUnreadable: e.MoreFailed},
		Disk:  disk{BytesPerPage: DefaultBytesPerPage, FreeBytes: f.Free, Fits: f.Fits()},
	}
	if e.Known() {
		line.Pages.Estimate, line.Pages.Low, line.Pages.High = &e.Pages, &e.Low, &e.High
		size, _ := f.Results()
		line.Disk.Bytes = &size
	}
	if f.Output != "" {
		line.Disk.Output = &f.Output
	}
	if r := f.Rate; r != nil {
		line.Disk.BytesPerPage, line.Disk.Measured = r.BytesPerPage(), true
		line.Rate = &rate{r.PagesPerSecond(), r.Where, r.Model, r.ModelVersion, r.Pages, r.Measured}
		if e.Known() {
			line.Seconds = &span{r.Time(e.Pages).Seconds(), r.Time(e.Low).Seconds(), r.Time(e.High).Seconds()}
		}
	}
	return j.line(line)
}
