package orchestrator

import (
	"slices"
	"sync"
)

// chunk is how many pages of one document a worker draws before another worker
// may take the next ones: long enough that opening the document twice is cheap
// beside it, short enough that the last document of a run is shared.
const chunk = 16

// detectTask is one page that Detect wants.
type detectTask struct {
	page   *page
	doc    Document
	passed int // times that it was first and another one was taken; guarded by the schedule
}

// openTask is a document of a run that nobody has opened.
type openTask struct {
	run  *run
	doc  Document
	past Past
	took chan struct{} // closed when a worker has it
}

// drawTask is a document of a run that was opened and has pages left to take.
type drawTask struct {
	run   *run
	doc   Document
	past  Past // void, unless its page count is pages
	pages int
	next  int // first page not taken, 1-based; guarded by the schedule
	drawn int // pages whose drawing has ended, or is not due; guarded by the schedule
}

// newDrawTask is a document of so many pages, of which one at least is due.
func newDrawTask(t *openTask, pages int) *drawTask {
	dt := &drawTask{run: t.run, doc: t.doc, pages: pages, next: 1}
	if t.past.PageCount == pages {
		dt.past, dt.drawn = t.past, t.past.Pages.Len()
	}
	return dt
}

// due is the first page from that one on that is due.
func (t *drawTask) due(page int) int {
	for t.past.Pages.Has(page) {
		page++
	}
	return page
}

// missing is how many pages of [from, to) are due.
func (t *drawTask) missing(from, to int) int { return to - from - t.past.Pages.between(from, to) }

// schedule hands work to the workers. It holds at most Queue pages of Detect,
// one unopened document a run, and one opened document a worker.
type schedule struct {
	mu      sync.Mutex
	ready   sync.Cond
	detects []*detectTask
	draws   []*drawTask
	opens   []*openTask
	closed  bool
}

func newSchedule() *schedule {
	s := &schedule{}
	s.ready.L = &s.mu
	return s
}

// task is what a worker does next; exactly one field is set.
type task struct {
	detect *detectTask
	open   *openTask
	draw   *drawTask
	// from and to are the pages of draw, to exclusive.
	from, to int
}

// next waits for work. Single pages go first: somebody waits for each. Then
// pages of the document that the worker has open, then of any other that is
// open, so that documents finish soon; then a new document.
func (s *schedule) next(open openDocument) (task, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return task{}, false
		}
		if len(s.detects) > 0 {
			return task{detect: s.takeDetect(open.path)}, true
		}
		if t, ok := s.takePages(open.draw); ok {
			return t, true
		}
		if len(s.opens) > 0 {
			t := s.opens[0]
			s.opens = s.opens[1:]
			close(t.took)
			return task{open: t}, true
		}
		s.ready.Wait()
	}
}

// reach is how far down the queue a worker looks for a page of the document it
// has open, and how often the first in it is passed over for one.
const reach = 32

func (s *schedule) takeDetect(openPath string) *detectTask {
	i, first := 0, s.detects[0]
	if openPath != "" && first.passed < reach {
		near := s.detects[:min(reach, len(s.detects))]
		i = max(0, slices.IndexFunc(near, func(t *detectTask) bool { return t.doc.Path == openPath }))
	}
	if i > 0 {
		first.passed++
	}
	t := s.detects[i]
	s.detects = slices.Delete(s.detects, i, i+1)
	return t
}

func (s *schedule) takePages(mine *drawTask) (task, bool) {
	if len(s.draws) == 0 {
		return task{}, false
	}
	i := max(0, slices.Index(s.draws, mine))
	t := s.draws[i]
	from := t.due(t.next)
	t.next = min(from+chunk, t.pages+1)
	if t.missing(t.next, t.pages+1) == 0 {
		s.draws = slices.Delete(s.draws, i, i+1)
	}
	return task{draw: t, from: from, to: t.next}, true
}

func (s *schedule) addDetect(t *detectTask) {
	s.mu.Lock()
	s.detects = append(s.detects, t)
	s.mu.Unlock()
	s.ready.Signal()
}

// removeDetect takes a task back and tells whether it was still there.
func (s *schedule) removeDetect(t *detectTask) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return remove(&s.detects, t)
}

func (s *schedule) addOpen(t *openTask) {
	s.mu.Lock()
	s.opens = append(s.opens, t)
	s.mu.Unlock()
	s.ready.Signal()
}

// removeOpen takes a document back and tells whether it was still there.
func (s *schedule) removeOpen(t *openTask) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return remove(&s.opens, t)
}

func (s *schedule) addDraw(t *drawTask) {
	s.mu.Lock()
	s.draws = append(s.draws, t)
	s.mu.Unlock()
	s.ready.Broadcast()
}

// rest takes all pages of t that no worker has taken, and returns how many.
func (s *schedule) rest(t *drawTask) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !remove(&s.draws, t) {
		return 0
	}
	n := t.missing(t.next, t.pages+1)
	t.next = t.pages + 1
	return n
}

// remove takes t out of the list and tells whether it was in it.
func remove[T comparable](list *[]T, t T) bool {
	i := slices.Index(*list, t)
	if i < 0 {
		return false
	}
	*list = slices.Delete(*list, i, i+1)
	return true
}

// ended counts n pages of t whose drawing has ended, in whatever way, and tells
// whether they were the last.
func (s *schedule) ended(t *drawTask, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.drawn += n
	return n > 0 && t.drawn == t.pages
}

func (s *schedule) detectsWaiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.detects)
}

func (s *schedule) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.ready.Broadcast()
}
