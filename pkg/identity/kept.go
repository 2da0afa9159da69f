package identity

import (
	"errors"
	"os"
)

// ReasonMixedFederations says that parts of a process, or of a datacenter, belong to different
// federations.
const ReasonMixedFederations = "MIXED_FEDERATIONS"

// MixedRemedy is what to do about parts of different federations.
const MixedRemedy = "nothing was changed; put back the folder that was replaced, or begin with an empty server.data_dir for every service: docs/runbooks/registry-restore.md"

// KeptFederation returns the federation of the identity that a service keeps in its folder, expired
// or not; empty when none is kept there, or none that can be read.
func KeptFederation(dir string) (string, error) {
	m, err := load(dir)
	switch {
	case errors.Is(err, os.ErrPermission):
		return "", err
	case err != nil: // Whoever keeps it there enrols anew.
		return "", nil //nolint:nilerr // see above
	}
	for _, uri := range m.Chain[0].URIs {
		if id, err := ParseID(uri.String()); err == nil {
			return id.FederationID, nil
		}
	}
	return "", nil
}
