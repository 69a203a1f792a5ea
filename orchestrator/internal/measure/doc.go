// Package measure has what measuring quire on a machine takes: processor time
// and memory of its processes, loads for one stage alone, the latency of the
// event path, and rules for what numbers may be believed. What is measured and
// what follows from it is decided by those who use it (bench, tune).
//
// It is for Linux, and reads /proc.
package measure
