// Package audit writes down who was refused what, and who changed what: one line of JSON each, to
// files that rotate by size, or to the service's log.
//
// Refusals and changes have a file each, and a queue each: whoever is refused a million times fills
// and pushes out refusals, and no change. Calls only queue a line. A refusal never waits: when the
// queue is full it is counted and dropped, so that whoever is refused often cannot slow others
// down. Refusals of the same caller, method and outcome are written a number of times a minute, and
// counted in one line behind those. A change waits for its place, because a change nobody can
// account for is worse than a slow one. Lines hold names of resources, keys among them, and never
// values or secrets. Files are not synced for each line: a power cut may take the last moments. A
// Log is safe for concurrent use.
package audit
