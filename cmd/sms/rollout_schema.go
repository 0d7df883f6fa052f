package main

import (
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
)

func newRolloutSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of plan files, for editors", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			const parts = "#/$defs/"
			registry := huma.NewMapRegistry(parts, huma.DefaultSchemaNamer)
			root := registry.Schema(reflect.TypeFor[ops.RolloutPlan](), true, "")
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			return encoder.Encode(map[string]any{"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": root.Ref, "$defs": registry.Map()})
		},
	}
}
