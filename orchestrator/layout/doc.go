// Package layout is the contract with the layout model that a Triton server
// serves: what goes in, what comes out, and what is made of it.
//
// Everything that describes the model (raster size, batch size, number of
// detections, labels, thresholds) is read from the served configuration, so
// that another model of the same shape needs no change here. The answer of the
// model is a fixed number of decoded boxes a page; threshold, non-maximum
// suppression, clipping, mapping to the page's own coordinates, the common
// label words and the reading order are made here.
package layout
