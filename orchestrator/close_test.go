package orchestrator

import (
	"context"
	"errors"
	"image"
	"image/color"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Close waits for workers, whatever they do.
func TestCloseWaitsForWorkers(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 1}, draw: func(context.Context, string, int) error {
			time.Sleep(time.Second)
			return nil
		}}
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 2})
		go d.Detect(t.Context(), path, 1)
		time.Sleep(time.Millisecond)
		d.Close()
		if r.live != 0 {
			t.Errorf("%d workers live on", r.live)
		}
	})
}

// slowImage takes its time to be scaled.
type slowImage struct {
	image.Image
	looked chan struct{}
	once   *sync.Once
}

func (s slowImage) At(x, y int) color.Color {
	s.once.Do(func() { close(s.looked); time.Sleep(time.Second) })
	return s.Image.At(x, y)
}

// Close waits for calls with an image in hand: that is the caller's, and goes to
// memory that Close gives back.
func TestCloseWaitsForImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDetector(t, Config{Model: newFakeModel(), Workers: 1})
		img := slowImage{image.NewGray(image.Rect(0, 0, 40, 20)), make(chan struct{}), &sync.Once{}}
		returned := make(chan time.Time, 1)
		start := time.Now()
		go func() {
			if _, err := d.DetectBatch(t.Context(), []image.Image{img}); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			returned <- time.Now()
		}()
		<-img.looked
		d.Close()
		if took := time.Since(start); took != time.Second || (<-returned).Sub(start) != time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestCloseReturnsEveryCall(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = never
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 100}}, Queue: 20, Workers: 2, ServerWait: -1})
		var wg sync.WaitGroup
		for page := 1; page <= 40; page++ {
			wg.Go(func() {
				if _, err := d.Detect(t.Context(), path, page); !errors.Is(err, ErrClosed) {
					t.Errorf("page %d: %v", page, err)
				}
			})
		}
		synctest.Wait()
		d.Close()
		wg.Wait()
	})
}
