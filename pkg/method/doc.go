// Package method reads from the contracts what each RPC is: who may call it, what it takes, where
// it is carried out (konsul/options/v1). It knows the contracts that the program links.
//
// A Method is never changed and safe for concurrent use.
package method
