package layout

import (
	"bytes"
	"context"
	"time"

	"quire/tritonclient"
)

// retryBlank is the first pause between two blank pages; it doubles to
// retryBlankMost.
const (
	retryBlank     = 100 * time.Millisecond
	retryBlankMost = 2 * time.Second
)

// WaitReady waits until the model has answered a blank page. That a server calls
// it ready is not enough: with a dead process behind it, or a GPU that is gone,
// servers do so and fail every request.
func (m *Model) WaitReady(ctx context.Context) error {
	for pause := retryBlank; ; pause = min(2*pause, retryBlankMost) {
		err := m.client.WaitModelReady(ctx, m.cfg.Model, m.cfg.Version, func(reason error) {
			m.log.Debug("not ready", "reason", reason)
		})
		if err != nil {
			return m.failed(ctx, err)
		}
		if err = m.askBlank(ctx); err == nil {
			return nil
		}
		m.log.Debug("ready, and does not answer", "reason", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// askBlank has the model answer one blank page. It is nil as well when the server
// answered that it will not take the page just now or as it is: then it works,
// and the next request will learn the rest.
func (m *Model) askBlank(ctx context.Context) error {
	c := m.contract.Load()
	page := c.input(1)
	page.Raw = bytes.Repeat([]byte{255}, c.PageBytes())
	_, err := m.client.Infer(ctx, &tritonclient.InferRequest{
		Model: m.cfg.Model, Version: m.cfg.Version, Inputs: []tritonclient.Input{page},
	})
	switch tritonclient.KindOf(err) {
	case tritonclient.QueueFull, tritonclient.QueueTimeout, tritonclient.InvalidArgument,
		tritonclient.Restricted, tritonclient.TooLarge, tritonclient.BadResponse:
		return nil
	}
	return err
}
