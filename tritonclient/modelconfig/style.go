package modelconfig

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quire/tritonclient/inferencepb"
)

// style is how a text is written.
type style struct {
	newline string
	unit    string // one step of indentation
	colon   bool   // "name: {" rather than "name {"
}

// style finds out how the text is written.
func (s *source) style() style {
	st := style{newline: "\n", unit: "  "}
	if i := strings.IndexByte(s.text, '\n'); i > 0 && s.text[i-1] == '\r' {
		st.newline = "\r\n"
	}
	with, without, found := 0, 0, false
	var look func(n *node)
	look = func(n *node) {
		if n.name != "" && n.kind != scalar {
			if strings.Contains(s.plain[n.start:n.value.start], ":") {
				with++
			} else {
				without++
			}
		}
		for _, f := range n.fields {
			outer, inner := s.indent(n.start), s.indent(f.start)
			if !found && n != s.root && s.first(f.start) && len(inner) > len(outer) && strings.HasPrefix(inner, outer) {
				st.unit, found = inner[len(outer):], true
			}
			look(f)
		}
	}
	look(s.root)
	st.colon = with > without
	return st
}

// field writes a whole field. A repeated field of messages is a list in
// brackets, a map an entry after the other.
func (st style) field(fd protoreflect.FieldDescriptor, v protoreflect.Value, indent string, oneLine bool) string {
	switch {
	case fd.IsMap():
		var entries []string
		for _, key := range sortedKeys(v.Map()) {
			entries = append(entries, st.named(fd, st.message(entryOf(fd, key, v.Map().Get(key)), indent, true)))
		}
		if oneLine {
			return strings.Join(entries, " ")
		}
		return strings.Join(entries, st.newline+indent)
	case fd.IsList() && fd.Message() != nil:
		items := make([]string, v.List().Len())
		for i := range items {
			items[i] = st.message(v.List().Get(i).Message(), indent+st.unit, oneLine)
		}
		if oneLine {
			return st.named(fd, "[ "+strings.Join(items, ", ")+" ]")
		}
		step := st.newline + indent + st.unit
		return st.named(fd, "["+step+strings.Join(items, ","+step)+st.newline+indent+"]")
	case fd.IsList():
		return fd.TextName() + ": " + st.scalars(fd, v.List())
	case fd.Message() != nil:
		return st.named(fd, st.message(v.Message(), indent, oneLine))
	}
	return fd.TextName() + ": " + literal(fd, v)
}

// named puts a field's name before its message or list.
func (st style) named(fd protoreflect.FieldDescriptor, value string) string {
	if st.colon {
		return fd.TextName() + ": " + value
	}
	return fd.TextName() + " " + value
}

// message writes a message with its braces.
func (st style) message(m protoreflect.Message, indent string, oneLine bool) string {
	var fields []string
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		if fd := all.Get(i); m.Has(fd) {
			fields = append(fields, st.field(fd, m.Get(fd), indent+st.unit, oneLine))
		}
	}
	if len(fields) == 0 {
		return "{ }"
	}
	if oneLine {
		return "{ " + strings.Join(fields, " ") + " }"
	}
	step := st.newline + indent + st.unit
	return "{" + step + strings.Join(fields, step) + st.newline + indent + "}"
}

// scalars writes the value of a repeated field of scalars.
func (st style) scalars(fd protoreflect.FieldDescriptor, list protoreflect.List) string {
	items := make([]string, list.Len())
	for i := range items {
		items[i] = literal(fd, list.Get(i))
	}
	return "[ " + strings.Join(items, ", ") + " ]"
}

// literal writes one scalar.
func literal(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch fd.Kind() {
	case protoreflect.EnumKind:
		if value := fd.Enum().Values().ByNumber(v.Enum()); value != nil {
			return string(value.Name())
		}
		return strconv.Itoa(int(v.Enum()))
	case protoreflect.StringKind:
		return quoted(v.String())
	case protoreflect.BytesKind:
		return quoted(string(v.Bytes()))
	}
	return fmt.Sprint(v.Interface())
}

// quoted writes a string the way protobuf does.
func quoted(s string) string {
	text, err := prototext.MarshalOptions{}.Marshal(&inferencepb.ModelParameter{StringValue: s})
	if err != nil || s == "" { // not UTF-8; what is wrong with it shows when the text is read again
		return strconv.Quote(s)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(text), "string_value:"))
}

// likeBefore puts a string into single quotes if the one before it was.
func likeBefore(value, before string) string {
	if strings.HasPrefix(before, "'") && strings.HasPrefix(value, `"`) && !strings.ContainsAny(value, `'\`) {
		return "'" + value[1:len(value)-1] + "'"
	}
	return value
}
