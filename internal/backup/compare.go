package backup

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Compare returns how what was found differs from what was expected, a sentence a difference, tables first. Nothing means
// equal.
func Compare(expected, found Contents) []string {
	differences := between(expected.Tables, found.Tables, Table.key, tableDiffers,
		func(t Table) string { return fmt.Sprintf("table %s is missing with its %d rows", t.key(), t.Rows) },
		func(t Table) string { return fmt.Sprintf("table %s was not in the database", t.key()) })
	differences = append(differences, between(expected.Sequences, found.Sequences, Sequence.key, sequenceDiffers,
		func(s Sequence) string { return fmt.Sprintf("sequence %s is missing", s.key()) },
		func(s Sequence) string { return fmt.Sprintf("sequence %s was not in the database", s.key()) })...)
	differences = append(differences, between(expected.Extensions, found.Extensions, func(e Extension) string { return e.Name }, extensionDiffers,
		func(e Extension) string { return fmt.Sprintf("extension %s %s is missing", e.Name, e.Version) },
		func(e Extension) string { return fmt.Sprintf("extension %s was not in the database", e.Name) })...)
	differences = append(differences, between(expected.Objects, found.Objects, Object.key, objectDiffers,
		func(o Object) string { return o.called() + " is missing" },
		func(o Object) string { return o.called() + " was not in the database" })...)
	if expected.LargeObjects != found.LargeObjects {
		differences = append(differences, fmt.Sprintf("there are %d large objects, %d expected", found.LargeObjects, expected.LargeObjects))
	}
	return differences
}

// between compares two lists by key, in the order of the keys.
func between[T any](expected, found []T, key func(T) string, differs func(want, got T) []string, missing, surplus func(T) string) []string {
	want, got := keyed(expected, key), keyed(found, key)
	all := maps.Clone(want)
	maps.Copy(all, got)
	var differences []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		w, wanted := want[k]
		g, there := got[k]
		switch {
		case !there:
			differences = append(differences, missing(w))
		case !wanted:
			differences = append(differences, surplus(g))
		default:
			differences = append(differences, differs(w, g)...)
		}
	}
	return differences
}

func keyed[T any](list []T, key func(T) string) map[string]T {
	m := make(map[string]T, len(list))
	for _, item := range list {
		m[key(item)] = item
	}
	return m
}

func tableDiffers(want, got Table) []string {
	switch {
	case got.Rows < want.Rows:
		return []string{fmt.Sprintf("table %s: %s missing (%d of %d there)", want.key(), rows(want.Rows-got.Rows), got.Rows, want.Rows)}
	case got.Rows > want.Rows:
		return []string{fmt.Sprintf("table %s: %s too many (%d instead of %d)", want.key(), rows(got.Rows-want.Rows), got.Rows, want.Rows)}
	case got.Hash != want.Hash:
		return []string{fmt.Sprintf("table %s: %s, as many as expected, but not the same", want.key(), rows(want.Rows))}
	}
	return nil
}

func rows(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

func sequenceDiffers(want, got Sequence) []string {
	type place struct {
		value  int64
		called bool
	}
	from, until, at := place{want.Value, want.Called}, place{want.Until, want.UntilCalled}, place{got.Value, got.Called}
	low, high := min(want.Value, want.Until), max(want.Value, want.Until)
	switch {
	case at == from, at == until:
		return nil
	case want.Cycles: // it may have been through all its values and back while it was dumped
		return nil
	case from != until && low <= at.value && at.value <= high:
		return nil // it moved while it was dumped
	case from != until:
		return []string{fmt.Sprintf("sequence %s stands at %d, %d to %d expected", want.key(), got.Value, want.Value, want.Until)}
	case at.value == from.value:
		return []string{fmt.Sprintf("sequence %s stands at %d as expected, but gives out another next value", want.key(), got.Value)}
	}
	return []string{fmt.Sprintf("sequence %s stands at %d, %d expected", want.key(), got.Value, want.Value)}
}

// extensionDiffers accepts a newer version: an archive does not name one, so a restored database has the server's.
func extensionDiffers(want, got Extension) []string {
	if older(got.Version, want.Version) {
		return []string{fmt.Sprintf("extension %s has version %s, %s expected", want.Name, got.Version, want.Version)}
	}
	if want.Schema != got.Schema {
		return []string{fmt.Sprintf("extension %s is in schema %s, %s expected", want.Name, got.Schema, want.Schema)}
	}
	return nil
}

// older compares versions of numbers and points.
func older(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) < 0
}

func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		all = append(all, n)
	}
	return all
}

func (o Object) key() string { return o.Kind + " " + o.Name + "\x00" + o.On }

func (o Object) called() string {
	if o.On != "" && o.Kind != "column" {
		return o.Kind + " " + o.Name + " of " + o.On
	}
	return o.Kind + " " + o.Name
}

func objectDiffers(want, got Object) []string {
	var differences []string
	if want.Definition != got.Definition {
		differences = append(differences, want.called()+" is defined differently")
	}
	if want.Owner != got.Owner {
		differences = append(differences, fmt.Sprintf("%s belongs to %s, %s expected", want.called(), got.Owner, want.Owner))
	}
	if want.Grants != got.Grants {
		const owners = "the default ones"
		differences = append(differences, fmt.Sprintf("%s has other grants: %s, expected are %s", want.called(),
			cmp.Or(got.Grants, owners), cmp.Or(want.Grants, owners)))
	}
	return differences
}
