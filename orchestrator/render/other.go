//go:build !linux

package render

import (
	"context"
	"errors"
	"fmt"
	"image"
	"runtime"
	"time"

	"quire/orchestrator"
)

// Pool makes workers; there are none on this system.
type Pool struct{}

// New returns a pool that makes nothing.
func New(Config) *Pool { return &Pool{} }

// NewWorker fails: sealed memory and the guard need Linux.
func (*Pool) NewWorker(context.Context, int, int) (orchestrator.RenderWorker, error) {
	return nil, fmt.Errorf("render: needs Linux, not %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Sandbox fails, as NewWorker does.
func (*Pool) Sandbox(context.Context) (Sandbox, error) {
	return Sandbox{}, fmt.Errorf("render: needs Linux, not %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Pictures draws pages for people to look at; there are none on this system.
type Pictures struct{}

// NewPictures fails, as NewWorker does.
func (*Pool) NewPictures(context.Context, int, int) (*Pictures, error) {
	return nil, fmt.Errorf("render: needs Linux, not %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Open fails.
func (*Pictures) Open(context.Context, orchestrator.Document) (int, error) {
	return 0, errors.ErrUnsupported
}

// Draw fails.
func (*Pictures) Draw(context.Context, int) (*image.RGBA, orchestrator.Geometry, error) {
	return nil, orchestrator.Geometry{}, errors.ErrUnsupported
}

// Close does nothing.
func (*Pictures) Close() error { return nil }

// Stats are counts since the pool was made.
type Stats struct {
	Pages          int64
	CPU            time.Duration
	Crashes, Kills int64
}

// Stats returns zeros.
func (*Pool) Stats() Stats { return Stats{} }

// Main does nothing on this system.
func Main() {}
