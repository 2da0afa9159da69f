package service_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"service-get":              "service get api",
		"service-get-all-status":   "service get api --all-status",
		"service-get-none":         "service get nothing",
		"service-get-everywhere":   "service get api --all-datacenters",
		"service-get-failover":     "service get api --failover us-west,eu-central",
		"service-get-nobody":       "service get nowhere --all-datacenters",
		"service-list":             "service list",
		"service-register":         "service register --name api --address 10.0.0.5 --port 8080",
		"service-deregister":       "service deregister api",
		"service-instance":         "service instance api-1",
		"service-failover":         "service failover api",
		"error-unknown-subcommand": "service gte api",
	})
}
