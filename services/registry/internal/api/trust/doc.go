// Package trust serves who belongs to the federation: its record, join tokens and trust anchors.
package trust
