package manifests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/manifests"
)

// dig follows keys and list indexes into a rendered object.
func dig(t *testing.T, from any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			next, ok := from.(map[string]any)
			require.True(t, ok, "%v is no map at %v", from, step)
			require.Contains(t, next, step)
			from = next[step]
		case int:
			next, ok := from.([]any)
			require.True(t, ok && step < len(next), "%v has no element %d", from, step)
			from = next[step]
		}
	}
	return from
}

func find(t *testing.T, objects []manifests.Object, kind, name string) map[string]any {
	t.Helper()
	for _, object := range objects {
		if object.Kind() == kind && object.Name() == name {
			return object
		}
	}
	t.Fatalf("no %s/%s was rendered", kind, name)
	return nil
}

// workloads returns the objects that make pods.
func workloads(objects []manifests.Object) []manifests.Object {
	var found []manifests.Object
	for _, object := range objects {
		switch object.Kind() {
		case "Deployment", "StatefulSet", "DaemonSet":
			found = append(found, object)
		}
	}
	return found
}

func TestTheGatewayIsTheADRs(t *testing.T) {
	for name, objects := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			gateway := find(t, objects, "Deployment", "konsul-mesh-gateway")
			require.Equal(t, "konsul-system", dig(t, gateway, "metadata", "namespace"))
			require.Equal(t, 3, dig(t, gateway, "spec", "replicas"))
			container := dig(t, gateway, "spec", "template", "spec", "containers", 0)
			require.Equal(t, "gateway", dig(t, container, "name"))
			require.Equal(t, "konsul/mesh-gateway:latest", dig(t, container, "image"))
			env := map[string]any{}
			for _, entry := range dig(t, container, "env").([]any) {
				env[dig(t, entry, "name").(string)] = entry.(map[string]any)["value"]
			}
			require.Equal(t, name, env["DATACENTER"])
			require.Equal(t, "mesh-gateway."+name+".example.com:8443", env["WAN_ADDRESS"])
			require.Equal(t, "true", env["TLS_ENABLED"])
			require.Equal(t, map[string]any{"containerPort": 8443, "name": "wan"}, dig(t, container, "ports", 0))
			require.Equal(t, map[string]any{"containerPort": 8500, "name": "http"}, dig(t, container, "ports", 1))

			service := find(t, objects, "Service", "konsul-mesh-gateway")
			require.Equal(t, "LoadBalancer", dig(t, service, "spec", "type"))
			require.Equal(t, map[string]any{"name": "wan", "port": 8443, "targetPort": 8443}, dig(t, service, "spec", "ports", 0))
		})
	}
}

func TestEveryPodIsConfined(t *testing.T) {
	for name, objects := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			require.Len(t, workloads(objects), 7)
			for _, workload := range workloads(objects) {
				pod := dig(t, map[string]any(workload), "spec", "template", "spec")
				require.Equal(t, true, dig(t, pod, "securityContext", "runAsNonRoot"), workload)
				require.Equal(t, false, dig(t, pod, "automountServiceAccountToken"), workload)
				containers := dig(t, pod, "containers").([]any)
				require.Len(t, containers, 1, workload)
				require.Equal(t, true, dig(t, containers[0], "securityContext", "readOnlyRootFilesystem"), workload)
				require.Equal(t, []any{"ALL"}, dig(t, containers[0], "securityContext", "capabilities", "drop"), workload)
				require.NotEmpty(t, dig(t, containers[0], "readinessProbe", "exec", "command"), workload)
			}
		})
	}
}

// TestServicesAcceptTheirConfiguration asks each program itself, with the files and the environment
// its pod has.
func TestServicesAcceptTheirConfiguration(t *testing.T) {
	bin := os.Getenv("KONSUL_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin")
	}
	if _, err := os.Stat(filepath.Join(bin, "konsul-registry")); err != nil {
		t.Skip("the programs are not built: run `make build`")
	}
	programs := map[string]string{
		"konsul-ca": "konsul-ca", "konsul-registry": "konsul-registry", "konsul-mesh-gateway": "konsul-gateway",
		"konsul-wan-gossip": "konsul-wan-gossip", "konsul-replicator": "konsul-replicator",
		"konsul-failover-router": "konsul-failover-router", "konsul-agent": "konsul-agent",
	}
	for name, objects := range overlays(t) {
		for _, workload := range workloads(objects) {
			t.Run(name+"/"+workload.Name(), func(t *testing.T) {
				container := dig(t, map[string]any(workload), "spec", "template", "spec", "containers", 0)
				cmd := exec.CommandContext(t.Context(), filepath.Join(bin, programs[workload.Name()]), "--check-config")
				dir := configFiles(t, objects)
				for _, file := range []string{"konsul.yaml", "datacenter.yaml"} {
					cmd.Args = append(cmd.Args, "--config", filepath.Join(dir, file))
				}
				// A volume of a ConfigMap that is optional and not there is an empty folder.
				cmd.Args = append(cmd.Args, "--set", "agent.services_dir="+t.TempDir())
				cmd.Env = environment(t, workload.Name(), container)
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, string(out))
			})
		}
	}
}

// environment returns what a workload's first pod finds in its environment.
func environment(t *testing.T, workload string, container any) []string {
	t.Helper()
	pod := workload + "-0"
	var env []string
	for _, entry := range dig(t, container, "env").([]any) {
		value, fixed := entry.(map[string]any)["value"].(string)
		if !fixed {
			value = map[string]string{"metadata.name": pod, "status.podIP": "192.0.2.1"}[dig(t, entry, "valueFrom", "fieldRef", "fieldPath").(string)]
		}
		env = append(env, dig(t, entry, "name").(string)+"="+strings.ReplaceAll(value, "$(POD_NAME)", pod))
	}
	return env
}

func configFiles(t *testing.T, objects []manifests.Object) string {
	t.Helper()
	dir := t.TempDir()
	for _, object := range objects {
		if object.Kind() != "ConfigMap" {
			continue
		}
		for file, text := range dig(t, map[string]any(object), "data").(map[string]any) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text.(string)), 0o600))
		}
	}
	return dir
}
