package measure

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// Probe watches the event path of this process while it works: how late a timer
// is, and how long a request takes that needs nothing but an answer. It takes
// about a hundredth of a core itself, so processor time is not to be measured
// beside it.
type Probe struct {
	stop chan struct{}
	done sync.WaitGroup

	ticks, requests Latencies
	ask, answer     *os.File // the requester's ends
}

// The probe's paces.
const (
	tickEvery    = time.Millisecond
	requestEvery = 5 * time.Millisecond
)

// Events is what a probe saw.
type Events struct {
	// Ticks is how late each tick of a timer of 1 ms was noticed. Ticks that
	// fell due while a late one was waited for are in it, each with its own
	// lateness.
	Ticks Latencies
	// Requests is how long each request took, from the write that asks to the
	// read that has the answer: through two pipes, the runtime's poller and a
	// goroutine that waits for requests, as one that comes in over a
	// connection does.
	Requests Latencies
}

// StartProbe starts a probe whose requests call handle, on a goroutine of the
// probe's.
func StartProbe(handle func()) (*Probe, error) {
	asked, ask, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answer, answered, err := os.Pipe()
	if err != nil {
		asked.Close()
		ask.Close()
		return nil, err
	}
	p := &Probe{stop: make(chan struct{}), ask: ask, answer: answer}
	p.done.Go(p.tick)
	p.done.Go(p.request)
	p.done.Go(func() {
		defer asked.Close()
		defer answered.Close()
		b := make([]byte, 1)
		for {
			if _, err := asked.Read(b); err != nil {
				return // the requester has left
			}
			handle()
			if _, err := answered.Write(b); err != nil {
				return
			}
		}
	})
	return p, nil
}

// Stop ends the probe and returns what it saw.
func (p *Probe) Stop() Events {
	close(p.stop)
	p.done.Wait()
	return Events{Ticks: p.ticks, Requests: p.requests}
}

func (p *Probe) tick() {
	due := time.Now().Add(tickEvery)
	t := time.NewTimer(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
		}
		late := max(0, time.Since(due))
		for ; late >= 0; late -= tickEvery {
			p.ticks = append(p.ticks, late)
			due = due.Add(tickEvery)
		}
		t.Reset(time.Until(due))
	}
}

func (p *Probe) request() {
	defer p.ask.Close()
	defer p.answer.Close()
	t := time.NewTicker(requestEvery)
	defer t.Stop()
	b := make([]byte, 1)
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
		}
		start := time.Now()
		if _, err := p.ask.Write(b); err != nil {
			return
		}
		if _, err := p.answer.Read(b); err != nil && !errors.Is(err, io.EOF) {
			return
		}
		p.requests = append(p.requests, time.Since(start))
	}
}
