package rpc

// HealthWrites is the service by which a registry's health service says whether it knows a leader,
// so that writes are served.
const HealthWrites = "konsul.registry.writes"
