//go:build linux

package render

import (
	"context"
	"image"

	"quire/orchestrator"
)

// Pictures draws pages for people to look at: undistorted, at a size of their
// own. It has a worker process of its own and is used by one goroutine at a
// time, with one document open.
type Pictures struct{ worker *worker }

// NewPictures starts a worker process that draws each page as large as it fits
// into width×height pixels.
func (p *Pool) NewPictures(ctx context.Context, width, height int) (*Pictures, error) {
	w, err := p.newWorker(ctx, raster{width: width, height: height, fit: true})
	if err != nil {
		return nil, err
	}
	return &Pictures{w}, nil
}

// Open is as [orchestrator.RenderWorker] has it.
func (p *Pictures) Open(ctx context.Context, doc orchestrator.Document) (pages int, err error) {
	return p.worker.Open(ctx, doc)
}

// Draw draws one page (1-based) of the open document, opaque. Errors are as
// [orchestrator.RenderWorker] has them.
func (p *Pictures) Draw(ctx context.Context, page int) (*image.RGBA, orchestrator.Geometry, error) {
	d, err := p.worker.draw(ctx, page)
	if err != nil {
		return nil, d.geometry, err
	}
	picture := image.NewRGBA(image.Rect(0, 0, d.width, d.height))
	for i, j := 0, 0; j < len(d.pixels); i, j = i+4, j+3 {
		rgba := picture.Pix[i : i+4 : i+4]
		rgba[0], rgba[1], rgba[2], rgba[3] = d.pixels[j], d.pixels[j+1], d.pixels[j+2], 255
	}
	return picture, d.geometry, nil
}

// Close ends the worker process. It is idempotent.
func (p *Pictures) Close() error { return p.worker.Close() }
