package member

// Server is a member of the cluster.
type Server struct {
	ID string
	// Address is where its Raft listener is reached, host:port.
	Address string
	// Voter reports whether its vote counts.
	Voter bool
}

// Status is where this server stands.
type Status struct {
	State       string
	Voter       bool
	Term        uint64
	LastIndex   uint64
	LastTerm    uint64
	CommitIndex uint64
}
