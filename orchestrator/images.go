package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"image"
	"sync"

	"golang.org/x/image/draw"
)

// maxScaling is the most memory that scaling one image may take, in bytes. The
// default model's input is 608 pixels wide; that is enough for 27,000 rows.
const maxScaling = 512 << 20

// scalingBytes is what scaling an image to width pixels takes beside the raster:
// draw.BiLinear has four float64 for each row of the image and each column of the
// raster, and two weights of 16 bytes for each row and each column of the image. These
// are float64 since an image may say that it is of any size.
func scalingBytes(width int, columns, rows float64) float64 {
	return 32 * (float64(width)*rows + rows + columns)
}

// DetectBatch returns the regions of images, which may differ in size, in order,
// with boxes in pixels of each image. Images are scaled to the model's input
// without keeping their aspect, as pages are, and laid on white where transparent;
// one that would take more than 512 MiB to scale fails. They share batches with all
// other callers. The error is all failures joined, nil if there is none; the results
// tell which images have one. Scaling cannot be stopped: when ctx ends, or Close is
// called, that of the images in hand is waited for, and they are the caller's again
// when DetectBatch has returned.
func (d *Detector) DetectBatch(ctx context.Context, images []image.Image) ([]PageResult, error) {
	results := make([]PageResult, len(images))
	errs := make([]error, len(images))
	var group sync.WaitGroup
	defer group.Wait()
	for i, img := range images {
		ref := PageRef{Path: fmt.Sprintf("image %d", i), Page: 1}
		if message := d.cannotScale(img); message != "" {
			e := &PageError{Ref: ref, Stage: StageRender, Category: CategoryPageSize, Message: message}
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

// cannotScale tells why an image cannot be made the model's input; empty if it can.
func (d *Detector) cannotScale(img image.Image) string {
	if img == nil || img.Bounds().Empty() {
		return "the image has no pixels"
	}
	r := img.Bounds()
	columns, rows := float64(r.Max.X)-float64(r.Min.X), float64(r.Max.Y)-float64(r.Min.Y)
	if bytes := scalingBytes(d.raster.Width, columns, rows); bytes > maxScaling {
		return fmt.Sprintf("scaling the image of %.0f×%.0f pixels takes %.0f MiB, the limit is %d MiB: make it smaller first",
			columns, rows, bytes/(1<<20), maxScaling>>20)
	}
	return ""
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
	r, err := p.wait()
	<-joined
	return r, err
}

// packRGB drops the alpha bytes of opaque RGBA pixels.
func packRGB(dst, rgba []byte) {
	for i, j := 0, 0; j < len(rgba); i, j = i+3, j+4 {
		dst[i], dst[i+1], dst[i+2] = rgba[j], rgba[j+1], rgba[j+2]
	}
}
