package layout

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"quire/tritonclient"
)

// askLabels has the server read out the label file of output "labels". The
// config holds only the file's name; its lines come with the classification
// extension of the protocol, which gives the largest k elements of an output as
// "value:index:label" (github.com/triton-inference-server/server,
// docs/protocol/extension_classification.md). Asked for all elements of a blank
// page's answer, it gives every line that has an element.
func (m *Model) askLabels(ctx context.Context, c *Contract) ([]string, error) {
	page := c.input(1)
	page.Raw = make([]byte, c.PageBytes())
	response, err := m.client.Infer(ctx, &tritonclient.InferRequest{
		Model: c.Model, Version: c.Version,
		Inputs:  []tritonclient.Input{page},
		Outputs: []tritonclient.Output{{Name: outputLabels, Datatype: "BYTES", Classes: c.Detections}},
	})
	if err != nil {
		return nil, err
	}
	labels, err := parseLabels(response.Outputs[outputLabels].Raw)
	if err != nil {
		return nil, stop(err, "model %s at %s does not tell its labels: %v: give them in its config, as parameter %s, separated by commas",
			m.cfg.Model, m.client.Target(), err, keyLabels)
	}
	return labels, nil
}

// parseLabels reads a BYTES tensor of "value:index:label"; elements without a
// line in the label file are "value:index". The lines must be there from index
// 0 on without a gap.
func parseLabels(raw []byte) ([]string, error) {
	lines := make(map[int]string)
	for len(raw) > 0 {
		if len(raw) < 4 || uint64(len(raw)-4) < uint64(binary.LittleEndian.Uint32(raw)) {
			return nil, fmt.Errorf("the answer ends in the middle of an element")
		}
		n := 4 + int(binary.LittleEndian.Uint32(raw))
		element := string(raw[4:n])
		raw = raw[n:]
		_, rest, ok := strings.Cut(element, ":")
		index, label, labelled := strings.Cut(rest, ":")
		i, err := strconv.Atoi(index)
		if !ok || err != nil || i < 0 {
			return nil, fmt.Errorf("element %.40q is not value:index:label", element)
		}
		if labelled {
			lines[i] = label
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("no element has a label")
	}
	labels := make([]string, len(lines))
	for i := range labels {
		label, ok := lines[i]
		if !ok {
			return nil, fmt.Errorf("index %d has no label", i)
		}
		labels[i] = label
	}
	return checkLabels(labels)
}
