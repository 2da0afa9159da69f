package restedge

import (
	"encoding/json"
	"fmt"

	konsulproto "konsul.dev/proto"
)

// openAPI returns the generated document with what the generator cannot know: what the API is
// called, that it takes a token, and how it says no.
func openAPI() ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(konsulproto.OpenAPI(), &doc); err != nil {
		return nil, fmt.Errorf("parse the OpenAPI document: %w", err)
	}
	doc["info"] = map[string]any{
		"title": "Konsul", "version": "v1",
		"description": "The REST API of a datacenter. Ask any datacenter about another with ?datacenter=. " +
			"PUT /api/v1/kv/{key} takes a value as raw bytes with any content type but application/json; GET gives it raw with ?raw.",
	}
	doc["schemes"] = []string{"https"}
	doc["securityDefinitions"] = map[string]any{
		"token": map[string]any{"type": "apiKey", "in": "header", "name": "Authorization", "description": "Bearer <token>"},
	}
	doc["security"] = []any{map[string]any{"token": []any{}}}
	text := func(description string) map[string]any {
		return map[string]any{"type": "string", "description": description}
	}
	if definitions, ok := doc["definitions"].(map[string]any); ok {
		definitions["rpcStatus"] = map[string]any{
			"type": "object",
			"properties": map[string]any{
				"code": text("The gRPC code, such as NotFound."), "message": text("For people; may change."),
				"reason": text("For programs; stable."), "field": text("Which input is at fault."), "remedy": text("What to do about it."),
				"meta": map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}},
			},
		}
	}
	addBackups(doc)
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	return out, nil
}
