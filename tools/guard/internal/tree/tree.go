package tree

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"
)

// Prefix begins every import path of ours.
const Prefix = "konsul.dev/"

// Tree is a checkout.
type Tree struct {
	Fset     *token.FileSet
	Files    []*File    // text files, sorted by name
	Modules  []*Module  // sorted by folder
	Packages []*Package // sorted by folder
	Work     *modfile.WorkFile
	Broken   []Finding // Go files that do not parse; what could be read of them is in the tree
}

// File is a text file.
type File struct {
	Name      string // relative to the root, with slashes
	Text      []byte
	Generated bool
}

// Module is a Go module.
type Module struct {
	Dir string
	Mod *modfile.File
}

// Path returns the module's import path.
func (m *Module) Path() string { return m.Mod.Module.Mod.Path }

// Package is the Go files of one folder, external tests included.
type Package struct {
	Dir    string
	Path   string // import path
	Module *Module
	Files  []*GoFile
}

// Name returns the package's name: that of its production files, else that of its tests.
func (p *Package) Name() string {
	for _, f := range p.Files {
		if !f.Test {
			return f.Syntax.Name.Name
		}
	}
	return strings.TrimSuffix(p.Files[0].Syntax.Name.Name, "_test")
}

// TestOnly reports whether the package has no production files, or is there for tests to import.
func (p *Package) TestOnly() bool {
	if IsTestName(p.Name()) {
		return true
	}
	return !slices.ContainsFunc(p.Files, func(f *GoFile) bool { return !f.Test })
}

// Generated reports whether every file of the package is generated.
func (p *Package) Generated() bool {
	return !slices.ContainsFunc(p.Files, func(f *GoFile) bool { return !f.Generated })
}

// IsTestName reports whether a package name is that of a package for tests, such as registrytest.
func IsTestName(name string) bool { return len(name) > len("test") && strings.HasSuffix(name, "test") }

// GoFile is a parsed Go file; of a generated one only the imports.
type GoFile struct {
	*File
	Syntax *ast.File
	Test   bool // named *_test.go
}

// Import is one import of a file.
type Import struct {
	Path string
	Name string // the name the file gave it, or the last element of its path
	Line int
}

// Imports returns a file's imports.
func (t *Tree) Imports(f *GoFile) []Import {
	var imports []Import
	for _, spec := range f.Syntax.Imports {
		importPath, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imports = append(imports, Import{Path: importPath, Name: name, Line: t.Line(spec)})
	}
	return imports
}

// Line returns where a node starts.
func (t *Tree) Line(node ast.Node) int { return t.Fset.Position(node.Pos()).Line }

// File returns the named file.
func (t *Tree) File(name string) (*File, bool) {
	i, ok := slices.BinarySearchFunc(t.Files, name, func(f *File, name string) int { return strings.Compare(f.Name, name) })
	if !ok {
		return nil, false
	}
	return t.Files[i], true
}

// Under reports whether name is dir or lies below it.
func Under(name, dir string) bool {
	return dir == "." || name == dir || strings.HasPrefix(name, dir+"/")
}

// Read reads the named files, which may be more than there are: a file deleted meanwhile, and
// anything below a testdata folder, is passed over.
func Read(fsys fs.FS, names []string) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet()}
	for _, name := range names {
		if slices.Contains(strings.Split(path.Dir(name), "/"), "testdata") {
			continue
		}
		text, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
			continue // not text
		}
		t.Files = append(t.Files, &File{Name: name, Text: text, Generated: generated(text)})
	}
	slices.SortFunc(t.Files, func(a, b *File) int { return strings.Compare(a.Name, b.Name) })
	t.Files = slices.CompactFunc(t.Files, func(a, b *File) bool { return a.Name == b.Name })
	if err := t.readModules(); err != nil {
		return nil, err
	}
	t.readPackages()
	return t, nil
}

func (t *Tree) readModules() error {
	for _, f := range t.Files {
		switch path.Base(f.Name) {
		case "go.mod":
			mod, err := modfile.Parse(f.Name, f.Text, nil)
			if err != nil {
				return fmt.Errorf("read module: %w", err)
			}
			if mod.Module == nil {
				return fmt.Errorf("read module %s: it has no module line", f.Name)
			}
			t.Modules = append(t.Modules, &Module{Dir: path.Dir(f.Name), Mod: mod})
		case "go.work":
			work, err := modfile.ParseWork(f.Name, f.Text, nil)
			if err != nil {
				return fmt.Errorf("read workspace: %w", err)
			}
			t.Work = work
		}
	}
	return nil
}

func (t *Tree) readPackages() {
	byDir := map[string]*Package{}
	for _, f := range t.Files {
		if !strings.HasSuffix(f.Name, ".go") {
			continue
		}
		dir := path.Dir(f.Name)
		module := t.moduleOf(dir)
		if module == nil {
			continue
		}
		mode := parser.ParseComments | parser.SkipObjectResolution
		if f.Generated {
			mode = parser.ImportsOnly
		}
		syntax, err := parser.ParseFile(t.Fset, f.Name, f.Text, mode)
		if err != nil {
			t.Broken = append(t.Broken, Finding{File: f.Name, Rule: "parse", Message: err.Error(), Remedy: "make it compile"})
		}
		if syntax == nil || syntax.Name == nil || syntax.Name.Name == "" || syntax.Name.Name == "_" {
			continue
		}
		p := byDir[dir]
		if p == nil {
			p = &Package{Dir: dir, Module: module, Path: path.Join(module.Path(), strings.TrimPrefix(strings.TrimPrefix(dir, module.Dir), "/"))}
			byDir[dir] = p
			t.Packages = append(t.Packages, p)
		}
		p.Files = append(p.Files, &GoFile{File: f, Syntax: syntax, Test: strings.HasSuffix(f.Name, "_test.go")})
	}
	slices.SortFunc(t.Packages, func(a, b *Package) int { return strings.Compare(a.Dir, b.Dir) })
}

// moduleOf returns the innermost module that holds a folder.
func (t *Tree) moduleOf(dir string) *Module {
	var found *Module
	for _, m := range t.Modules {
		if Under(dir, m.Dir) && (found == nil || len(m.Dir) > len(found.Dir)) {
			found = m
		}
	}
	return found
}

// generated reports whether a file carries the mark generators leave
// (https://go.dev/s/generatedcode), which other languages' comments may carry too.
func generated(text []byte) bool {
	for line := range bytes.Lines(text[:min(len(text), 2000)]) {
		line = bytes.TrimSpace(bytes.TrimLeft(line, "/#- "))
		if bytes.HasPrefix(line, []byte("Code generated ")) && bytes.HasSuffix(line, []byte(" DO NOT EDIT.")) {
			return true
		}
	}
	return false
}
