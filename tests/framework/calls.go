package framework

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// calls are the REST calls that the tests of this process made.
var calls restCalls //nolint:gochecknoglobals // what all tests of a process did is the question

type restCalls struct {
	mu   sync.Mutex
	made map[string]bool
}

func (c *restCalls) note(method, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made = map[string]bool{}
	}
	bare, _, _ := strings.Cut(path, "?")
	c.made[method+" "+bare] = true
}

// Uncalled returns the REST routes in the contracts that no test of this process called.
func Uncalled() []string {
	calls.mu.Lock()
	defer calls.mu.Unlock()
	var missing []string
	for _, r := range routes() {
		if !slices.ContainsFunc(sorted(calls.made), r.matches) {
			missing = append(missing, r.method+" "+r.path)
		}
	}
	slices.Sort(missing)
	return missing
}

func sorted(set map[string]bool) []string {
	var out []string
	for call := range set {
		out = append(out, call)
	}
	slices.Sort(out)
	return out
}

// route is a method and a path template (google/api/http.proto).
type route struct{ method, path string }

func routes() []route {
	var out []route
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				rule, ok := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					if ok && r.GetPattern() != nil {
						out = append(out, routeOf(r))
					}
				}
			}
		}
		return true
	})
	return out
}

func routeOf(r *annotations.HttpRule) route {
	switch pattern := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return route{"GET", pattern.Get}
	case *annotations.HttpRule_Put:
		return route{"PUT", pattern.Put}
	case *annotations.HttpRule_Post:
		return route{"POST", pattern.Post}
	case *annotations.HttpRule_Delete:
		return route{"DELETE", pattern.Delete}
	case *annotations.HttpRule_Patch:
		return route{"PATCH", pattern.Patch}
	}
	return route{}
}

// matches reports whether a call, such as "GET /api/v1/kv/a", was one of the route.
func (r route) matches(call string) bool {
	method, path, _ := strings.Cut(call, " ")
	if method != r.method {
		return false
	}
	want, got := strings.Split(r.path, "/"), strings.Split(path, "/")
	for i, part := range want {
		switch {
		case strings.HasSuffix(part, "=**}"):
			return len(got) > i
		case i >= len(got), !strings.HasPrefix(part, "{") && part != got[i]:
			return false
		}
	}
	return len(got) == len(want)
}
