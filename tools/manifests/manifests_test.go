package manifests_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/manifests"
)

// kubernetesVersion is the API the manifests are checked against, the newest the schemas' module
// has.
const kubernetesVersion = "1.30"

func schemas(t *testing.T) *manifests.Schemas {
	t.Helper()
	// Nothing imports the module, so nothing but this has fetched it.
	cmd := exec.CommandContext(t.Context(), "go", "-C", filepath.Join("..", "dev", "kubernetes"), "mod", "download", "-json", "sigs.k8s.io/kubectl-validate")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	require.NoError(t, err)
	var module struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &module))
	dir := filepath.Join(module.Dir, "pkg", "openapiclient", "builtins", kubernetesVersion)
	require.DirExists(t, dir)
	return manifests.NewSchemas(dir)
}

func service() manifests.Object {
	return manifests.Object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": "gateway", "labels": map[string]any{"app": "gateway"}},
		"spec": map[string]any{
			"type":  "LoadBalancer",
			"ports": []any{map[string]any{"name": "wan", "port": 8443, "targetPort": "wan"}},
		},
	}
}

func TestAGoodObjectPasses(t *testing.T) {
	require.NoError(t, schemas(t).Validate(service()))
}

func TestBadObjectsAreRefused(t *testing.T) {
	port := func(o manifests.Object) map[string]any {
		return o["spec"].(map[string]any)["ports"].([]any)[0].(map[string]any)
	}
	for name, c := range map[string]struct {
		spoil func(manifests.Object)
		says  string
	}{
		"unknown field":       {func(o manifests.Object) { o["spec"].(map[string]any)["typo"] = 1 }, "typo"},
		"unknown inner field": {func(o manifests.Object) { port(o)["prt"] = 1 }, "prt"},
		"wrong type":          {func(o manifests.Object) { port(o)["port"] = "8443" }, "ports/0/port"},
		"missing field":       {func(o manifests.Object) { delete(port(o), "port") }, "port"},
		"unknown kind":        {func(o manifests.Object) { o["kind"] = "Servce" }, "no such kind"},
		"unknown version":     {func(o manifests.Object) { o["apiVersion"] = "v9" }, "unknown apiVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			object := service()
			c.spoil(object)
			require.ErrorContains(t, schemas(t).Validate(object), c.says)
		})
	}
}

func overlays(t *testing.T) map[string][]manifests.Object {
	t.Helper()
	root := filepath.Join("..", "..", "deploy", "kubernetes", "overlays")
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	all := map[string][]manifests.Object{}
	for _, entry := range entries {
		objects, err := manifests.Render(filepath.Join(root, entry.Name()))
		require.NoError(t, err)
		all[entry.Name()] = objects
	}
	require.Contains(t, all, "us-east")
	require.Contains(t, all, "us-west")
	require.Contains(t, all, "eu-central")
	return all
}

func TestOverlaysAreWhatKubernetesAccepts(t *testing.T) {
	known := schemas(t)
	for name, objects := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, objects)
			for _, object := range objects {
				require.NoError(t, known.Validate(object))
			}
		})
	}
}

func TestOnlyRegistryAndCAMountTheDatacenterSecret(t *testing.T) {
	want := map[string]string{
		"konsul-ca": "konsul-datacenter", "konsul-registry": "konsul-datacenter", "konsul-mesh-gateway": "konsul-key-gateway",
		"konsul-wan-gossip": "konsul-key-wan-gossip", "konsul-replicator": "konsul-key-replicator",
		"konsul-failover-router": "konsul-key-failover-router", "konsul-agent": "konsul-key-agent",
	}
	type workload struct {
		Metadata struct{ Name string }
		Spec     struct {
			Template struct {
				Spec struct {
					Volumes []struct {
						Name   string
						Secret struct {
							SecretName  string
							DefaultMode int
						}
					}
				}
			}
		}
	}
	for name, objects := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			got := map[string]string{}
			for _, object := range objects {
				text, err := json.Marshal(object)
				require.NoError(t, err)
				var w workload
				if json.Unmarshal(text, &w) != nil {
					continue
				}
				for _, volume := range w.Spec.Template.Spec.Volumes {
					if volume.Name == "secret" {
						got[w.Metadata.Name] = volume.Secret.SecretName
						require.Zero(t, volume.Secret.DefaultMode&0o007, "others cannot read it")
					}
				}
			}
			require.Equal(t, want, got)
		})
	}
}
