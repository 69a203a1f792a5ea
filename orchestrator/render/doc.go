// Package render draws pages of PDF documents in worker processes.
//
// MuPDF without locks cannot have two documents open in one process, some
// pages never finish and some crash it, so each [orchestrator.RenderWorker] is
// a process of its own: a copy of this program that [Main] turns into a
// renderer. It has one document open, given as a descriptor and never as a
// path, and draws one page at a time straight at the model's input size into
// memory that both processes map.
//
// What goes wrong costs one page. A page is stopped inside MuPDF at its
// deadline, and when that does not help the process is killed; memory is
// counted by MuPDF's allocator, with a resource limit behind it; a process
// that died is replaced, and opens the document again, when the next page is
// asked for.
//
// Messages travel as JSON over a SOCK_SEQPACKET pair, one message a packet. A
// worker reads files from anywhere, so what it says is checked.
package render
