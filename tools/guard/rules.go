package main

import (
	"konsul.dev/tools/guard/internal/edges"
	"konsul.dev/tools/guard/internal/house"
	"konsul.dev/tools/guard/internal/readme"
	"konsul.dev/tools/guard/internal/reference"
	"konsul.dev/tools/guard/internal/tree"
)

type rule struct {
	name  string
	about string
	check func(*tree.Tree) []tree.Finding
}

func rules(root string) []rule {
	return []rule{
		{"layers", "proto ← pkg ← services ← konsul-dc and tests; nothing imports tests or tools", edges.Layers},
		{"rooms", "inside a service: cmd → front door → api → core, edges → core", edges.Rooms},
		{"quiet-core", "core packages know no fx, gRPC, Raft, Badger, clock, socket, disk or chance", edges.Quiet},
		{"fx", "fx stays in mains, front doors, fx.go and pkg/konsulfx", edges.Fx},
		{"test-packages", "production files import nothing made for tests", edges.TestPackages},
		{"front-hall", "every service has README.md, DESIGN.md, config.example.yaml and its main", house.Halls},
		{"package-doc", "every package has one package doc", house.PackageDocs},
		{"package-name", "names say something, match their folder, hide nothing of the standard library", house.PackageNames},
		{"todo", "a TODO names its issue", house.TODOs},
		{"sleep", "nothing sleeps but on a synctest bubble's clock", house.Sleeps},
		{"places", "no path of one machine, no registry host", house.Places(root)},
		{"columns", "comments and prose keep to 100 columns, and say returns and reports whether", house.Columns},
		{"workspace", "go.work uses every module but the pinned tools", house.Workspace},
		{"versions", "one version of each dependency for all modules", house.Versions},
		{"errors", "docs/errors.md lists every reason, and each is a constant", reference.Errors},
		{"metrics", "docs/metrics.md lists every metric, and published names exist", reference.Metrics},
		{"settings", "docs/configuration.md lists every setting, and each has a comment and a default", reference.Settings},
		{"glossary", "docs/glossary.md defines each word once, in order", reference.Glossary},
		{"readme", "README's commands are targets of the Makefile or run by a test", readme.Check},
	}
}
