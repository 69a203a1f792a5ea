package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strings"

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
	// kept are those of its documents that rank lowest, at least as many as
	// the sample and at most twice that.
	kept []chosen
	// Of the documents that were opened.
	opened, failed int64
	pages, squares float64
}

// chosen is a document that may be opened.
type chosen struct {
	doc     orchestrator.Document
	rank    uint64
	stratum *stratum
}

// rank gives a document its place in a lottery that always ends the same way:
// the lowest ranks are a simple random sample, whatever order the documents
// come in and whatever repeats in it.
func rank(path string) uint64 {
	sum := sha256.Sum256([]byte(path))
	return binary.BigEndian.Uint64(sum[:])
}

func byRank(a, b chosen) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.doc.Path, b.doc.Path))
}

func (s *strata) add(doc orchestrator.Document, sample int) {
	c := &s.classes[(bits.Len64(uint64(max(doc.Size, 1)))-1)/2]
	c.count++
	c.bytes += doc.Size
	c.kept = append(c.kept, chosen{doc, rank(doc.Path), c})
	if len(c.kept) >= 2*sample {
		slices.SortFunc(c.kept, byRank)
		clear(c.kept[sample:])
		c.kept = c.kept[:sample]
	}
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

// choose picks about n documents: all, when there are no more; else from each
// class by its share of the bytes, since page counts differ more among large
// files. Every beginning of the list has its part of each class.
func (s *strata) choose(n int) []chosen {
	type placed struct {
		chosen
		place float64
	}
	var list []placed
	for i, want := range s.share(n) {
		c := &s.classes[i]
		slices.SortFunc(c.kept, byRank)
		want = min(want, int64(len(c.kept)))
		for at, one := range c.kept[:want] {
			list = append(list, placed{one, (float64(at) + 0.5) / float64(want)})
		}
		c.kept = nil
	}
	slices.SortFunc(list, func(a, b placed) int { return cmp.Or(cmp.Compare(a.place, b.place), byRank(a.chosen, b.chosen)) })
	docs := make([]chosen, len(list))
	for i, p := range list {
		docs[i] = p.chosen
	}
	return docs
}

// share divides n documents among the classes. A class that has fewer than its
// share leaves the rest to the others.
func (s *strata) share(n int) (shares [len(strata{}.classes)]int64) {
	left := int64(n)
	for {
		var bytes int64 // of the classes that can take more
		for i := range s.classes {
			if c := &s.classes[i]; shares[i] < c.count {
				bytes += c.bytes
			}
		}
		if left <= 0 || bytes == 0 {
			break
		}
		given := left
		for i := range s.classes {
			c := &s.classes[i]
			more := int64(math.Ceil(float64(given) * float64(c.bytes) / float64(bytes)))
			more = min(more, c.count-shares[i], left)
			shares[i] += more
			left -= more
		}
	}
	for i := range s.classes {
		shares[i] = max(shares[i], min(leastLooked, s.classes[i].count))
	}
	return shares
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
		all, seen := float64(c.count), float64(c.opened)
		var mean, squares float64 // pages a document, and the sum of squares about that
		if c.opened > 0 {
			mean = c.pages / seen
			squares = max(0, c.squares-seen*mean*mean)
		} else { // the time was over before
			mean, seen = pages/max(opened, 1), 1
		}
		// A sample tells nothing of what it has not met, and page counts have
		// long tails: one document more, of three times the mean, is taken to
		// be in it. It counts less the larger the sample.
		odd := max(2, 2*mean)
		spread := (squares + odd*odd) / seen
		guess += all * mean
		variance += all * max(0, all-seen) * spread / seen
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
