// Package edges checks who imports whom: between modules, between the rooms of a service, and what
// the quiet core of a service may know of the world. The tables in this package are HOUSE_STYLE's,
// as data; when a room is renamed there, rename it here.
package edges
