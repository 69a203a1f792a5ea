// Package verify tells whether a server's answers can be trusted: whether they
// depend on what else is in a batch, on how the pages travel, and whether they
// are those of the pipeline that the model comes from.
//
// A model that is right gives a page the same regions however it is asked. What
// spoils that in practice are kernels that compute otherwise for other batch
// sizes, engines in reduced precision, padding that leaks from one page into
// another, and a server that mixes up who asked.
package verify
