package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// An endpoint that fails is taken out, and one goroutine looks after it until it
// has answered a blank page. Only when none is left does everybody wait, and
// that is an outage.

// outage is a time in which no endpoint works. It ends without an error when one
// does, and with one when it has lasted too long; whoever comes then and finds
// none begins another.
type outage struct {
	since  time.Time
	reason string
	timer  *time.Timer
	err    error
}

const (
	// quietCheck is how long an endpoint may take to answer a blank page after
	// a failure before it is called away.
	quietCheck = 5 * time.Second
	// refusedPause is how often it is looked whether the model of an endpoint
	// that was refused is the right one again.
	refusedPause = 30 * time.Second
	// An endpoint that fails what another answers rests, longer each time.
	// It is looked every restStep whether it is needed after all.
	restLeast, restMost, restStep = time.Second, 30 * time.Second, time.Second
)

// until waits for ready, which is called with mu held; so is this.
func (f *fleet) until(ctx context.Context, ready func() bool) error {
	for !ready() {
		o := f.outage
		if o == nil && !f.anyUp(nil) {
			o = f.begin(f.lastReason())
		}
		f.sleep(ctx)
		if o != nil && o.err != nil {
			return o.err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// await waits until an endpoint works; its errors are those of acquire.
func (f *fleet) await(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.until(ctx, func() bool { return f.anyUp(nil) })
}

func (f *fleet) lastReason() string {
	reason := "there is none"
	var since time.Time
	for _, e := range f.members() {
		if !e.since.Before(since) {
			reason, since = e.reason, e.since
		}
	}
	return reason
}

// begin begins an outage; mu is held.
func (f *fleet) begin(reason string) *outage {
	o := &outage{since: time.Now(), reason: reason}
	f.outage = o
	if f.limit > 0 {
		o.timer = time.AfterFunc(f.limit, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.outage == o {
				f.giveUp(&ServerError{
					Message: fmt.Sprintf("the server was away for %v (%s): start it and run the same command again", f.limit, o.reason),
					Err:     context.DeadlineExceeded,
				})
			}
		})
	}
	if !f.said { // by an outage that lasted too long, and none works yet
		f.said = true
		// The log may block; nobody who asks for statistics waits for it.
		f.polls.Go(func() { f.log.Warn("waiting for the server", "reason", reason) })
	}
	return o
}

// giveUp ends an outage with an error; mu is held.
func (f *fleet) giveUp(err error) {
	if o := f.outage; o != nil {
		o.err = err
		f.end()
		f.wake()
	}
}

// end ends an outage; mu is held.
func (f *fleet) end() {
	f.waited += time.Since(f.outage.since)
	if f.outage.timer != nil {
		f.outage.timer.Stop()
	}
	f.outage = nil
}

// cameUp is called when an endpoint works again; mu is held.
func (f *fleet) cameUp() {
	if o := f.outage; o != nil {
		f.end()
		away := time.Since(o.since).Round(time.Millisecond)
		f.polls.Go(func() { f.log.Warn("the server is back", "after", away) })
	}
	f.said = false
	f.fit()
	f.wake()
}

// close ends what is left when nobody asks any more.
func (f *fleet) close() {
	f.mu.Lock()
	if f.outage != nil {
		f.end()
	}
	f.mu.Unlock()
	f.polls.Wait()
}

// severity orders the states: what is known to be worse stays.
var severity = map[EndpointState]int{EndpointUp: 0, EndpointChecked: 1, EndpointAway: 2, EndpointRefused: 3}

// takeOut makes an endpoint one that is not used, and has it looked after; mu is
// held. It tells whether that is news.
func (f *fleet) takeOut(e *endpoint, state EndpointState, reason string) bool {
	if e.ctx.Err() != nil || severity[e.state] >= severity[state] {
		return false
	}
	if e.state == EndpointUp {
		e.since = time.Now()
	}
	e.state, e.reason = state, reason
	if !e.mending {
		e.mending = true
		e.users++
		f.polls.Go(func() {
			f.mend(e)
			f.unused(e)
		})
	}
	if !f.anyUp(nil) && f.outage == nil && state != EndpointChecked {
		f.begin(reason)
	}
	f.fit()
	f.wake()
	return true
}

// away takes an endpoint out that is not there, or does not work.
func (f *fleet) away(e *endpoint, reason string) {
	f.mu.Lock()
	if e.fresh && e.state == EndpointUp { // blank pages are all that it can
		f.rest(e)
	}
	news := f.takeOut(e, EndpointAway, reason)
	f.mu.Unlock()
	if news && f.several() {
		f.log.Warn("a server is away", "server", e.Name, "reason", reason)
	}
}

// doubt takes an endpoint out that has failed a request until it has answered a
// blank page, if another works in its place; it tells whether one does. So one
// that fails fast, and would always have the least to do, gets no more of them.
func (f *fleet) doubt(e *endpoint, reason string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.anyUp(e) {
		return false
	}
	f.takeOut(e, EndpointChecked, reason)
	return true
}

// strike notes that another endpoint has answered what e has failed: the fault was
// its own. It rests, even if it answers blank pages.
func (f *fleet) strike(e *endpoint, reason string) {
	f.mu.Lock()
	if !f.anyUp(e) {
		f.mu.Unlock()
		return
	}
	rest := f.rest(e)
	f.takeOut(e, EndpointChecked, reason)
	f.mu.Unlock()
	f.log.Warn("a server failed what another answers; it rests", "server", e.Name, "for", rest, "reason", reason)
}

// rest keeps an endpoint out for a while, longer each time, even if it answers
// blank pages; mu is held.
func (f *fleet) rest(e *endpoint) time.Duration {
	d := backoff(restLeast, restMost, e.strikes)
	e.strikes++
	e.outUntil = time.Now().Add(d)
	return d
}

// refuse leaves an endpoint out for what it is, until it is something else. It
// tells whether there is another that may be used, at once or when it is back;
// if not, it does nothing.
func (f *fleet) refuse(e *endpoint, reason string) bool {
	f.mu.Lock()
	others := slices.ContainsFunc(f.members(), func(x *endpoint) bool { return x != e && x.state != EndpointRefused })
	news := others && f.takeOut(e, EndpointRefused, reason)
	f.mu.Unlock()
	if news {
		f.log.Warn("a server is left out", "server", e.Name, "reason", reason)
	}
	return others
}

// mend waits until an endpoint works again and takes it back.
func (f *fleet) mend(e *endpoint) {
	for {
		f.mu.Lock()
		if !f.anyUp(e) {
			e.outUntil = time.Time{} // whatever it does, nobody does more
		}
		state, rest := e.state, time.Until(e.outUntil)
		f.mu.Unlock()
		if state == EndpointRefused {
			rest = refusedPause
		} else if rest > restStep {
			if !pause(e.ctx, restStep) {
				return
			}
			continue
		}
		if !pause(e.ctx, rest) {
			return
		}
		if state == EndpointRefused && e.Model.Refresh(e.ctx) != nil {
			continue
		}
		ctx, cancel := e.ctx, context.CancelFunc(func() {})
		if state == EndpointChecked {
			ctx, cancel = context.WithTimeout(ctx, quietCheck)
		}
		err := e.Model.WaitReady(ctx)
		late := ctx.Err() != nil
		cancel()
		switch {
		case e.ctx.Err() != nil:
			return
		case err == nil:
			if f.back(e, state) {
				return
			}
		case late:
			f.away(e, "it answers no blank page: "+err.Error())
		default: // waiting is no use
			me := asModelError(err)
			if !f.refuse(e, me.Message) {
				// Whoever waits hears of it; whoever comes next may try again.
				f.mu.Lock()
				f.giveUp(&ServerError{Message: me.Message, Err: err})
				e.state, e.reason, e.mending = EndpointUp, "", false
				f.cameUp()
				f.mu.Unlock()
				return
			}
		}
	}
}

// back takes an endpoint back that has answered a blank page, unless something
// else was found out meanwhile.
func (f *fleet) back(e *endpoint, was EndpointState) bool {
	f.mu.Lock()
	if e.state == EndpointRefused && was != EndpointRefused || time.Until(e.outUntil) > 0 {
		f.mu.Unlock()
		return false
	}
	away := time.Since(e.since).Round(time.Millisecond)
	state := e.state
	e.state, e.reason, e.mending, e.fresh = EndpointUp, "", false, true
	f.cameUp()
	f.mu.Unlock()
	if state != EndpointChecked && f.several() {
		f.log.Warn("a server is back", "server", e.Name, "after", away)
	}
	return true
}

// pause waits, and tells whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// waits tells since when and why everything waits for a server, and how long it
// has in all.
func (f *fleet) waits() (reason string, since time.Time, inAll time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outage == nil {
		return "", time.Time{}, f.waited
	}
	return f.outage.reason, f.outage.since, f.waited + time.Since(f.outage.since)
}
