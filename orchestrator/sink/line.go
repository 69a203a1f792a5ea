package sink

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
)

// The files of the work directory are lines of JSON. A line's first key is the
// checksum of the rest, the eight hexadecimal digits of a CRC-32C:
//
//	{"crc":"1a2b3c4d","event":"begun"}
//
// is checked over the bytes from the comma's right to the closing brace.
const (
	lineStart = `{"crc":"`
	lineSeam  = len(lineStart) + 2*crc32.Size + len(`"`) // where the comma is
	// maxLine bounds a line, so that a file that is none of ours takes no memory.
	maxLine = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine appends a line whose content is body, in pieces a JSON object on one
// line with one key at least; the first piece is not empty.
func appendLine(b []byte, body ...[]byte) []byte {
	b = append(b, lineStart...)
	at := len(b)
	b = append(b, `00000000",`...)
	rest := len(b)
	for i, piece := range body {
		if i == 0 {
			piece = piece[1:]
		}
		b = append(b, piece...)
	}
	appendSum(b[:at], b[rest:])
	return append(b, '\n')
}

func appendSum(b, of []byte) []byte {
	var sum [crc32.Size]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(of, castagnoli))
	return hex.AppendEncode(b, sum[:])
}

// openLine returns the content of a line (without its end), if it is what was
// written. The content lies in the line's own bytes, one of which changes.
func openLine(line []byte) (body []byte, ok bool) {
	if len(line) < lineSeam+2 || string(line[:len(lineStart)]) != lineStart || line[lineSeam-1] != '"' || line[lineSeam] != ',' {
		return nil, false
	}
	var sum [2 * crc32.Size]byte
	if !bytes.Equal(line[len(lineStart):lineSeam-1], appendSum(sum[:0], line[lineSeam+1:])) {
		return nil, false
	}
	line[lineSeam] = '{'
	return line[lineSeam:], true
}

// lineReader reads lines and leaves out what is damaged.
type lineReader struct {
	in   *bufio.Reader
	long []byte // a line longer than in's buffer
	at   int64  // where the next line begins
	good int64  // where the last good one ended
	lost int64  // bytes of lines that are damaged
}

// newLineReader reads a file from offset at, which is the beginning of a line.
func newLineReader(f io.ReaderAt, at int64) *lineReader {
	r := &lineReader{in: bufio.NewReaderSize(nil, 32<<10)}
	r.reset(f, at)
	return r
}

func (r *lineReader) reset(f io.ReaderAt, at int64) {
	r.in.Reset(io.NewSectionReader(f, at, 1<<62))
	r.at, r.good = at, at
}

// next returns the content of the next good line, which lives until the next
// call, and where the line begins. At the end of the file it returns io.EOF.
func (r *lineReader) next() (body []byte, at int64, err error) {
	for {
		line, size, err := r.line()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		at = r.at
		r.at += size
		if err == nil { // what has no end is torn
			if body, ok := openLine(line); ok {
				r.good = r.at
				return body, at, nil
			}
		}
		r.lost += size
		if err != nil {
			return nil, 0, err
		}
	}
}

// line reads up to and with the next line end, or with io.EOF what is left. Of
// a line that is too long it gives only the size.
func (r *lineReader) line() (line []byte, size int64, err error) {
	line, err = r.in.ReadSlice('\n')
	size = int64(len(line))
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimSuffix(line, []byte("\n")), size, err
	}
	r.long = append(r.long[:0], line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = r.in.ReadSlice('\n')
		size += int64(len(line))
		if size <= maxLine {
			r.long = append(r.long, line...)
		}
	}
	if size > maxLine {
		return nil, size, err
	}
	return bytes.TrimSuffix(r.long, []byte("\n")), size, err
}
