package ca

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/services/ca/internal/keystore"
)

// checkParts refuses a ca whose data folder holds identities of another federation than its own, or
// of any before it has one: it would join or found a federation in which the registry's state
// beside it has no place. state is nil when the ca has none yet.
func (s *Service) checkParts(state *keystore.State) error {
	folders, err := os.ReadDir(s.cfg.Server.DataDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into server.data_dir: %w", err)
	}
	own := "has no state yet"
	if state != nil {
		own = "is of federation " + state.FederationID
	}
	var foreign []string
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		federation, err := identity.KeptFederation(filepath.Join(s.cfg.Server.DataDir, folder.Name()))
		if err != nil {
			return fmt.Errorf("look into server.data_dir: %w", err)
		}
		if federation != "" && (state == nil || federation != state.FederationID) {
			foreign = append(foreign, fmt.Sprintf("%s is of federation %s", folder.Name(), federation))
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	return fault.New(fault.FailedPrecondition, identity.ReasonMixedFederations, "the ca in %s %s, but beside it %s",
		s.cfg.Server.DataDir, own, strings.Join(foreign, ", ")).WithField("server.data_dir").WithRemedy(identity.MixedRemedy)
}
