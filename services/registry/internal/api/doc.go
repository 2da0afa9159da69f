// Package api is what the handlers of the registry's gRPC services share: reads as of an index and
// reads that wait, commits under a request id, plans that are made anew when the state has moved,
// and what an answer says of itself. The handlers are in the packages below it, one for each noun;
// each checks, converts, asks the package that knows the noun, and converts back. Who may call is
// in the contracts (package guard), where a call runs is package forward.
package api
