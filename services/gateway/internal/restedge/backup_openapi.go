package restedge

// addBackups describes what backup.go serves, of which the generator knows nothing: files are no
// messages.
func addBackups(doc map[string]any) {
	paths, ok := doc["paths"].(map[string]any)
	if !ok {
		return
	}
	list, ok := paths[backupsPath].(map[string]any)
	if !ok {
		return
	}
	query := func(name, kind, description string) map[string]any {
		return map[string]any{"name": name, "in": "query", "required": false, "type": kind, "description": description}
	}
	answers := func(description string, schema map[string]any) map[string]any {
		return map[string]any{
			"200":     map[string]any{"description": description, "schema": schema},
			"default": map[string]any{"description": "An error.", "schema": map[string]any{"$ref": "#/definitions/rpcStatus"}},
		}
	}
	list["post"] = map[string]any{
		"summary": "Make a backup and answer its file.", "operationId": "BackupService_CreateBackup", "tags": []string{"BackupService"},
		"produces": []string{mimeBackup},
		"parameters": []any{
			query("datacenter", "string", "Back up this datacenter; empty: the one asked."),
			query("base.id", "string", "Only what changed since this backup: base.id, index, federation_id, datacenter_id and generation are those of its manifest."),
			query("base.index", "string", "uint64"), query("base.federation_id", "string", "See base.id."),
			query("base.datacenter_id", "string", "See base.id."), query("base.generation", "string", "uint64"),
		},
		"responses": answers("The file. It holds its own checksum: one that was cut off is not whole.", map[string]any{"type": "file"}),
	}
	paths[restorePath] = map[string]any{"put": map[string]any{
		"summary":     "Replace the state of a datacenter by that of a backup. Everything is checked before anything changes.",
		"description": "The body is the file, or a form whose parts named file are the full backup and the increments on it, in order.",
		"operationId": "BackupService_RestoreBackup", "tags": []string{"BackupService"},
		"consumes": []string{mimeBackup, mimeForm}, "produces": []string{mimeJSON},
		"parameters": []any{
			query("datacenter", "string", "Restore into this datacenter; empty: the one asked, which must be the backup's."),
			query("dry_run", "boolean", "Check everything and change nothing."),
			map[string]any{"name": "file", "in": "body", "required": true, "schema": map[string]any{"type": "string", "format": "binary"}},
		},
		"responses": answers("What was restored.", restoredSchema()),
	}}
}

func restoredSchema() map[string]any {
	of := func(kind, description string) map[string]any {
		return map[string]any{"type": kind, "description": description}
	}
	return map[string]any{"type": "object", "properties": map[string]any{
		"datacenter": of("string", "Where it was restored."), "source_datacenter": of("string", "Where the backup was made."),
		"index": of("string", "uint64: the state's index now, above all given out before; on a dry run 0."), "backup_index": of("string", "uint64: the index the backup was made at."),
		"restored": map[string]any{"type": "array", "items": map[string]any{"type": "object", "properties": map[string]any{
			"table": of("string", "Such as kv."), "rows": of("string", "uint64"),
		}}},
		"kept": of("string", "uint64: rows that the datacenter kept."), "dry_run": of("boolean", "Nothing was changed."),
		"notes": map[string]any{"type": "array", "items": of("string", "What an operator should know.")},
	}}
}
