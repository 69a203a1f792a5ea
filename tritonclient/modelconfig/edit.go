package modelconfig

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// editor collects what has to change in a text.
type editor struct {
	*source
	style   style
	splices []splice
}

// splice puts text in the place of a range.
type splice struct {
	span
	text string
}

func (e *editor) replace(s span, text string) { e.splices = append(e.splices, splice{s, text}) }
func (e *editor) insert(pos int, text string) { e.replace(span{pos, pos}, text) }

// result is the edited text.
func (e *editor) result() string { return e.within(span{0, len(e.text)}) }

// within is a part of the text with the changes to it. What is inserted at one
// place stands in the order of the calls.
func (e *editor) within(s span) string {
	slices.SortStableFunc(e.splices, func(a, b splice) int { return cmp.Compare(a.start, b.start) })
	var b strings.Builder
	pos := s.start
	for _, sp := range e.splices {
		// Fields that go one behind the other may both want the blank between.
		b.WriteString(e.text[pos:max(pos, sp.start)])
		b.WriteString(sp.text)
		pos = max(pos, sp.end)
	}
	b.WriteString(e.text[pos:s.end])
	return b.String()
}

// message makes a message in the text, which says old, say want.
func (e *editor) message(n *node, old, want protoreflect.Message) error {
	if len(n.fields) == 0 && n != e.root && !e.commented(n.body) {
		if n.kind == message && !isEmpty(want) {
			e.replace(n.value, e.style.message(want, e.indent(n.start), e.sameLine(n.value)))
		}
		return nil
	}
	fields := want.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if old.Has(fd) == want.Has(fd) && (!old.Has(fd) || old.Get(fd).Equal(want.Get(fd))) {
			continue
		}
		if err := e.field(n, fd, old, want); err != nil {
			return fmt.Errorf("%s: %w", fd.TextName(), err)
		}
	}
	return nil
}

func isEmpty(m protoreflect.Message) bool {
	empty := true
	m.Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
		empty = false
		return false
	})
	return empty
}

// field changes one field of a message. The two differ in it.
func (e *editor) field(n *node, fd protoreflect.FieldDescriptor, old, want protoreflect.Message) error {
	found := n.named(fd.TextName())
	gone := !want.Has(fd) && (fd.IsList() || fd.IsMap() || fd.HasPresence())
	switch {
	case gone:
		for _, f := range found {
			e.drop(f)
		}
	case len(found) == 0 || fd.Message() != nil && fd.Cardinality() == protoreflect.Repeated && len(elements(found)) == 0:
		for _, f := range found { // empty lists in brackets
			e.drop(f)
		}
		e.add(n, fd, func(indent string, oneLine bool) string { return e.style.field(fd, want.Get(fd), indent, oneLine) })
	case fd.IsMap():
		return e.entries(n, fd, found, old.Get(fd).Map(), want.Get(fd).Map())
	case fd.IsList() && fd.Message() != nil:
		return e.list(n, fd, found, old.Get(fd).List(), want.Get(fd).List())
	case fd.IsList():
		e.replace(found[0].value, e.style.scalars(fd, want.Get(fd).List()))
		for _, f := range found[1:] {
			e.drop(f)
		}
	case fd.Message() != nil:
		return e.message(found[0], old.Get(fd).Message(), want.Get(fd).Message())
	default:
		e.replace(found[0].value, likeBefore(literal(fd, want.Get(fd)), e.text[found[0].value.start:found[0].value.end]))
	}
	return nil
}

// element is one message of a repeated field: a field of its own, or an element
// of a list in brackets.
type element struct {
	*node
	list *node // nil if it is a field of its own
	says protoreflect.Message
}

// elements returns the messages of a repeated field in the text's order.
func elements(found []*node) (all []element) {
	for _, f := range found {
		for _, child := range f.fields {
			if f.kind == messageList {
				all = append(all, element{node: child, list: f})
			}
		}
		if f.kind == message {
			all = append(all, element{node: f})
		}
	}
	return all
}

// list changes a repeated field of messages. Those that are the same at the
// beginning and at the end stay; in between they are changed one by one, and what
// is left over is added or dropped.
func (e *editor) list(n *node, fd protoreflect.FieldDescriptor, found []*node, old, want protoreflect.List) error {
	all := elements(found)
	if len(all) != old.Len() {
		return errPlaces
	}
	for i := range all {
		all[i].says = old.Get(i).Message()
	}
	same := func(i, j int) bool { return old.Get(i).Equal(want.Get(j)) }
	oldEnd, wantEnd := old.Len(), want.Len()
	first := 0
	for first < min(oldEnd, wantEnd) && same(first, first) {
		first++
	}
	for min(oldEnd, wantEnd) > max(first, 1) && same(oldEnd-1, wantEnd-1) {
		oldEnd, wantEnd = oldEnd-1, wantEnd-1
	}
	for ; first < min(oldEnd, wantEnd); first++ {
		if err := e.message(all[first].node, all[first].says, want.Get(first).Message()); err != nil {
			return err
		}
	}
	e.dropElements(all, func(i int) bool { return first <= i && i < oldEnd })
	for i := first; i < wantEnd; i++ {
		if err := e.addElement(n, fd, all, all[first-1], want.Get(i).Message(), ""); err != nil {
			return err
		}
	}
	return nil
}

// entries changes a map. Of several entries with one key the last one counts.
func (e *editor) entries(n *node, fd protoreflect.FieldDescriptor, found []*node, old, want protoreflect.Map) error {
	all := elements(found)
	places := map[any]int{}
	for i := range all {
		says := dynamicpb.NewMessage(fd.Message())
		body := e.text[all[i].body.start:all[i].body.end]
		if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(body), says); err != nil {
			return err
		}
		all[i].says = says
		places[says.Get(fd.MapKey()).Interface()] = i
	}
	gone := func(i int) bool { return !want.Has(all[i].says.Get(fd.MapKey()).MapKey()) }
	last := len(all) - 1 // that stays
	for last > 0 && gone(last) {
		last--
	}
	e.dropElements(all, gone)
	for _, key := range sortedKeys(want) {
		if old.Has(key) && old.Get(key).Equal(want.Get(key)) {
			continue
		}
		entry := entryOf(fd, key, want.Get(key))
		var err error
		if i, ok := places[key.Interface()]; ok {
			err = e.message(all[i].node, all[i].says, entry)
		} else {
			err = e.addElement(n, fd, all, all[last], entry, key.String())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys(m protoreflect.Map) (keys []protoreflect.MapKey) {
	m.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return cmp.Compare(a.String(), b.String()) })
	return keys
}

// entryOf is a map's entry as the message that it is in the text.
func entryOf(fd protoreflect.FieldDescriptor, key protoreflect.MapKey, value protoreflect.Value) protoreflect.Message {
	entry := dynamicpb.NewMessage(fd.Message())
	entry.Set(fd.MapKey(), key.Value())
	entry.Set(fd.MapValue(), value)
	return entry
}

// add puts a field that the text does not have into a message. text gives it for
// a place with that indentation, on one line or on several.
func (e *editor) add(n *node, fd protoreflect.FieldDescriptor, text func(indent string, oneLine bool) string) {
	if c, ok := e.commentedOut(n, fd.TextName(), ""); ok {
		indent := e.indent(c.start)
		e.addLines(c.end, indent+text(indent, false))
		return
	}
	if len(n.fields) == 0 { // comments only
		if n == e.root {
			e.addLines(len(e.text), text("", false))
			return
		}
		outer := e.indent(n.start)
		indent := outer + e.style.unit
		for _, c := range e.comments {
			if n.body.start <= c.start && c.end <= n.body.end && e.first(c.start) {
				indent = e.indent(c.start)
			}
		}
		if e.first(n.body.end) {
			e.insert(e.lineStart(n.body.end), indent+text(indent, false)+e.style.newline)
		} else {
			e.insert(n.body.end, e.style.newline+indent+text(indent, false)+e.style.newline+outer)
		}
		return
	}
	e.addBehind(n, e.anchor(n, fd), text)
}

// anchor is the field that a new one is put behind: the nearest before it in the
// message's definition, else the last one.
func (e *editor) anchor(n *node, fd protoreflect.FieldDescriptor) *node {
	best, bestIndex := n.fields[len(n.fields)-1], -1
	for _, f := range n.fields {
		if d := fd.ContainingMessage().Fields().ByTextName(f.name); d != nil && d.Index() < fd.Index() && d.Index() >= bestIndex {
			best, bestIndex = f, d.Index()
		}
	}
	return best
}

// addBehind puts a field behind another one of the same message.
func (e *editor) addBehind(n, anchor *node, text func(indent string, oneLine bool) string) {
	end, separator := anchor.end, ""
	if pos := e.separator(anchor); pos >= 0 {
		end, separator = pos+1, e.plain[pos:pos+1]
	}
	indent := e.indent(anchor.start)
	behind := strings.TrimLeft(e.plain[end:e.lineEnd(end)], " \t\r")
	oneLine := n != e.root && e.sameLine(n.value)
	if !oneLine && behind == "" && e.first(anchor.start) {
		e.addLines(end, indent+text(indent, false)+separator)
		return
	}
	field := " " + text(indent, true) + separator
	if separator == "" {
		for _, f := range n.fields {
			if pos := e.separator(f); pos >= 0 {
				field = e.plain[pos:pos+1] + field
				break
			}
		}
	}
	if behind != "" && behind[0] == e.at(end) && !strings.ContainsRune("}>]", rune(behind[0])) {
		field += " " // the next field stood close behind the anchor
	}
	e.insert(end, field)
}

// addLines puts lines behind the line of pos.
func (e *editor) addLines(pos int, lines string) {
	end := strings.IndexByte(e.text[pos:], '\n')
	switch {
	case end >= 0:
		e.insert(pos+end+1, lines+e.style.newline)
	case pos == len(e.text) && e.lineStart(pos) == pos:
		e.insert(pos, lines+e.style.newline)
	default:
		e.insert(len(e.text), e.style.newline+lines)
	}
}

// addElement puts one more message of a repeated field behind another, written
// like one that is there.
func (e *editor) addElement(n *node, fd protoreflect.FieldDescriptor, all []element, behind element, want protoreflect.Message, key string) error {
	var like *element
	for i := range all {
		if !e.commented(all[i].span) && (all[i].list == nil) == (behind.list == nil) {
			like = &all[i]
		}
	}
	text := func(indent string, oneLine bool) string {
		if behind.list != nil {
			return e.style.message(want, indent, oneLine)
		}
		return e.style.named(fd, e.style.message(want, indent, oneLine || fd.IsMap()))
	}
	if like != nil {
		copied := &editor{source: e.source, style: e.style}
		if err := copied.message(like.node, like.says, want); err != nil {
			return err
		}
		text = func(string, bool) string { return copied.within(like.span) }
	}
	if behind.list == nil {
		if c, ok := e.commentedOut(n, fd.TextName(), key); ok && key != "" {
			e.addLines(c.end, e.indent(c.start)+text(e.indent(c.start), false))
			return nil
		}
		e.addBehind(n, behind.node, text)
		return nil
	}
	oneLine := !e.first(behind.start)
	indent, gap := e.indent(behind.start), " "
	if !oneLine {
		gap = e.style.newline + indent
	}
	if pos := e.separator(behind.node); pos >= 0 {
		e.insert(pos+1, gap+text(indent, oneLine)+",")
	} else {
		e.insert(behind.end, ","+gap+text(indent, oneLine))
	}
	return nil
}

// drop takes a field away, and its line if nothing else is on it.
func (e *editor) drop(f *node) {
	gone := f.span
	if pos := e.separator(f); pos >= 0 {
		gone.end = pos + 1
	}
	e.erase(gone)
}

// dropElements takes messages of a repeated field away. In a list their commas go
// too, and the one behind the last that stays if it was not the last.
func (e *editor) dropElements(all []element, gone func(i int) bool) {
	for i, el := range all {
		if !gone(i) {
			continue
		}
		if el.list == nil {
			e.drop(el.node)
			continue
		}
		ended := i+1 == len(all) || all[i+1].list != el.list
		for j := i; ended && j >= 0 && all[j].list == el.list; j-- {
			if pos := e.separator(all[j].node); !gone(j) && pos >= 0 {
				e.replace(span{pos, pos + 1}, "")
				break
			}
		}
		e.drop(el.node)
	}
}

// erase takes a range away with its line or the blanks beside it.
func (e *editor) erase(gone span) {
	first, last := e.first(gone.start), e.last(gone.end)
	switch {
	case first && last:
		gone.start = e.lineStart(gone.start)
		if i := strings.IndexByte(e.text[gone.end:], '\n'); i >= 0 {
			gone.end += i + 1
		} else {
			gone.end = len(e.text)
		}
	case first:
		for strings.IndexByte(" \t", e.at(gone.end)) >= 0 && e.text[gone.end] != '#' {
			gone.end++
		}
	default:
		for gone.start > 0 && strings.IndexByte(" \t", e.text[gone.start-1]) >= 0 {
			gone.start--
		}
	}
	e.replace(gone, "")
}

// commented tells whether there is a comment in a range.
func (e *editor) commented(s span) bool {
	return slices.ContainsFunc(e.comments, func(c span) bool { return s.start <= c.start && c.start < s.end })
}

// commentedOut finds lines of a message that give a field and are comments:
// "# name: value", "# name {" and so on to the closing brace. Of a map's field it
// is the one with that key.
func (e *editor) commentedOut(n *node, name, key string) (found span, ok bool) {
	for i, c := range e.comments {
		if !e.first(c.start) || c.start < n.body.start || c.end > n.body.end ||
			slices.ContainsFunc(n.fields, func(f *node) bool { return f.start <= c.start && c.start < f.end }) {
			continue
		}
		line := strings.TrimLeft(e.text[c.start:c.end], "# \t")
		rest, isField := strings.CutPrefix(line, name)
		rest = strings.TrimLeft(rest, " \t")
		if !isField || rest == "" || !strings.ContainsRune(":{<[", rune(rest[0])) || key != "" && !strings.Contains(rest, `"`+key+`"`) {
			continue
		}
		found, ok = c, true
		depth := openBraces(rest)
		for _, next := range e.comments[i+1:] {
			if depth <= 0 || !e.first(next.start) || e.lineStart(next.start) > e.lineEnd(found.end)+2 {
				break
			}
			found.end = next.end
			depth += openBraces(e.text[next.start:next.end])
		}
	}
	return found, ok
}

// openBraces counts the braces that are opened and not closed.
func openBraces(s string) (n int) {
	for _, c := range s {
		switch c {
		case '{', '[', '<':
			n++
		case '}', ']', '>':
			n--
		}
	}
	return n
}
