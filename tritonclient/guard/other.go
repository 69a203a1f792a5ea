//go:build !linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// Guard is a running guard process; there is none on this system.
type Guard struct{ done chan struct{} }

// Process is a child of the guard.
type Process struct{ done chan struct{} }

// Main does nothing on this system.
func Main() {}

// Start fails: the package needs Linux.
func Start(context.Context, Config) (*Guard, error) {
	return nil, fmt.Errorf("guard: needs Linux, not %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// ShmPrefix is empty on this system.
func (g *Guard) ShmPrefix() string { return "" }

// Pid is 0 on this system.
func (g *Guard) Pid() int { return 0 }

// Done is never closed on this system.
func (g *Guard) Done() <-chan struct{} { return g.done }

// Err is nil on this system.
func (g *Guard) Err() error { return nil }

// Close does nothing on this system.
func (g *Guard) Close() error { return nil }

// Spawn fails on this system.
func (g *Guard) Spawn(Command) (*Process, error) { return nil, errors.ErrUnsupported }

// Pid is 0 on this system.
func (p *Process) Pid() int { return 0 }

// Done is never closed on this system.
func (p *Process) Done() <-chan struct{} { return p.done }

// State is the zero State on this system.
func (p *Process) State() State { return State{} }

// Signal fails on this system.
func (p *Process) Signal(syscall.Signal) error { return errors.ErrUnsupported }

// Kill fails on this system.
func (p *Process) Kill() error { return errors.ErrUnsupported }
