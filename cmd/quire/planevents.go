package main

import (
	"time"

	"quire/orchestrator"
	"quire/orchestrator/plan"
)

// unreadableEvent is an input that a run would fail to open. docs/events.md is the
// contract of this and of the plan itself; keys are only ever added.
type unreadableEvent struct {
	MessageType string `json:"message_type"` // unreadable
	pathEvent
	errorEvent
}

func unreadableOf(e *orchestrator.PageError) unreadableEvent {
	return unreadableEvent{"unreadable", pathOf(e.Ref.Path), errorEvent{e.Stage, e.Category, e.Message}}
}

// planEvent is a plan, the last line. What is not known is null.
type planEvent struct {
	MessageType string                          `json:"message_type"` // plan
	Documents   int64                           `json:"documents"`
	Bytes       int64                           `json:"bytes"`
	Unreadable  map[orchestrator.Category]int64 `json:"unreadable"`
	Pages       struct {
		Estimate          *int64 `json:"estimate"`
		Low               *int64 `json:"low"`
		High              *int64 `json:"high"`
		Exact             bool   `json:"exact"`
		DocumentsOpened   int64  `json:"documents_opened"`
		DocumentsReadable int64  `json:"documents_readable"`
		MoreUnreadable    int64  `json:"more_unreadable_estimate"`
	} `json:"pages"`
	Rate    *rateEvent `json:"rate"`
	Seconds *spanEvent `json:"seconds"`
	Disk    struct {
		Bytes        *int64  `json:"bytes"`
		BytesPerPage float64 `json:"bytes_per_page"`
		Measured     bool    `json:"measured"`
		Output       *string `json:"output"`
		FreeBytes    *int64  `json:"free_bytes"`
		Fits         bool    `json:"fits"`
	} `json:"disk"`
}

type rateEvent struct {
	PagesPerSecond float64   `json:"pages_per_second"`
	Where          string    `json:"where"`
	Model          string    `json:"model"`
	ModelVersion   string    `json:"model_version"`
	Pages          int64     `json:"pages"`
	Measured       time.Time `json:"measured"`
}

type spanEvent struct {
	Estimate float64 `json:"estimate"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
}

func planEventOf(f plan.Forecast) planEvent {
	e := f.Inputs.Pages
	ev := planEvent{MessageType: "plan", Documents: f.Inputs.Documents, Bytes: f.Inputs.Bytes, Unreadable: f.Inputs.Unreadable}
	pages, disk := &ev.Pages, &ev.Disk
	pages.Exact, pages.DocumentsOpened, pages.DocumentsReadable, pages.MoreUnreadable = e.Exact(), e.Opened, e.Of, e.MoreFailed
	disk.BytesPerPage, disk.FreeBytes, disk.Fits = plan.DefaultBytesPerPage, f.Free, f.Fits()
	if e.Known() {
		pages.Estimate, pages.Low, pages.High = &e.Pages, &e.Low, &e.High
		disk.Bytes = new(f.Results())
	}
	if f.Output != "" {
		disk.Output = &f.Output
	}
	if r := f.Rate; r != nil {
		disk.BytesPerPage, disk.Measured = r.BytesPerPage(), true
		ev.Rate = &rateEvent{r.PagesPerSecond(), r.Where, r.Model, r.ModelVersion, r.Pages, r.Measured}
		if e.Known() {
			ev.Seconds = &spanEvent{r.Time(e.Pages).Seconds(), r.Time(e.Low).Seconds(), r.Time(e.High).Seconds()}
		}
	}
	return ev
}
