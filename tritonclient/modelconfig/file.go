package modelconfig

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

// File is the text of a config.pbtxt and what it says. It is never changed, so
// it may be used from several goroutines.
type File struct {
	path, repository string // empty if the text is of no file
	text             string
	config           *inferencepb.ModelConfig
}

// Parse reads a config's text, in protobuf's text format. Fields that this
// program's version of the message does not have are passed over, and kept by
// every edit.
func Parse(text []byte) (*File, error) {
	f := &File{text: string(text), config: new(inferencepb.ModelConfig)}
	if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, f.config); err != nil {
		return nil, fmt.Errorf("not a model config: %w", err)
	}
	return f, nil
}

// Path is the file that the text was read from, with symbolic links resolved;
// empty if it came from Parse.
func (f *File) Path() string { return f.path }

// Text is the whole text.
func (f *File) Text() string { return f.text }

// Config returns what the text says, for the caller to change and keep.
func (f *File) Config() *inferencepb.ModelConfig { return proto.CloneOf(f.config) }

// Update returns f with its text changed so that it says config. It fails
// where that cannot be done by changing fields one by one; f is what it was.
//
// What is new is written the way its neighbours are, behind the field that comes
// before it in the message's definition; where a line has been commented out that
// gave the same field, or the same key of a map, behind that. A field that goes
// takes along the comments inside it, and no others. A scalar that becomes 0
// where the text gives it stays there as 0.
func (f *File) Update(config *inferencepb.ModelConfig) (*File, error) {
	if proto.Equal(f.config, config) {
		return f, nil
	}
	src, err := newSource(f.text)
	if err != nil {
		return nil, f.refuse(err)
	}
	e := &editor{source: src, style: src.style()}
	if err := e.message(src.root, f.config.ProtoReflect(), config.ProtoReflect()); err != nil {
		return nil, f.refuse(err)
	}
	edited, err := Parse([]byte(e.result()))
	if err != nil {
		return nil, f.refuse(err)
	}
	if !proto.Equal(edited.config, config) {
		return nil, f.refuse(errors.New("the edited text says something else"))
	}
	edited.path, edited.repository = f.path, f.repository
	return edited, nil
}

// refuse says that an edit cannot be made.
func (f *File) refuse(err error) error {
	name := f.path
	if name == "" {
		name = "the model config"
	}
	reason, _, _ := strings.Cut(err.Error(), "\n") // the parser of txtpbfmt goes on for lines
	return fmt.Errorf("%s cannot be edited by program: %s; make the change by hand", name, reason)
}

// Diff returns the unified difference between two texts of one file, empty if
// there is none.
func (f *File) Diff(edited *File) string {
	name := f.path
	if name == "" {
		name = "config.pbtxt"
	}
	_, unified, _ := strings.Cut(string(diff.Diff(name, []byte(f.text), name, []byte(edited.text))), "\n") // without the line of the command
	return unified
}
