package identity

// Save is save, for tests that need an identity on disk which no ca would give.
func Save(dir string, m Material) error { return save(dir, m) }
