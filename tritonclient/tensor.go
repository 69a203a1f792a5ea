package tritonclient

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"
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

// Float32s is the tensor's elements as float32, see [View].
func (t *Tensor) Float32s() ([]float32, error) { return View[float32](t) }

// Int32s is the tensor's elements as int32, see [View].
func (t *Tensor) Int32s() ([]int32, error) { return View[int32](t) }

// Element is what a [View] can show.
type Element interface {
	uint8 | int8 | uint16 | int16 | uint32 | int32 | float32 | uint64 | int64 | float64
}

// View is a tensor's elements as T. On a little-endian machine it is the same
// memory as t.Raw, unless that is misaligned for T; then, and on other machines,
// it is a copy. It fails when the datatype is not T's.
func View[T Element](t *Tensor) ([]T, error) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if want := datatypeOf(zero); t.Datatype != want {
		return nil, fmt.Errorf("tensor %q is %s, not %s", t.Name, t.Datatype, want)
	}
	if len(t.Raw)%size != 0 {
		return nil, fmt.Errorf("tensor %q has %d bytes, not a multiple of %d", t.Name, len(t.Raw), size)
	}
	n := len(t.Raw) / size
	if n == 0 {
		return []T{}, nil
	}
	start := unsafe.Pointer(unsafe.SliceData(t.Raw))
	if littleEndian && uintptr(start)%unsafe.Alignof(zero) == 0 {
		return unsafe.Slice((*T)(start), n), nil
	}
	out := make([]T, n)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(out))), len(t.Raw))
	copy(bytes, t.Raw)
	if !littleEndian {
		for element := range slices.Chunk(bytes, size) {
			slices.Reverse(element)
		}
	}
	return out, nil
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func datatypeOf(element any) string {
	switch element.(type) {
	case uint8:
		return "UINT8"
	case int8:
		return "INT8"
	case uint16:
		return "UINT16"
	case int16:
		return "INT16"
	case uint32:
		return "UINT32"
	case int32:
		return "INT32"
	case float32:
		return "FP32"
	case uint64:
		return "UINT64"
	case int64:
		return "INT64"
	case float64:
		return "FP64"
	}
	panic("tritonclient: an Element without a datatype")
}
