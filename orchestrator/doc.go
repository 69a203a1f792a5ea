// Package orchestrator moves pages of PDF documents through a layout model,
// each exactly once: it holds the words (Document, Page, Region), the seams
// that the parts plug into (Source, Renderer, Model, Sink) and the engine
// between them.
//
// # Use
//
// [New] makes a [Detector] of a model (orchestrator/layout has the one that a
// Triton serves) and a renderer (orchestrator/render has MuPDF's). It has four
// doors, and pages that come in by any of them share batches:
//
//   - [Detector.Detect]: one page of a file; waits while the queue is full;
//   - [Detector.TryDetect]: the same, but refuses with [ErrBusy];
//   - [Detector.DetectBatch]: images, answered in their own pixels;
//   - [Detector.Run]: the documents of a [Source] into a [Sink].
//
// The tests of package orchestrator/endtoend have examples with all their parts.
//
// # Failures
//
// The page is the unit of failure. A page that cannot be drawn or answered is a
// [*PageError] with a [Stage] and a stable [Category]; its neighbours are not
// touched. A server that is busy or away costs time and no page, up to
// Config.ServerWait; after that a run ends with a [*ServerError]. Several servers
// with the same model (Config.Endpoints; layout.OpenFleet finds them and has them
// come and go) stand in for each other.
//
// A panic in what the caller brings (a Model, a Renderer, a Sink, a document's
// Open) ends the program, as it would on any goroutine: these are called on
// goroutines of the engine's. One of a Source comes back to the caller of Run.
//
// # Memory
//
// Everything between a door and its answer is bounded. [Detector.MemoryBound]
// is what page buffers take; it does not grow with the number or the length of
// documents. Beside it [Detector.DetectBatch] takes up to 512 MiB for each image that
// it scales, Config.Workers of them at once: for images as they come from scanners and
// cameras far less.
package orchestrator
