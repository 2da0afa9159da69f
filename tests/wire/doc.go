// Package wire reads what goes over the network and says whether it is what the federation
// promises: TLS on the gateways' port, encrypted gossip on Serf's, and none of the given secrets
// anywhere.
//
// It needs the right to capture on the loopback device (CAP_NET_RAW).
package wire
