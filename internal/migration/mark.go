package migration

import "strings"

// Mark is what the author of a migration says of it in the comment lines at its head: "-- contract", or "-- expand: " and a reason.
type Mark struct {
	Contract bool
	// Expand is the reason for which findings are overruled.
	Expand string
}

// ReadMark reads the mark of a migration.
func ReadMark(sql string) Mark {
	var m Mark
	for line := range strings.Lines(sql) {
		line = strings.TrimSpace(line)
		comment, ok := strings.CutPrefix(line, "--")
		if !ok && line != "" {
			break
		}
		comment = strings.TrimSpace(comment)
		if comment == "contract" {
			m.Contract = true
		}
		if reason, ok := strings.CutPrefix(comment, "expand:"); ok {
			m.Expand = strings.TrimSpace(reason)
		}
	}
	return m
}

// Judge says of which kind a migration is by its mark and what was found in it.
func (m Mark) Judge(findings []string) Kind {
	switch {
	case m.Contract:
		return Contract
	case len(findings) == 0 || m.Expand != "":
		return Expand
	default:
		return Refused
	}
}
