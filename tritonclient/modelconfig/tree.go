package modelconfig

import (
	"errors"
	"fmt"
	"strings"

	"github.com/protocolbuffers/txtpbfmt/ast"
	"github.com/protocolbuffers/txtpbfmt/parser"
)

// span is a range of bytes of the text.
type span struct{ start, end int }

// node is a field as it stands in the text, or one element of a list of
// messages, which has no name. The whole text is a node too.
type node struct {
	span          // from the name to the end of the value, without a separator behind it
	name   string // empty for an element of a list
	kind   kind
	value  span    // with its delimiters
	body   span    // of a message or a list: what lies between the delimiters
	fields []*node // of a message; of a list of messages its elements
}

type kind int

const (
	scalar      kind = iota // one value, or the pieces of one string
	message                 // { … } or < … >
	scalarList              // [ 1, 2 ]
	messageList             // [ { … }, { … } ]
)

// named returns the fields of a message that have a name, in the text's order.
func (n *node) named(name string) (found []*node) {
	for _, f := range n.fields {
		if f.name == name {
			found = append(found, f)
		}
	}
	return found
}

// source is a text with the places of what is in it.
type source struct {
	text     string
	plain    string // what is parsed, see blank
	comments []span // each without its line break
	root     *node
}

// newSource finds the fields of a text that is known to be valid.
func newSource(text string) (*source, error) {
	plain, comments := blank(text)
	nodes, err := parser.Parse([]byte(plain))
	if err != nil {
		return nil, err
	}
	s := &source{text: text, plain: plain, comments: comments}
	whole := span{0, len(text)}
	s.root = &node{span: whole, kind: message, value: whole, body: whole}
	s.root.fields, err = s.locate(nodes)
	return s, err
}

// blank returns a copy of a text, of the same length, in which positions mean
// the same and the parser of txtpbfmt is on safe ground: comments are blanks (it
// takes orders from some), strings have no content, carriage returns are blanks,
// and messages are always delimited by braces, since it knows lists of no other.
func blank(text string) (_ string, comments []span) {
	plain := []byte(text)
	for i := 0; i < len(plain); i++ {
		switch c := plain[i]; c {
		case '<':
			plain[i] = '{'
		case '>':
			plain[i] = '}'
		case '\r':
			plain[i] = ' '
		case '#':
			start := i
			for ; i < len(plain) && plain[i] != '\n'; i++ {
				plain[i] = ' '
			}
			comments = append(comments, span{start, start + len(strings.TrimSuffix(text[start:i], "\r"))})
		case '"', '\'':
			for i++; i < len(plain) && plain[i] != c && plain[i] != '\n'; i++ {
				if plain[i] == '\\' && i+1 < len(plain) && plain[i+1] != '\n' {
					plain[i] = 'x'
					i++
				}
				plain[i] = 'x'
			}
		}
	}
	return string(plain), comments
}

// locate turns the parser's nodes into ours: it says where a field or what is
// before it begins, and where a message ends; the rest is one step from there.
func (s *source) locate(nodes []*ast.Node) ([]*node, error) {
	var fields []*node
	for _, from := range nodes {
		if from.IsCommentOnly() {
			continue
		}
		n, err := s.field(from)
		if err != nil {
			return nil, err
		}
		fields = append(fields, n)
	}
	return fields, nil
}

var errPlaces = errors.New("the text's structure is not understood")

func (s *source) field(from *ast.Node) (*node, error) {
	n := &node{name: from.Name}
	n.start = s.skip(int(from.Start.Byte))
	pos := n.start
	if n.name != "" {
		if !strings.HasPrefix(s.plain[pos:], n.name) {
			return nil, fmt.Errorf("%w: %q is not at byte %d", errPlaces, n.name, pos)
		}
		if pos = s.skip(pos + len(n.name)); s.at(pos) == ':' {
			pos = s.skip(pos + 1)
		}
	}
	n.value.start, n.body.start = pos, pos+1
	var err error
	switch {
	case from.ChildrenAsList:
		n.kind = messageList
		n.body.end = s.skip(int(from.End.Byte))
		err = errors.Join(s.expect(pos, '['), s.expect(n.body.end, ']'))
	case from.ValuesAsList:
		n.kind = scalarList
		n.body.end = pos + strings.IndexByte(s.plain[pos:], ']')
		err = errors.Join(s.expect(pos, '['), s.expect(n.body.end, ']'))
	case from.Children != nil:
		n.kind = message
		n.body.end = s.skip(int(from.End.Byte))
		err = errors.Join(s.expect(pos, '{'), s.expect(n.body.end, '}'))
	default:
		n.body = span{}
		n.value.end = s.scalarEnd(pos)
		n.end = n.value.end
		if n.value.end == pos {
			return nil, fmt.Errorf("%w: no value at byte %d", errPlaces, pos)
		}
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	n.value.end = n.body.end + 1
	n.end = n.value.end
	n.fields, err = s.locate(from.Children)
	return n, err
}

// at is the byte at a position, 0 behind the end.
func (s *source) at(pos int) byte {
	if pos < 0 || pos >= len(s.plain) {
		return 0
	}
	return s.plain[pos]
}

func (s *source) expect(pos int, c byte) error {
	if got := s.at(pos); got != c {
		return fmt.Errorf("%w: %q instead of %q at byte %d", errPlaces, got, c, pos)
	}
	return nil
}

// skip returns the first position from pos on that is neither blank nor comment.
func (s *source) skip(pos int) int {
	for pos < len(s.plain) && strings.IndexByte(" \t\n", s.plain[pos]) >= 0 {
		pos++
	}
	return pos
}

// scalarEnd returns the end of the value at pos: a word, or strings in a row.
func (s *source) scalarEnd(pos int) int {
	quoted := func() bool { return s.at(pos) == '"' || s.at(pos) == '\'' }
	end := pos
	if !quoted() {
		for end < len(s.plain) && strings.IndexByte(" \t\n{}:,[];", s.plain[end]) < 0 {
			end++
		}
		return end
	}
	for quoted() {
		quote := s.plain[pos]
		for pos++; pos < len(s.plain) && s.plain[pos] != quote; pos++ {
		}
		end = min(pos+1, len(s.plain))
		pos = s.skip(end)
	}
	return end
}

// separator returns the position of the comma or semicolon behind a field, or -1.
func (s *source) separator(n *node) int {
	if pos := s.skip(n.end); s.at(pos) == ',' || s.at(pos) == ';' {
		return pos
	}
	return -1
}

// lineStart is where the line of a position begins, lineEnd where it ends,
// before its break.
func (s *source) lineStart(pos int) int {
	return strings.LastIndexByte(s.text[:pos], '\n') + 1
}

func (s *source) lineEnd(pos int) int {
	end := len(s.text)
	if i := strings.IndexByte(s.text[pos:], '\n'); i >= 0 {
		end = pos + i
	}
	if end > pos && s.text[end-1] == '\r' {
		end--
	}
	return end
}

// indent is the white space that a position's line begins with.
func (s *source) indent(pos int) string {
	start := s.lineStart(pos)
	end := start
	for end < len(s.text) && (s.text[end] == ' ' || s.text[end] == '\t') {
		end++
	}
	return s.text[start:end]
}

// first tells whether start is the first thing on its line, last whether nothing
// stands behind end.
func (s *source) first(start int) bool {
	return s.lineStart(start)+len(s.indent(start)) >= start
}

func (s *source) last(end int) bool {
	return strings.TrimLeft(s.text[end:s.lineEnd(end)], " \t") == ""
}

// sameLine tells whether a range lies on one line.
func (s *source) sameLine(r span) bool { return s.lineStart(r.start) == s.lineStart(r.end) }
