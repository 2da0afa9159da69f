package edges_test

import (
	"testing"

	"konsul.dev/tools/guard/internal/edges"
	"konsul.dev/tools/guard/internal/tree/treetest"
)

func TestModulesImportOnlyLayersBelowThem(t *testing.T) {
	treetest.Run(t, "testdata/layers*.txtar", edges.Layers)
}

func TestProductionImportsNoTestPackage(t *testing.T) {
	treetest.Run(t, "testdata/test-packages*.txtar", edges.TestPackages)
}

func TestRoomsOfAServicePointAtItsCore(t *testing.T) {
	treetest.Run(t, "testdata/rooms*.txtar", edges.Rooms)
}

func TestTheCoreIsQuiet(t *testing.T) {
	treetest.Run(t, "testdata/quiet*.txtar", edges.Quiet)
}

func TestFxStaysAtTheRim(t *testing.T) {
	treetest.Run(t, "testdata/fx*.txtar", edges.Fx)
}
