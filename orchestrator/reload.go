package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// watchModel reads the served config again now and then while pages move: a
// reload with a larger batch fails no request, so nothing else would tell.
func (d *Detector) watchModel() {
	t := time.NewTicker(d.cfg.RefreshEvery)
	defer t.Stop()
	var seen int64
	for {
		select {
		case <-t.C:
		case <-d.ctx.Done():
			return
		}
		ended := d.counts.now().Ended()
		if ended == seen {
			continue
		}
		seen = ended
		for _, e := range d.fleet.working() {
			if err := d.refresh(d.ctx, e); err != nil {
				d.abortRuns(err)
			}
		}
	}
}

func (d *Detector) abortRuns(err error) {
	d.runsMu.Lock()
	defer d.runsMu.Unlock()
	for r := range d.runs {
		r.abort(err)
	}
}

// refresh reads the config that an endpoint serves and takes over what has
// changed. If pages that are drawn do not fit its model any more, it is left out
// when there is another one; else that is the error, a *ServerError. That it
// cannot be asked just now is none.
func (d *Detector) refresh(ctx context.Context, e *endpoint) error {
	d.reloads.Lock()
	defer d.reloads.Unlock()
	if !slices.Contains(d.fleet.members(), e) {
		return nil // it has left, and Leave may have returned
	}
	if err := e.Model.Refresh(ctx); err != nil {
		me := asModelError(err)
		switch {
		case me.Action != ActionStop:
			d.log.Debug("the served config could not be read again", "server", e.Name, "err", err)
		case !d.fleet.refuse(e, me.Message):
			return &ServerError{Message: me.Message, Err: err}
		}
		return nil
	}
	if now, changed := d.adapt(); changed {
		d.log.Warn("the served model was reloaded", "server", e.Name, "batch", now.batch, "in_flight", now.inFlight, "max_age", now.maxAge,
			"page_buffer_bytes", d.MemoryBound())
	}
	return nil
}

// adapt makes batches and slabs what the endpoints want now, and tells whether
// anything had to change. d.reloads is held.
func (d *Detector) adapt(more ...Endpoint) (now limits, changed bool) {
	all := append(d.fleet.endpoints(), more...)
	was := *d.limits.Load()
	if len(all) == 0 {
		return was, false // none is left; more may come
	}
	now = d.asked.limits(inputs(all)...)
	// What was shared memory stays so: it is as good for everybody else.
	now.shared = now.shared || was.shared
	// What there was no memory for is not tried, and told, at every look.
	tried := now == d.unaffordable
	if !tried {
		d.unaffordable = limits{}
	}
	changed = now != was && !tried
	defer func() {
		for _, e := range d.fleet.members() {
			d.fleet.resize(e, d.asked.inFlight(e.Model.Input()))
		}
	}()
	if !changed {
		return was, false
	}
	// Fewer first, then other slabs, then more: at no time are there more
	// batches than slabs.
	d.batches.SetLimits(min(was.batch, now.batch), min(was.inFlight, now.inFlight), now.maxAge)
	if now.batch != was.batch || now.inFlight != was.inFlight || now.shared != was.shared {
		if err := d.slabs.Resize(now.inFlight+1, now.batch, d.slabPrefix(now)); err != nil {
			d.log.Warn("no memory for the batches that the servers take; going on with the old size", "err", err)
			d.unaffordable = now
			now.batch, now.inFlight, now.shared = min(was.batch, now.batch), min(was.inFlight, now.inFlight), was.shared
		}
	}
	d.batches.SetLimits(now.batch, now.inFlight, now.maxAge)
	d.limits.Store(&now)
	return now, true
}

// slabPrefix is what the names of slabs begin with; empty for private memory.
func (d *Detector) slabPrefix(l limits) string {
	if !l.shared {
		return ""
	}
	return d.cfg.SharedMemoryPrefix
}

// Join takes another endpoint in. It must have the model that the others have;
// of that only the raster is checked here. After Leave of it, it is not to be
// used before that has returned.
func (d *Detector) Join(e Endpoint) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.callers.Done()
	d.reloads.Lock()
	defer d.reloads.Unlock()
	if err := d.asked.fits(e, d.fleet.endpoints()); err != nil {
		return err
	}
	if in := e.Model.Input(); in.Width != d.raster.Width || in.Height != d.raster.Height {
		return fmt.Errorf("the model at %s wants %d×%d pixels, pages are drawn %d×%d", e.Name, in.Width, in.Height, d.raster.Width, d.raster.Height)
	}
	d.adapt(e)
	d.fleet.add(e, d.asked.inFlight(e.Model.Input()))
	return nil
}

// Leave lets an endpoint go. What is at it is answered, or fails, first: when
// Leave has returned, its model is not used any more. A name that there is not is
// none.
func (d *Detector) Leave(name string) {
	if d.enter() != nil {
		<-d.ended // Close lets all of them go
		return
	}
	defer d.callers.Done()
	d.fleet.remove(name)
	d.reloads.Lock()
	defer d.reloads.Unlock()
	d.adapt()
}
