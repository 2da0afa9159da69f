package robustness_test

import (
	"os"
	"testing"

	"konsul.dev/tests/robustness/arena"
)

func TestMain(m *testing.M) { os.Exit(arena.Main(m)) }
