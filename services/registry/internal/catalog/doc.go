// Package catalog decides what the catalogue of nodes, services and checks answers and what changes
// to it mean.
//
// Requests become commands in plain functions. Answers come from View, the catalogue in memory, fed
// with committed rows: it knows for each service when its answer last changed, and keeps that answer
// encoded once somebody has asked, so that a health query builds nothing. View is safe for
// concurrent use, and what it returns must not be changed.
package catalog
