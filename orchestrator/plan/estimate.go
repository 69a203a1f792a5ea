package plan

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"quire/orchestrator"
)

// Estimate is how many pages there are.
type Estimate struct {
	// Pages is the best guess; Low and High are two standard errors away from
	// it, and never below what was counted. Nothing is known when Opened is 0
	// and Of is not.
	Pages, Low, High int64
	// Opened is how many documents were opened (or failed to) of the Of
	// documents that looked as if they could be. Pages is exact when they are
	// equal.
	Opened, Of int64
	// Failed is how many of those did not open, and MoreFailed about how many
	// of the rest will not.
	Failed, MoreFailed int64
}

// Exact tells whether every document was opened.
func (e Estimate) Exact() bool { return e.Opened == e.Of }

// Known tells whether there is an estimate at all.
func (e Estimate) Known() bool { return e.Of == 0 || e.Opened > 0 }

// leastLooked is how many documents of a stratum are opened even when it is
// small beside the others: fewer tell little about its spread.
const leastLooked = 8

// strata are the documents by size. How many pages a document has goes with its
// size, roughly: counting each class by itself takes the differences between
// classes out of the error (Cochran, Sampling Techniques, chapter 5).
type strata struct {
	// classes[i] has the files of 4^i to 4^(i+1)-1 bytes.
	classes [32]stratum
	// counted are documents whose pages are known for other reasons.
	counted, countedPages int64
}

// stratum is one size class.
type stratum struct {
	count, bytes int64
	// kept is every stride-th of its documents, at most twice the sample.
	kept   []orchestrator.Document
	stride int64
	// Of the documents that were opened.
	opened, failed int64
	pages, squares float64
}

func (s *strata) add(doc orchestrator.Document, sample int) {
	c := &s.classes[(bits.Len64(uint64(max(doc.Size, 1)))-1)/2]
	c.stride = max(c.stride, 1)
	if c.count%c.stride == 0 {
		c.kept = append(c.kept, doc)
		if len(c.kept) > 2*sample {
			half := c.kept[:0]
			for i := 0; i < len(c.kept); i += 2 {
				half = append(half, c.kept[i])
			}
			clear(c.kept[len(half):])
			c.kept = half
			c.stride *= 2
		}
	}
	c.count++
	c.bytes += doc.Size
}

func (s *strata) known(pages int) {
	s.counted++
	s.countedPages += int64(pages)
}

func (c *stratum) looked(pages int, failed bool) {
	c.opened++
	if failed {
		c.failed++
	}
	c.pages += float64(pages)
	c.squares += float64(pages) * float64(pages)
}

// chosen is a document of the sample.
type chosen struct {
	doc     orchestrator.Document
	stratum *stratum
}

// choose picks about n documents: all, when there are no more; else from each
// class by its share of the bytes, since the spread of page counts grows with
// the size, and evenly over the class. They come in such an order that each
// beginning of the list is itself spread over everything.
func (s *strata) choose(n int) []chosen {
	var count, total int64
	for i := range s.classes {
		count += s.classes[i].count
		total += s.classes[i].bytes
	}
	type ranked struct {
		chosen
		rank float64
	}
	var list []ranked
	for i := range s.classes {
		c := &s.classes[i]
		want := c.count
		if count > int64(n) {
			share := float64(n) * float64(c.bytes) / float64(total)
			want = min(max(int64(math.Round(share)), leastLooked), c.count)
		}
		want = min(want, int64(len(c.kept)))
		for at, j := range spread(int(want)) {
			doc := c.kept[int64(j)*int64(len(c.kept))/want]
			list = append(list, ranked{chosen{doc, c}, (float64(at) + 0.5) / float64(want)})
		}
		c.kept = nil
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	docs := make([]chosen, len(list))
	for i, r := range list {
		docs[i] = r.chosen
	}
	return docs
}

// spread gives 0 to n-1 in the order of their reversed bits (the van der Corput
// sequence), in which every beginning is spread over the whole.
func spread(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(bits.Reverse64(uint64(a)), bits.Reverse64(uint64(b))) })
	return order
}

func (s *strata) estimate() Estimate {
	e := Estimate{Opened: s.counted, Of: s.counted}
	var opened, pages float64
	for i := range s.classes {
		c := &s.classes[i]
		e.Of += c.count
		e.Opened += c.opened
		e.Failed += c.failed
		opened += float64(c.opened)
		pages += c.pages
	}
	if !e.Known() {
		return e
	}
	counted := float64(s.countedPages) + pages
	guess, variance, more := float64(s.countedPages), 0.0, 0.0
	for i := range s.classes {
		c := &s.classes[i]
		if c.count == 0 {
			continue
		}
		all, seen := float64(c.count), float64(c.opened)
		var mean, spread2 float64 // of pages a document
		switch {
		case c.opened == 0: // the time was over before
			mean = pages / max(opened, 1)
			spread2 = mean * mean
			seen = 1
		case c.opened == 1:
			mean = c.pages
			spread2 = mean * mean
		default:
			mean = c.pages / seen
			spread2 = max(0, (c.squares-seen*mean*mean)/(seen-1))
		}
		guess += all * mean
		variance += all * max(0, all-seen) * spread2 / seen
		if c.opened > 0 {
			more += (all - seen) * float64(c.failed) / seen
		}
	}
	away := 2 * math.Sqrt(variance)
	e.Pages = int64(math.Round(guess))
	e.Low = int64(math.Round(max(counted, guess-away)))
	e.High = int64(math.Round(guess + away))
	e.MoreFailed = int64(math.Round(more))
	return e
}
