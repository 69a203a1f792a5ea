package orchestrator

import (
	"context"
	"errors"
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
		if ended := d.counts.now().Ended(); ended == seen {
			continue
		} else {
			seen = ended
		}
		if err := d.refresh(d.ctx); err != nil {
			d.runsMu.Lock()
			for r := range d.runs {
				r.abort(err)
			}
			d.runsMu.Unlock()
		}
	}
}

// refresh reads the served config and takes over what has changed. The error is
// a *ServerError, when pages that are drawn do not fit the model any more; that
// the server cannot be asked just now is none.
func (d *Detector) refresh(ctx context.Context) error {
	d.reloads.Lock()
	defer d.reloads.Unlock()
	if err := d.model.Refresh(ctx); err != nil {
		var me *ModelError
		if errors.As(err, &me) && me.Action == ActionStop {
			return &ServerError{Message: me.Message, Err: err}
		}
		d.log.Debug("the served config could not be read again", "err", err)
		return nil
	}
	in := d.model.Input()
	was, now := *d.limits.Load(), d.asked.limits(in)
	if now == was {
		return nil
	}
	// Fewer first, then other slabs, then more: at no time are there more
	// batches than slabs.
	d.batches.SetLimits(min(was.batch, now.batch), min(was.inFlight, now.inFlight), now.maxAge)
	if now.batch != was.batch || now.inFlight != was.inFlight {
		if err := d.slabs.Resize(now.inFlight+1, now.batch); err != nil {
			d.log.Warn("no memory for the batches that the reloaded model takes; going on with the old size", "err", err)
			now.batch, now.inFlight = min(was.batch, now.batch), min(was.inFlight, now.inFlight)
		}
	}
	d.batches.SetLimits(now.batch, now.inFlight, now.maxAge)
	d.window.reset(now.inFlight)
	d.limits.Store(&now)
	d.log.Warn("the served model was reloaded", "batch", now.batch, "was", was.batch, "in_flight", now.inFlight, "max_age", now.maxAge,
		"page_buffer_bytes", d.MemoryBound())
	return nil
}
