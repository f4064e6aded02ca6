//go:build race

package mcp_test

// raceDetector says that memory is not what it is without.
const raceDetector = true
