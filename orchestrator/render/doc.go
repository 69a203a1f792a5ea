// Package render draws pages of documents in worker processes.
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
// asked for. Before its first document a process gives up all that it does not
// need for drawing, see [Sandbox].
//
// Documents are PDFs. With Config.OtherFormats these are opened too, told by the
// end of the name, in capitals or not, and never by content:
//
//	.bmp .gif .jb2 .jbig2 .jpeg .jpg .jp2 .j2k .jpx .jpf .pbm .pgm .ppm .pnm .png .psd .tif .tiff
//	          images; a TIFF has a page for each of its images
//	.cbz .cbt archives of images (ZIP, tar), a page each, by name
//	.svg      drawings; what they refer to outside themselves is left out
//	.xps .oxps
//	.epub .fb2 .mobi .htm .html .xhtml .txt
//	          laid out on pages of A5 (420×595 points) in letters of 11 points
//
// Their lengths are points, by the image's resolution where it tells one and 96
// pixels to the inch where not; Rotation is 0 and CropBox the page.
//
// Messages travel as JSON over a SOCK_SEQPACKET pair, one message a packet. A
// worker reads files from anywhere, so what it says is checked.
package render
