//go:build !linux

package konsulfx

// SetTimerSlack does nothing: only Linux knows how late a timer may be.
func SetTimerSlack() {}
