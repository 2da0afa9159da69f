// Package manifests proves, without a cluster, that deploy/kubernetes renders and that what it
// renders is what Kubernetes accepts.
//
// Rendering is kustomize's own. The schemas are the API server's OpenAPI documents, which the
// kubectl-validate module carries; tools/dev/kubernetes pins it. They are checked strictly: a field
// the API does not know is an error, as with `kubectl apply --validate=strict`. The module is a
// source of data and is not compiled: its program drags the whole API server in, minutes of work
// for one test.
package manifests
