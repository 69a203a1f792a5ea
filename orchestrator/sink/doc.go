// Package sink keeps the results of a run in a directory tree that mirrors the
// input: one JSON file for each document, written whole or not at all.
//
// # The tree
//
//	OUT/sub/a.pdf.json   the result of sub/a.pdf
//	OUT/sub/a.pdf.pages/0001.png
//	                     a picture of its first page, where pictures were asked for
//	OUT/failed.jsonl     what failed: one line for each page or document, sorted
//	OUT/run.json         what gave these results: tool, model, options; an account
//	OUT/.quire/          work in progress, and what is finished, for the next run
//
// # A result
//
// A result is one JSON object with a line for the document and a line for each
// page, in page order. [Document] is its shape and [ReadDocument] reads it. The
// same input gives the same bytes: no times, no attempts, keys in a fixed order,
// boxes and lengths with two decimals, scores with four.
//
// # Going on
//
// Pages of documents in work go to a journal, and documents that are finished
// to a ledger, so that a run goes on where the one before has stopped, however
// that was. docs/resume.md has the files and the rules.
package sink
