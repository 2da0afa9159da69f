// Package coalesce lets work that arrives while earlier work is out go together, without making any
// of it wait for company: a lone item goes at once, and what queues behind it shares the next trip.
//
// Queue is for work with a result of its own each, Rounds for callers who all want the same answer.
// Both run their trips on goroutines that live only while there is work. Safe for concurrent use.
package coalesce
