// Package tritontest is a scripted fake of Triton Inference Server for tests of
// what a real one will not do on demand: faults. It speaks the real wire
// protocol on loopback TCP or in memory, keeps to the contract of the models it
// is given, refuses what Triton refuses with Triton's own words (those of
// release 2.51), and otherwise does what its script says.
//
// It does not batch, queue or schedule; what depends on that belongs to tests
// with a real server.
package tritontest
