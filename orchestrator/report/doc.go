// Package report makes results fit to be looked at: pictures of pages with
// their regions drawn in.
package report
