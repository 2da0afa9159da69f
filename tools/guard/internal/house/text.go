package house

import (
	"bytes"
	"path"
	"regexp"

	"konsul.dev/tools/guard/internal/tree"
)

// TODOs checks that a TODO names the issue that will remove it.
func TODOs(t *tree.Tree) []tree.Finding {
	mark := regexp.MustCompile(`(?://|#|--|<!--)[ \t]*(TODO|FIXME|XXX|HACK)\b(\(#\d+\): \S)?`)
	return lines(t, func(_ *tree.File, line []byte) (message, remedy string) {
		found := mark.FindSubmatch(line)
		if found == nil || (string(found[1]) == "TODO" && len(found[2]) > 0) {
			return "", ""
		}
		return "a naked " + string(found[1]), "do it now, or write TODO(#issue): the condition under which it goes"
	}, "todo")
}

// Places checks that nothing names a folder of one machine, such as the checkout's own (root), or a
// host to download from: the Go module proxy of the machine at hand is all a build may need.
func Places(root string) func(*tree.Tree) []tree.Finding {
	// Written so that this file does not match itself.
	folder := regexp.MustCompile(`(?:^|[\s"'=:(,\x60])((?:/(?:root)/|/home/[a-z]|/Users/[A-Za-z]|[A-Z]:\\Users\\)[\w./\\-]*)`)
	host := regexp.MustCompile(`\b((?:registry-1[.]|index[.])?docker[.]io|ghcr[.]io|quay[.]io|(?:[\w-]+[.])?gcr[.]io|registry[.]k8s[.]io|` +
		`[\w-]+[.]azurecr[.]io|[\w-]+[.]dkr[.]ecr[.][\w.-]+|[\w-]+[.]pkg[.]dev|proxy[.]golang[.]org|goproxy[.]\w+|sum[.]golang[.]org)\b`)
	return func(t *tree.Tree) []tree.Finding {
		return lines(t, func(f *tree.File, line []byte) (message, remedy string) {
			if found := folder.FindSubmatch(line); found != nil {
				return "a path of one machine: " + string(found[1]), "make it relative to the repository, or a setting"
			}
			if len(root) > len("/root") && bytes.Contains(line, []byte(root)) {
				return "a path of this machine: " + root, "make it relative to the repository, or a setting"
			}
			if base := path.Base(f.Name); base == "go.sum" || base == "go.mod" || base == "go.work.sum" {
				return "", "" // module paths look like hosts
			}
			if found := host.FindSubmatch(line); found != nil {
				return "a registry host: " + string(found[1]), "build it from source, and leave where modules come from to GOPROXY"
			}
			return "", ""
		}, "places")
	}
}

func lines(t *tree.Tree, look func(*tree.File, []byte) (message, remedy string), rule string) []tree.Finding {
	var findings []tree.Finding
	for _, f := range t.Files {
		if f.Generated {
			continue
		}
		number := 0
		for line := range bytes.Lines(f.Text) {
			number++
			if message, remedy := look(f, line); message != "" {
				findings = append(findings, tree.Finding{File: f.Name, Line: number, Rule: rule, Message: message, Remedy: remedy})
			}
		}
	}
	return findings
}
