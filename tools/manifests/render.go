package manifests

import (
	"fmt"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Object is one rendered Kubernetes object.
type Object map[string]any

// Render runs kustomize on a folder.
func Render(dir string) ([]Object, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("render %q: %w", dir, err)
	}
	var objects []Object
	for _, resource := range resources.Resources() {
		object, err := resource.Map()
		if err != nil {
			return nil, fmt.Errorf("read rendered object of %q: %w", dir, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// APIVersion returns the object's apiVersion.
func (o Object) APIVersion() string { return o.text("apiVersion") }

// Kind returns the object's kind.
func (o Object) Kind() string { return o.text("kind") }

// Name returns the object's name.
func (o Object) Name() string { return Object(o.sub("metadata")).text("name") }

// String names the object for a person.
func (o Object) String() string { return o.Kind() + "/" + o.Name() }

func (o Object) text(key string) string {
	text, _ := o[key].(string)
	return text
}

func (o Object) sub(key string) map[string]any {
	sub, _ := o[key].(map[string]any)
	return sub
}
