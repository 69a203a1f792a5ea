package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"image"
	"sync"

	"golang.org/x/image/draw"
)

// DetectBatch returns the regions of images of any size, in order, with boxes
// in pixels of each image. Images are scaled to the model's input without
// keeping their aspect, as pages are, and laid on white where transparent. They
// share batches with all other callers. The error is the first failure, if any;
// the results tell which images have one.
func (d *Detector) DetectBatch(ctx context.Context, images []image.Image) ([]PageResult, error) {
	results := make([]PageResult, len(images))
	errs := make([]error, len(images))
	var group sync.WaitGroup
	defer group.Wait()
	for i, img := range images {
		ref := PageRef{Path: fmt.Sprintf("image %d", i), Page: 1}
		if img == nil || img.Bounds().Empty() {
			e := &PageError{Ref: ref, Stage: StageRender, Category: CategoryPageSize, Message: "the image has no pixels"}
			results[i], errs[i] = PageResult{Ref: ref, Status: StatusFailed, Err: e}, e
			continue
		}
		// Admission in the caller's goroutine keeps the goroutines bounded.
		leave, err := d.admit(ctx, true)
		if err != nil {
			results[i], errs[i] = PageResult{Ref: ref, Status: StatusCancelled}, err
			continue
		}
		d.batches.Expect(1)
		group.Go(func() {
			defer leave()
			results[i], errs[i] = d.detectImage(ctx, ref, img)
		})
	}
	group.Wait()
	return results, errors.Join(errs...)
}

// detectImage uses up one announcement to the batcher.
func (d *Detector) detectImage(ctx context.Context, ref PageRef, img image.Image) (PageResult, error) {
	p := newPage(d, ctx, ref)
	bounds := img.Bounds()
	p.frame = Frame{Width: float64(bounds.Dx()), Height: float64(bounds.Dy())}
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(d.ctx, func() { cancel(ErrClosed) })()
		select {
		case d.scaling <- struct{}{}:
			defer func() { <-d.scaling }()
		case <-ctx.Done():
			d.batches.Withdraw()
			p.cancel()
			return
		}
		in := d.raster
		raster := image.NewRGBA(image.Rect(0, 0, in.Width, in.Height))
		draw.Draw(raster, raster.Bounds(), image.White, image.Point{}, draw.Src)
		if bounds.Dx() == in.Width && bounds.Dy() == in.Height {
			draw.Draw(raster, raster.Bounds(), img, bounds.Min, draw.Over)
		} else {
			draw.BiLinear.Scale(raster, raster.Bounds(), img, bounds, draw.Over, nil)
		}
		p.join(ctx, func(dst []byte) { packRGB(dst, raster.Pix) })
	}()
	r, err := p.wait(func() {})
	<-joined
	return r, err
}

// packRGB drops the alpha bytes of opaque RGBA pixels.
func packRGB(dst, rgba []byte) {
	for i, j := 0, 0; j < len(rgba); i, j = i+3, j+4 {
		dst[i], dst[i+1], dst[i+2] = rgba[j], rgba[j+1], rgba[j+2]
	}
}
