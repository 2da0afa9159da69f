// Package proto carries the generated description of the REST API.
package proto

import _ "embed"

//go:embed gen/openapi/konsul.swagger.json
var openAPI []byte

// OpenAPI returns the OpenAPI 2 document of the whole REST API. The bytes must not be changed.
func OpenAPI() []byte { return openAPI }
