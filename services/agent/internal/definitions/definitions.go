// Package definitions reads the service definitions of a node from a folder and forgives mistakes.
//
// A file that cannot be read or understood is reported, and the last good version of it stays in
// force. A file that has no good version yet makes the set incomplete: nobody knows which services
// it means, so nothing may be removed on the ground that it is not defined. The same holds when the
// folder itself cannot be read. A loader belongs to one goroutine.
package definitions

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/servicedef"
)

// Set is what the folder says.
type Set struct {
	// Definitions have different ids and are ordered by them.
	Definitions []*servicedef.Definition
	// Complete is false while services may be missing from Definitions because a file cannot be understood.
	Complete bool
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
	unreadable error
	loaded     bool
}

// file is what is known of one file.
type file struct {
	content []byte
	good    *servicedef.Definition // the last good version; nil: none yet
	err     error                  // why content is not good
}

// New answers a loader of the *.yaml and *.yml files in the root of files, for the agent of a
// datacenter. A nil files is an empty folder.
func New(files fs.FS, datacenter string) *Loader {
	return &Loader{files: files, datacenter: datacenter, known: map[string]file{}}
}

// Load reads the folder. changed is true the first time and when the folder says something else than
// the time before, even if it is only wrong in another way.
func (l *Loader) Load() (set Set, problems []Problem, changed bool) {
	changed = !l.loaded
	l.loaded = true
	names, err := l.list()
	if err != nil {
		changed = changed || l.unreadable == nil
		l.unreadable = err
		set, problems = l.collect()
		set.Complete = false
		return set, append([]Problem{{File: ".", Err: err}}, problems...), changed
	}
	changed = changed || l.unreadable != nil
	l.unreadable = nil
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

func (l *Loader) list() ([]string, error) {
	if l.files == nil {
		return nil, nil
	}
	entries, err := fs.ReadDir(l.files, ".")
	if err != nil {
		return nil, fmt.Errorf("read folder of service definitions: %w", err)
	}
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		// Hidden files are half-written ones of editors and the plumbing of Kubernetes' volumes.
		if ext := path.Ext(name); !entry.IsDir() && !strings.HasPrefix(name, ".") && (ext == ".yaml" || ext == ".yml") {
			names = append(names, name)
		}
	}
	return names, nil
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
	definition, err := Parse(content, l.datacenter)
	if err != nil {
		definition = old.good
	}
	l.known[name] = file{content: content, good: definition, err: err}
	return true
}

// Parse reads one definition for a datacenter.
func Parse(content []byte, datacenter string) (*servicedef.Definition, error) {
	definition, err := servicedef.Parse(content)
	if err != nil {
		return nil, err
	}
	if err := definition.CheckDatacenter(datacenter); err != nil {
		return nil, err
	}
	return definition, nil
}

// collect answers what all files together say. Of two files with one id, the first by name counts.
func (l *Loader) collect() (Set, []Problem) {
	set := Set{Complete: true}
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
		if first, taken := owner[f.good.ID]; taken {
			problems = append(problems, Problem{File: name, Err: fault.Invalid("service.id",
				"%q is the id of the service in %s", f.good.ID, first).WithRemedy("give each instance of the datacenter an id of its own")})
			continue
		}
		owner[f.good.ID] = name
		set.Definitions = append(set.Definitions, f.good)
	}
	slices.SortFunc(set.Definitions, func(a, b *servicedef.Definition) int { return strings.Compare(a.ID, b.ID) })
	return set, problems
}
