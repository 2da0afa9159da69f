// Package definitions reads the service definitions of a node from a folder and forgives mistakes.
//
// A file that cannot be read or understood is reported, and the last good version of it stays in
// force. Files that no definition is written in are left alone, and named. A file that has no good
// version yet makes the set incomplete: nobody knows which services it means, so nothing may be
// removed on the ground that it is not defined. The same holds when the folder itself cannot be
// read. A loader belongs to one goroutine.
package definitions

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/servicedef"
)

// Set is what the folder says.
type Set struct {
	// Definitions have different ids and are ordered by them.
	Definitions []*servicedef.Definition
	// Complete is false while services may be missing from Definitions because a file cannot be
	// understood.
	Complete bool
	// Ignored are the names of what is in the folder and is no file of definitions, in order,
	// without hidden ones.
	Ignored []string
}

// Problem is what is wrong with a file, or with the folder when File is ".".
type Problem struct {
	File string
	Err  error
}

// Loader reads one folder again and again.
type Loader struct {
	files      fs.FS
	datacenter string
	known      map[string]file
	ignored    []string
	unreadable error
	loaded     bool
}

// file is what is known of one file.
type file struct {
	content []byte
	good    []*servicedef.Definition // the last good version; nil: none yet
	err     error                    // why content is not good
}

// New returns a loader of the *.yaml, *.yml and *.json files in the root of files, for the agent of
// a datacenter. A nil files is an empty folder.
func New(files fs.FS, datacenter string) *Loader {
	return &Loader{files: files, datacenter: datacenter, known: map[string]file{}}
}

// Load reads the folder. changed is true the first time and when the folder says something else
// than the time before, even if it is only wrong in another way.
func (l *Loader) Load() (set Set, problems []Problem, changed bool) {
	changed = !l.loaded
	l.loaded = true
	names, ignored, err := l.list()
	if err != nil {
		changed = changed || l.unreadable == nil
		l.unreadable = err
		set, problems = l.collect()
		set.Complete = false
		return set, append([]Problem{{File: ".", Err: err}}, problems...), changed
	}
	changed = changed || l.unreadable != nil || !slices.Equal(l.ignored, ignored)
	l.unreadable, l.ignored = nil, ignored
	for name := range l.known {
		if !slices.Contains(names, name) {
			delete(l.known, name)
			changed = true
		}
	}
	for _, name := range names {
		changed = l.read(name) || changed
	}
	set, problems = l.collect()
	return set, problems, changed
}

func (l *Loader) list() (names, ignored []string, err error) {
	if l.files == nil {
		return nil, nil, nil
	}
	entries, err := fs.ReadDir(l.files, ".")
	if err != nil {
		return nil, nil, fmt.Errorf("read folder of service definitions: %w", err)
	}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case strings.HasPrefix(name, "."):
			// Hidden files are half-written ones of editors and the plumbing of Kubernetes'
			// volumes.
		case entry.IsDir():
			ignored = append(ignored, name+"/")
		case servicedef.IsDefinition(name):
			names = append(names, name)
		default:
			ignored = append(ignored, name)
		}
	}
	return names, ignored, nil
}

// read looks at one file and says whether it is another than before.
func (l *Loader) read(name string) (changed bool) {
	old, seen := l.known[name]
	content, err := fs.ReadFile(l.files, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Removed since the folder was listed; the next listing says so.
		return false
	case err != nil:
		l.known[name] = file{good: old.good, err: fmt.Errorf("read service definition: %w", err)}
		return !seen || old.err == nil || old.content != nil
	case seen && old.content != nil && bytes.Equal(old.content, content):
		return false
	}
	definitions, err := parse(name, content, l.datacenter)
	if err != nil {
		definitions = old.good
	}
	l.known[name] = file{content: content, good: definitions, err: err}
	return true
}

// parse reads the definitions in a file for a datacenter.
func parse(name string, content []byte, datacenter string) ([]*servicedef.Definition, error) {
	definitions, err := servicedef.ParseFile(name, content)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, d := range definitions {
		errs = append(errs, d.CheckDatacenter(datacenter))
	}
	return definitions, errors.Join(errs...)
}

// collect returns what all files together say. Of two files with one id, the first by name counts.
func (l *Loader) collect() (Set, []Problem) {
	set := Set{Complete: true, Ignored: l.ignored}
	var problems []Problem
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(l.known)) {
		f := l.known[name]
		if f.err != nil {
			problems = append(problems, Problem{File: name, Err: f.err})
		}
		if f.good == nil {
			set.Complete = false
			continue
		}
		for _, d := range f.good {
			if first, taken := owner[d.ID]; taken {
				problems = append(problems, Problem{File: name, Err: fault.Invalid("service.id",
					"%q is the id of the service in %s", d.ID, first).WithRemedy("give each instance of the datacenter an id of its own")})
				continue
			}
			owner[d.ID] = name
			set.Definitions = append(set.Definitions, d)
		}
	}
	slices.SortFunc(set.Definitions, func(a, b *servicedef.Definition) int { return strings.Compare(a.ID, b.ID) })
	return set, problems
}
