package tritonclient

import (
	"cmp"
	"context"
	"os"
	"slices"

	"quire/tritonclient/inferencepb"
)

// Region is system shared memory as the server knows it: a name for a part of a
// POSIX shared-memory object.
type Region struct {
	// Name is the region's name in requests, one namespace for all clients of a
	// server.
	Name string
	// Key is the object's name as in shm_open, "/name", which is the file
	// /dev/shm/name on Linux. The server's user must be able to read and write
	// it. A Triton before 26.05 refuses a key under which another region stands
	// (RegionRefused), unless that was spelled otherwise: "//name" is the same
	// object.
	Key string
	// Offset is where in the object the region begins, in bytes, a multiple of
	// the page size.
	Offset uint64
	// ByteSize is the region's length.
	ByteSize uint64
}

// SystemSharedMemoryRegister makes the server map a region. It does not replace
// a region of the same name (RegionExists), and the server forgets all regions
// when it ends.
//
// The object must keep its size while it is registered: to shrink it under the
// server's mapping is to crash the server.
func (c *Client) SystemSharedMemoryRegister(ctx context.Context, r Region) error {
	const op = "SystemSharedMemoryRegister"
	switch {
	case r.Name == "" || r.Key == "":
		return c.badRequest(op, "", "a region needs a name and a key, these are %q and %q", r.Name, r.Key)
	case r.ByteSize == 0:
		return c.badRequest(op, "", "region %q is empty", r.Name)
	case r.Offset%uint64(os.Getpagesize()) != 0:
		// The server hands it to mmap.
		return c.badRequest(op, "", "region %q: offset %d is not a multiple of the page size", r.Name, r.Offset)
	}
	_, err := call(ctx, c, op, "", c.config.CallTimeout, c.stub.SystemSharedMemoryRegister,
		&inferencepb.SystemSharedMemoryRegisterRequest{Name: r.Name, Key: r.Key, Offset: r.Offset, ByteSize: r.ByteSize})
	return err
}

// SystemSharedMemoryUnregister makes the server forget a region; a region that
// it does not know is no error. A region that a request uses goes when its last
// request ends, from Triton 24.12 on; one before that says Internal, and keeps it.
//
// An empty name is refused: to the server it means every region of every client.
func (c *Client) SystemSharedMemoryUnregister(ctx context.Context, name string) error {
	const op = "SystemSharedMemoryUnregister"
	if name == "" {
		return c.badRequest(op, "", "no region named; an empty name would unregister every client's regions")
	}
	_, err := call(ctx, c, op, "", c.config.CallTimeout, c.stub.SystemSharedMemoryUnregister,
		&inferencepb.SystemSharedMemoryUnregisterRequest{Name: name})
	return err
}

// SystemSharedMemoryStatus lists the registered regions, of all clients, sorted
// by name; with a name, that one (UnknownRegion when there is none).
func (c *Client) SystemSharedMemoryStatus(ctx context.Context, name string) ([]Region, error) {
	res, err := call(ctx, c, "SystemSharedMemoryStatus", "", c.config.CallTimeout, c.stub.SystemSharedMemoryStatus,
		&inferencepb.SystemSharedMemoryStatusRequest{Name: name})
	if err != nil {
		return nil, err
	}
	regions := make([]Region, 0, len(res.GetRegions()))
	for _, r := range res.GetRegions() {
		regions = append(regions, Region{Name: r.GetName(), Key: r.GetKey(), Offset: r.GetOffset(), ByteSize: r.GetByteSize()})
	}
	slices.SortFunc(regions, func(a, b Region) int { return cmp.Compare(a.Name, b.Name) })
	return regions, nil
}
