// Package endtoend holds the tests that need all parts at once: real documents,
// real render workers, the real embedded Triton and the real model. They share
// one server.
package endtoend
