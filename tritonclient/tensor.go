package tritonclient

import (
	"fmt"
	"math"
)

// Tensor is one output of an inference.
type Tensor struct {
	Name string
	// Datatype is Triton's word: "FP32", "INT32", "UINT8", …
	Datatype string
	// Shape includes the batch dimension.
	Shape []int64
	// Raw is the elements, row-major, little-endian, without padding. BYTES
	// elements have a 4-byte length each.
	Raw []byte
}

// elementBytes is the size of one element of a fixed-size datatype, as in
// TRITONSERVER_DataTypeByteSize; BYTES has none.
var elementBytes = map[string]int64{
	"BOOL": 1, "UINT8": 1, "INT8": 1,
	"UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2,
	"UINT32": 4, "INT32": 4, "FP32": 4,
	"UINT64": 8, "INT64": 8, "FP64": 8,
}

// byteSize is how many bytes a tensor's elements take. It fails for negative
// dimensions and sizes beyond an int64; ok is false when the datatype has no
// fixed size.
func byteSize(datatype string, shape []int64) (size int64, ok bool, err error) {
	size, ok = elementBytes[datatype]
	if !ok && datatype != "BYTES" {
		return 0, false, fmt.Errorf("unknown datatype %q", datatype)
	}
	elements := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, false, fmt.Errorf("negative dimension in shape %v", shape)
		}
		if d == 0 {
			// Whatever the others are; they are still checked for sign.
			elements = 0
			continue
		}
		if elements > math.MaxInt64/8/d {
			return 0, false, fmt.Errorf("shape %v is beyond reason", shape)
		}
		elements *= d
	}
	return size * elements, ok, nil
}
