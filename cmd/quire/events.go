package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/sink"
)

// events writes a run as JSON lines for machines; docs/events.md is its
// contract. Keys and message types are only ever added. Its methods may be
// called from any goroutine.
//
// A reader that does not keep up slows the run down, but for progress, which
// is left out while the line before it has not gone: no failure is lost.
type events struct {
	running
	start time.Time

	mu  sync.Mutex
	out *bufio.Writer
	err error
}

func newEvents(r running, w io.Writer) *events {
	return &events{running: r, start: time.Now(), out: bufio.NewWriter(w)}
}

func (e *events) write(event any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.writeLocked(event)
}

func (e *events) writeLocked(event any) error {
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	if e.err == nil {
		e.out.Write(append(line, '\n'))
		if e.err = e.out.Flush(); e.err != nil {
			e.err = fmt.Errorf("the events cannot be written (%v): run the same command again for the rest", e.err)
		}
	}
	return e.err
}

type startEvent struct {
	MessageType     string     `json:"message_type"` // start
	Schema          string     `json:"schema"`
	Version         string     `json:"version"`
	Model           modelEvent `json:"model"`
	Server          string     `json:"server"`
	Output          string     `json:"output"`
	Workers         int        `json:"workers"`
	Batch           int        `json:"batch"`
	InFlight        int        `json:"in_flight"`
	MaxAgeMS        float64    `json:"max_age_ms"`
	PageBufferBytes int64      `json:"page_buffer_bytes"`
	SharedMemory    bool       `json:"shared_memory"`
	// Servers are those that are used at the start.
	Servers []serverEvent `json:"servers"`
}

// serverEvent is one server. What a key says is left out where it is not so.
type serverEvent struct {
	Server       string                     `json:"server"`
	SharedMemory *bool                      `json:"shared_memory,omitempty"`
	State        orchestrator.EndpointState `json:"state,omitempty"`
	Reason       string                     `json:"reason,omitempty"`
	InFlight     *int                       `json:"in_flight,omitempty"`
	Window       *int                       `json:"window,omitempty"`
	Pages        *int64                     `json:"pages,omitempty"`
}

// serversOf is what there is to tell of a detector's servers.
func serversOf(s orchestrator.Stats) []serverEvent {
	all := []serverEvent{}
	for _, e := range s.Endpoints {
		all = append(all, serverEvent{
			Server: e.Name, State: e.State, Reason: oneLine(e.Reason), InFlight: &e.InFlight, Window: &e.Window, Pages: &e.Pages,
		})
	}
	return all
}

type modelEvent struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type progressEvent struct {
	MessageType     string        `json:"message_type"` // progress
	Seconds         float64       `json:"seconds"`
	DocumentsListed int64         `json:"documents_listed"`
	PagesKnown      int64         `json:"pages_known"`
	Documents       countsEvent   `json:"documents"`
	Pages           countsEvent   `json:"pages"`
	PagesResumed    int64         `json:"pages_resumed"`
	PagesPerSecond  float64       `json:"pages_per_second"`
	InFlight        int           `json:"in_flight"`
	Window          int           `json:"window"`
	Waiting         string        `json:"waiting,omitempty"`
	Stall           string        `json:"stall,omitempty"`
	Servers         []serverEvent `json:"servers"`
}

type countsEvent struct {
	Done      int64 `json:"done"`
	Partial   int64 `json:"partial"`
	Failed    int64 `json:"failed"`
	Skipped   int64 `json:"skipped"`
	Cancelled int64 `json:"cancelled"`
}

type pageFailedEvent struct {
	MessageType string `json:"message_type"` // page_failed
	pathEvent
	Page int `json:"page"`
	errorEvent
}

type pathEvent struct {
	Path         string `json:"path"`
	PathEncoding string `json:"path_encoding,omitempty"`
}

func pathOf(path string) pathEvent {
	text, encoding := sink.PathText(path)
	return pathEvent{text, encoding}
}

type errorEvent struct {
	Stage    orchestrator.Stage    `json:"stage"`
	Category orchestrator.Category `json:"category"`
	Message  string                `json:"message"`
}

type documentEvent struct {
	MessageType string `json:"message_type"` // document
	pathEvent
	Status    orchestrator.Status `json:"status"`
	PageCount *int                `json:"page_count"`
	Pages     countsEvent         `json:"pages"`
	Resumed   int                 `json:"pages_resumed,omitempty"`
	Redone    orchestrator.Redone `json:"redone,omitempty"`
	Before    *beforeEvent        `json:"before,omitempty"`
	Error     *errorEvent         `json:"error,omitempty"`
}

// beforeEvent is how a document that was skipped had ended.
type beforeEvent struct {
	Status orchestrator.Status `json:"status"`
	Pages  countsEvent         `json:"pages"`
	Error  *errorEvent         `json:"error,omitempty"`
}

type vanishedEvent struct {
	MessageType string `json:"message_type"` // vanished
	pathEvent
}

type summaryEvent struct {
	MessageType    string      `json:"message_type"` // summary
	Seconds        float64     `json:"seconds"`
	Inputs         int64       `json:"inputs"`
	Documents      countsEvent `json:"documents"`
	PagesTotal     int64       `json:"pages_total"`
	Pages          countsEvent `json:"pages"`
	PagesPerSecond float64     `json:"pages_per_second"`
	// Of the pages that are done or failed, so many come from earlier runs.
	PagesResumed int64 `json:"pages_resumed"`
	// How what was skipped had ended.
	DocumentsBefore countsEvent                   `json:"documents_before"`
	PagesBefore     countsEvent                   `json:"pages_before"`
	Redone          map[orchestrator.Redone]int64 `json:"documents_redone"`
	Vanished        int64                         `json:"vanished"`
	Pruned          int64                         `json:"pruned"`
	// FirstResult is how long it took from the program's start until the first
	// result was on the disk; absent when this run wrote none.
	FirstResult float64 `json:"first_result_seconds,omitempty"`
	// Requests counts the requests that the server was sent by their number of
	// pages.
	Requests map[int]int64 `json:"requests"`
	// Failed counts those that were not answered, by what was done about it.
	Failed map[string]int64 `json:"requests_failed"`
	// Waited is how long everything waited, by what for.
	Waited   map[string]float64 `json:"waited_seconds"`
	Servers  []serverEvent      `json:"servers"`
	ExitCode int                `json:"exit_code"`
	Error    string             `json:"error,omitempty"`
}

func (e *events) begin() error {
	cfg, info := e.detector.Settings(), e.served.model.Info()
	servers := []serverEvent{}
	for _, server := range e.served.fleet.Servers() {
		servers = append(servers, serverEvent{Server: server.Name, SharedMemory: new(server.Model.Input().SharedMemory)})
	}
	return e.write(startEvent{
		Servers: servers, MessageType: "start", Schema: "quire-events/1", Version: version,
		Model: modelEvent{info.Name, info.Version}, Server: e.served.where, Output: e.output,
		Workers: cfg.Workers, Batch: cfg.Batch, InFlight: cfg.InFlight,
		MaxAgeMS: max(0, float64(cfg.MaxAge)/1e6), PageBufferBytes: e.detector.MemoryBound(), SharedMemory: sharedMemory(e.served) > 0,
	})
}

// follow writes progress once a second until the function that it returns is
// called.
func (e *events) follow(ctx context.Context) (stop func()) {
	return background(ctx, func(ctx context.Context) { every(ctx, time.Second, e.tellProgress) })
}

func (e *events) tellProgress() {
	if !e.mu.TryLock() {
		return // a line is waiting for its reader
	}
	defer e.mu.Unlock()
	now, stats, took := e.progress.Now(), e.detector.Stats(), time.Since(e.start).Seconds()
	waiting := stats.Waiting
	if reason, _ := e.tree.Waiting(); waiting == "" && reason != "" {
		waiting = "disk space: " + reason
	}
	_ = e.writeLocked(progressEvent{ // a reader that went away is told of by the next document
		MessageType: "progress", Seconds: took, DocumentsListed: now.Listed, PagesKnown: now.Known,
		Documents: countsEvent(now.Documents), Pages: countsEvent(now.Pages), PagesResumed: now.Resumed,
		PagesPerSecond: float64(now.Pages.Done+now.Pages.Failed-now.Resumed) / took,
		InFlight:       stats.InFlight, Window: stats.Window, Waiting: oneLine(waiting), Stall: oneLine(stats.Stall),
		Servers: serversOf(stats),
	})
}

func (e *events) vanished(path string) {
	_ = e.write(vanishedEvent{"vanished", pathOf(path)}) // a reader that went away is told of by the summary
}

func (e *events) end(s orchestrator.Summary, v sink.Vanished, err error) error {
	ev := summaryEvent{
		MessageType: "summary", Seconds: s.Elapsed.Seconds(), Inputs: s.Documents.Ended(), Documents: countsEvent(s.Documents),
		PagesTotal: s.Pages.Ended(), Pages: countsEvent(s.Pages), ExitCode: exitCode(err), Requests: map[int]int64{},
		Failed: map[string]int64{}, Waited: map[string]float64{},
		PagesResumed: s.Resumed, DocumentsBefore: countsEvent(s.DocumentsBefore), PagesBefore: countsEvent(s.PagesBefore),
		Redone: s.Redone, Vanished: v.Found, Pruned: v.Pruned,
	}
	if ev.Redone == nil {
		ev.Redone = map[orchestrator.Redone]int64{}
	}
	stats := e.detector.Stats()
	ev.Servers = serversOf(stats)
	if first := e.tree.Written().First; !first.IsZero() {
		ev.FirstResult = first.Sub(e.begun).Seconds()
	}
	for size, n := range stats.Sizes {
		if n > 0 {
			ev.Requests[size] = n
		}
	}
	for action, n := range stats.Failed {
		if n > 0 {
			ev.Failed[action] = n
		}
	}
	ev.Waited["server"], ev.Waited["disk"] = stats.Waited.Seconds(), e.tree.Waited().Seconds()
	if ev.Seconds > 0 {
		ev.PagesPerSecond = float64(s.Pages.Done+s.Pages.Failed-s.Resumed) / ev.Seconds
	}
	if err != nil && err.Error() != "" {
		ev.Error = errorLine(err.Error())
	}
	return e.write(ev)
}

// sink tells of pages and documents after the sink has them.
func (e *events) sink(to orchestrator.Sink) orchestrator.Sink { return eventSink{to, e} }

type eventSink struct {
	orchestrator.Sink
	events *events
}

func (s eventSink) Page(ctx context.Context, r orchestrator.PageResult) error {
	if err := s.Sink.Page(ctx, r); err != nil {
		return err
	}
	if r.Err == nil {
		return nil
	}
	return s.events.write(pageFailedEvent{"page_failed", pathOf(r.Ref.Path), r.Ref.Page, *errorOf(r.Err)})
}

func (s eventSink) End(ctx context.Context, d orchestrator.DocumentResult, stands func(error)) error {
	return s.Sink.End(ctx, d, func(err error) {
		if err == nil {
			err = s.events.document(d)
		}
		stands(err)
	})
}

func (e *events) document(d orchestrator.DocumentResult) error {
	ev := documentEvent{
		MessageType: "document", pathEvent: pathOf(d.Path), Status: d.Status, Error: errorOf(d.Err), Pages: pagesOf(d),
		Resumed: d.Resumed, Redone: d.Redone,
	}
	if d.PageCount >= 0 {
		ev.PageCount = &d.PageCount
	}
	if b := d.Before; b != nil {
		ev.Before = &beforeEvent{b.Status, pagesOf(*b), errorOf(b.Err)}
	}
	return e.write(ev)
}

func pagesOf(d orchestrator.DocumentResult) countsEvent {
	return countsEvent{Done: int64(d.Done), Failed: int64(d.Failed), Skipped: int64(d.Skipped), Cancelled: int64(d.Cancelled)}
}

func errorOf(e *orchestrator.PageError) *errorEvent {
	if e == nil {
		return nil
	}
	return &errorEvent{e.Stage, e.Category, oneLine(e.Message)}
}
