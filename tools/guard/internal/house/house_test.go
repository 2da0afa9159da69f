package house_test

import (
	"testing"

	"konsul.dev/tools/guard/internal/house"
	"konsul.dev/tools/guard/internal/tree/treetest"
)

func TestEveryPackageHasOneDoc(t *testing.T) {
	treetest.Run(t, "testdata/docs*.txtar", house.PackageDocs)
}

func TestPackageNamesSaySomething(t *testing.T) {
	treetest.Run(t, "testdata/names*.txtar", house.PackageNames)
}

func TestTODOsNameTheirIssue(t *testing.T) {
	treetest.Run(t, "testdata/todo*.txtar", house.TODOs)
}

func TestNothingNamesAMachineOrARegistry(t *testing.T) {
	treetest.Run(t, "testdata/places*.txtar", house.Places("/srv/checkout"))
}

func TestLinesKeepToTheirColumns(t *testing.T) {
	treetest.Run(t, "testdata/columns*.txtar", house.Columns)
}

func TestTheWorkspaceUsesEveryModule(t *testing.T) {
	treetest.Run(t, "testdata/workspace*.txtar", house.Workspace)
}

func TestModulesAgreeOnVersions(t *testing.T) {
	treetest.Run(t, "testdata/versions*.txtar", house.Versions)
}

func TestNothingSleepsOutsideABubble(t *testing.T) {
	treetest.Run(t, "testdata/sleep*.txtar", house.Sleeps)
}

func TestEveryServiceHasAFrontHall(t *testing.T) {
	treetest.Run(t, "testdata/hall*.txtar", house.Halls)
}
