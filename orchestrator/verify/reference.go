package verify

import (
	"context"
	"encoding/json"
	"fmt"

	"quire/orchestrator"
)

// ReferenceSchema names the form of a [Reference] in JSON.
const ReferenceSchema = "quire-reference/1"

// Reference is what a pipeline that is not ours answers for pages of the samples.
type Reference struct {
	Schema string `json:"schema"`
	// Pipeline says whose answers these are.
	Pipeline string `json:"pipeline"`
	// Source is the SHA-256, in hexadecimal, of the network that gave them: the
	// answers are for models that were built from it.
	Source string `json:"source_sha256"`
	// Width and Height are of the pages, in pixels.
	Width  int `json:"width_px"`
	Height int `json:"height_px"`
	// ScoreThreshold and IoU are those that the answers were taken with.
	ScoreThreshold float64         `json:"score_threshold"`
	IoU            float64         `json:"nms_iou"`
	Pages          []ReferencePage `json:"pages"`
}

// ReferencePage is the answer for one page.
type ReferencePage struct {
	Path    string            `json:"path"`
	Page    int               `json:"page_no"`
	Regions []ReferenceRegion `json:"regions"`
}

// ReferenceRegion is a region in the pipeline's own words, with its box in pixels
// of the page.
type ReferenceRegion struct {
	Label string     `json:"label"`
	Score float64    `json:"score"`
	Box   [4]float64 `json:"box"`
}

// ReadReference reads a Reference.
func ReadReference(text []byte) (*Reference, error) {
	r := new(Reference)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("verify: the reference answers cannot be read: %w", err)
	}
	if r.Schema != ReferenceSchema {
		return nil, fmt.Errorf("verify: the reference answers are %q, wanted %q", r.Schema, ReferenceSchema)
	}
	return r, nil
}

// Unfit says in words why the answers tell nothing about a model that was built
// from source, takes pages of in's size and drops what overlaps a better region by
// more than iou; empty when they do.
func (r *Reference) Unfit(source string, in orchestrator.Input, iou float64) string {
	switch {
	case source == "":
		return "the model's config does not say what it was built from (quire.source_sha256)"
	case source != r.Source:
		return fmt.Sprintf("the model was built from %.12s…, and the reference answers are for %.12s…", source, r.Source)
	case in.Width != r.Width || in.Height != r.Height:
		return fmt.Sprintf("the model takes pages of %d×%d pixels, and the reference answers are for %d×%d", in.Width, in.Height, r.Width, r.Height)
	case iou != r.IoU:
		return fmt.Sprintf("quire.nms_iou is %v, and the reference answers are for %v", iou, r.IoU)
	}
	return ""
}

// page finds the answer for a page.
func (r *Reference) page(ref orchestrator.PageRef) (ReferencePage, bool) {
	for _, p := range r.Pages {
		if p.Path == ref.Path && p.Page == ref.Page {
			return p, true
		}
	}
	return ReferencePage{}, false
}

// sampled returns the pages that a reference has answers for.
func sampled(r *Reference, pages []Page) (found []Page) {
	for _, p := range pages {
		if r == nil {
			break
		}
		if _, ok := r.page(p.Ref); ok {
			found = append(found, p)
		}
	}
	return found
}

// reference compares the answers for samples with the reference's. The threshold
// is the higher one of the two: what is below one was never there to be compared.
func (v *verifier) reference(ctx context.Context, samples []Page) (*Comparison, error) {
	r := v.cfg.Reference
	c := v.compared
	c.threshold = max(c.threshold, r.ScoreThreshold)
	got, err := v.ask(ctx, samples, nil, v.cfg.Batch)
	if err != nil {
		return nil, err
	}
	right := make([]answer, len(samples))
	for i, p := range samples {
		page, _ := r.page(p.Ref)
		for _, region := range page.Regions {
			if region.Score > c.threshold {
				right[i].regions = append(right[i].regions, orchestrator.Region{LabelRaw: region.Label, Score: region.Score, BBox: region.Box})
			}
		}
		var above []orchestrator.Region
		for _, region := range got[i].regions {
			if region.Score > c.threshold {
				above = append(above, region)
			}
		}
		got[i].regions = above
	}
	compared := c.compare(fmt.Sprintf("batches of %d", min(v.cfg.Batch, len(samples))), samples, right, got)
	// The reference tells no more of a region than a label, a score and a box.
	compared.Identical = false
	return &compared, nil
}
