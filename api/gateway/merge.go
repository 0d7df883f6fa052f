package gateway

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/school-sms/sms/api/server"
)

// document is an OpenAPI document, as JSON reads it.
type document map[string]any

// copy returns a document that may be changed.
func (d document) copy() document {
	return document(object(clone(map[string]any(d))))
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			out[name] = clone(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			out[i] = clone(value)
		}
		return out
	}
	return v
}

func object(v any) map[string]any {
	o, _ := v.(map[string]any)
	return o
}

// merged is the document of several services.
type merged struct {
	document   document
	paths      map[string]any
	components map[string]any
	tags       []any
	operations map[string]bool
}

func newMerged() *merged {
	m := &merged{paths: map[string]any{}, components: map[string]any{}, operations: map[string]bool{}}
	m.document = document{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "School Management System", "version": server.Version,
			"description": "Errors are RFC 9457 problem details. Times are RFC 3339 in UTC.",
		},
		"paths": m.paths, "components": m.components, "tags": []any{},
	}
	return m
}

// add takes in the operations of a service below its route, and the components. A component that another service has
// under the same name with another content gets the service's name before its own.
func (m *merged) add(r route, part document) {
	if part == nil {
		return
	}
	prefix := strings.ReplaceAll(r.service, "-", "_") + "_"
	rename := m.clashes(object(part["components"]), prefix)
	pointTo(map[string]any(part), rename)

	for section, entries := range object(part["components"]) {
		all := object(m.components[section])
		if all == nil {
			all = map[string]any{}
			m.components[section] = all
		}
		for name, component := range object(entries) {
			if renamed, ok := rename[reference(section, name)]; ok {
				name = renamed[strings.LastIndexByte(renamed, '/')+1:]
			}
			all[name] = component
		}
	}
	for path, item := range object(part["paths"]) {
		if r.holds(path) {
			m.nameOperations(object(item), prefix)
			m.paths[path] = item
		}
	}
	if tags, ok := part["tags"].([]any); ok {
		m.tags = append(m.tags, tags...)
		m.document["tags"] = m.tags
	}
	if security, ok := part["security"]; ok && m.document["security"] == nil {
		m.document["security"] = security
	}
}

// nameOperations keeps operation ids unique.
func (m *merged) nameOperations(item map[string]any, prefix string) {
	for _, operation := range item {
		operation := object(operation)
		id, ok := operation["operationId"].(string)
		if !ok {
			continue
		}
		if m.operations[id] {
			id = prefix + id
			operation["operationId"] = id
		}
		m.operations[id] = true
	}
}

func reference(section, name string) string { return "#/components/" + section + "/" + name }

// clashes maps the references of components that need another name to their new ones. A component that refers to a
// renamed one is another component too, even if it reads the same.
func (m *merged) clashes(components map[string]any, prefix string) map[string]string {
	rename := map[string]string{}
	for again := true; again; {
		again = false
		for section, entries := range components {
			taken := object(m.components[section])
			for name, component := range object(entries) {
				ref := reference(section, name)
				there, exists := taken[name]
				if !exists || rename[ref] != "" {
					continue
				}
				if !reflect.DeepEqual(there, component) || refersTo(component, rename) {
					rename[ref] = reference(section, prefix+name)
					again = true
				}
			}
		}
	}
	return rename
}

// refersTo reports whether v holds a reference to one of the keys of rename.
func refersTo(v any, rename map[string]string) bool {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && rename[ref] != "" {
			return true
		}
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), func(v any) bool { return refersTo(v, rename) })
	case []any:
		return slices.ContainsFunc(v, func(v any) bool { return refersTo(v, rename) })
	}
	return false
}

// pointTo rewrites the references of v.
func pointTo(v any, rename map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && rename[ref] != "" {
			v["$ref"] = rename[ref]
		}
		for _, value := range v {
			pointTo(value, rename)
		}
	case []any:
		for _, value := range v {
			pointTo(value, rename)
		}
	}
}
