package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quire/orchestrator"
)

// TestEventsAddUp: the event stream and failed.jsonl of a run with planted
// failures say the same as the summary, exactly.
func TestEventsAddUp(t *testing.T) {
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	odd := []string{"good.pdf", "mixed.pdf", "encrypted_user.pdf", "not_pdf.pdf", "zero_byte.pdf", "no_pages.pdf", "never_finishes.pdf"}
	makeOdd(t, append([]string{in}, odd...)...)
	// And a name that is not UTF-8.
	if err := os.Rename(filepath.Join(in, "not_pdf.pdf"), filepath.Join(in, "not\xff.pdf")); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "run", in, "-o", out, "--json", "--page-timeout", "2s", "--model-repository", repository)
	if code != exitSomeFailed {
		t.Fatalf("code %d: %s", code, stderr)
	}
	type failure struct {
		Path string
		Page int
		errorEvent
	}
	failures := map[failure]bool{}
	var documents, pages countsEvent
	var summary summaryEvent
	var kinds []string
	for line := range strings.Lines(stdout) {
		var e struct {
			MessageType string `json:"message_type"`
			pathEvent
			Page   int
			Status orchestrator.Status
			Pages  countsEvent
			Error  json.RawMessage
			errorEvent
		}
		unmarshal(t, line, &e)
		kinds = append(kinds, e.MessageType)
		switch e.MessageType {
		case "page_failed":
			failures[failure{e.Path, e.Page, e.errorEvent}] = true
		case "document":
			if e.Path == "not%FF.pdf" && e.PathEncoding != "percent" {
				t.Errorf("an escaped path that does not say so: %s", line)
			}
			if len(e.Error) > 0 {
				var why errorEvent
				unmarshal(t, string(e.Error), &why)
				failures[failure{e.Path, 0, why}] = true
			}
			pages.Done += e.Pages.Done
			pages.Failed += e.Pages.Failed
			switch e.Status {
			case orchestrator.StatusDone:
				documents.Done++
			case orchestrator.StatusPartial:
				documents.Partial++
			case orchestrator.StatusFailed:
				documents.Failed++
			default:
				t.Errorf("%s ended as %s", e.Path, e.Status)
			}
		case "summary":
			unmarshal(t, line, &summary)
		}
	}
	if kinds[0] != "start" || kinds[len(kinds)-1] != "summary" {
		t.Errorf("the stream is %v", kinds)
	}
	if summary.FirstResult <= 0 || summary.FirstResult > 600 {
		t.Errorf("the first result after %v s", summary.FirstResult)
	}
	if documents != summary.Documents || pages != summary.Pages || summary.Inputs != int64(len(odd)) || summary.PagesTotal != pages.Done+pages.Failed || summary.ExitCode != code {
		t.Errorf("events: %+v documents, %+v pages; summary: %+v", documents, pages, summary)
	}
	n := 0
	for line := range strings.Lines(read(t, out, "failed.jsonl")) {
		var f failure
		var raw struct {
			Path string
			Page *int
			errorEvent
		}
		unmarshal(t, line, &raw)
		if f = (failure{Path: raw.Path, errorEvent: raw.errorEvent}); raw.Page != nil {
			f.Page = *raw.Page
		}
		if !failures[f] {
			t.Errorf("failed.jsonl has %+v, the stream has not", f)
		}
		n++
	}
	if n != len(failures) || n < 5 {
		t.Errorf("%d lines in failed.jsonl, %d failures in the stream", n, len(failures))
	}
}
