package layout

import (
	"encoding/binary"
	"fmt"
	"math"

	"quire/orchestrator"
)

// scoreTolerance is how far outside [0,1] a score may lie before it counts as
// wrong: a sigmoid in reduced precision can overshoot by a rounding step.
const scoreTolerance = 1e-3

// outputs are a batch's answers as they come off the wire: little-endian, row
// major. Their lengths have been checked against the contract.
type outputs struct {
	boxes  []byte // FP32 [n,K,4]
	scores []byte // FP32 [n,K]
	labels []byte // INT32 [n,K]
}

// page returns the part that belongs to page i of the batch.
func (o outputs) page(i, k int) outputs {
	return outputs{
		boxes:  o.boxes[i*k*16 : (i+1)*k*16],
		scores: o.scores[i*k*4 : (i+1)*k*4],
		labels: o.labels[i*k*4 : (i+1)*k*4],
	}
}

func (o outputs) box(i int) (b [4]float64) {
	for j := range b {
		b[j] = float64(f32(o.boxes, i*4+j))
	}
	return b
}

func f32(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[i*4:]))
}

func i32(b []byte, i int) int32 { return int32(binary.LittleEndian.Uint32(b[i*4:])) }

// decode turns one page's raw answer into regions of the frame, or into the
// page's error when the answer is not usable.
func (c *Contract) decode(o outputs, frame orchestrator.Frame) orchestrator.Verdict {
	if !(frame.Width > 0 && frame.Height > 0) || math.IsInf(frame.Width, 0) || math.IsInf(frame.Height, 0) {
		return fault(orchestrator.CategoryInternal, "no coordinates to map to: frame is %v × %v", frame.Width, frame.Height)
	}
	cands, err := c.candidates(o)
	if err != nil {
		return fault(orchestrator.CategoryBadOutput, "the model's answer is not usable: %v", err)
	}
	kept := suppress(cands, c.IoUThreshold, c.MaxCandidates, c.MaxKept)

	regions := make([]orchestrator.Region, 0, len(kept))
	sx, sy := frame.Width/float64(c.Width), frame.Height/float64(c.Height)
	for _, k := range kept {
		box := [4]float64{
			clamp(k.box[0]*sx, frame.Width), clamp(k.box[1]*sy, frame.Height),
			clamp(k.box[2]*sx, frame.Width), clamp(k.box[3]*sy, frame.Height),
		}
		if box[2] <= box[0] || box[3] <= box[1] {
			continue // lies outside the page
		}
		raw := c.Labels[k.class]
		regions = append(regions, orchestrator.Region{
			ID:       len(regions),
			Label:    canonical(raw),
			LabelRaw: raw,
			ClassID:  k.class,
			Score:    k.score,
			BBox:     box,
		})
	}
	setReadingOrder(regions)
	return orchestrator.Verdict{Regions: regions}
}

// candidates checks a page's answer and keeps what is above the threshold.
// Every score is checked; boxes and labels only where the score makes them
// count, since a model with few detections pads the rest with what it likes.
func (c *Contract) candidates(o outputs) ([]candidate, error) {
	var cands []candidate
	for i := range c.Detections {
		raw := f32(o.scores, i)
		score := float64(raw)
		if !(score >= -scoreTolerance && score <= 1+scoreTolerance) { // NaN fails both
			return nil, fmt.Errorf("scores[%d] is %v, not in [0,1]", i, raw)
		}
		if score <= c.ScoreThreshold {
			continue
		}
		class := i32(o.labels, i)
		if class < 0 || int(class) >= len(c.Labels) {
			return nil, fmt.Errorf("labels[%d] is %d, and there are %d labels (score %.4f)", i, class, len(c.Labels), score)
		}
		box := o.box(i)
		for _, v := range box {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("boxes[%d] is %v (score %.4f)", i, box, score)
			}
		}
		if box[2] < box[0] || box[3] < box[1] {
			return nil, fmt.Errorf("boxes[%d] is %v, not x0,y0,x1,y1 (score %.4f)", i, box, score)
		}
		cands = append(cands, candidate{box: box, score: min(score, 1), class: int(class)})
	}
	return cands, nil
}

// fault is the verdict on a page whose answer is not usable. The engine fills
// in which page it was.
func fault(category orchestrator.Category, format string, args ...any) orchestrator.Verdict {
	return orchestrator.Verdict{Err: &orchestrator.PageError{
		Stage:    orchestrator.StageInfer,
		Category: category,
		Message:  fmt.Sprintf(format, args...),
	}}
}

func clamp(v, limit float64) float64 { return min(max(v, 0), limit) }
