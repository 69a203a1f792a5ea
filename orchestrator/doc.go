// Package orchestrator moves pages of PDF documents through a layout model,
// each exactly once: it holds the words (Document, Page, Region), the seams
// that the parts plug into (Source, Renderer, Model, Sink) and the engine
// between them.
package orchestrator
