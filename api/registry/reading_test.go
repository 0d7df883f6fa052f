package registry

import (
	"encoding/json"
	"encoding/xml"
	"testing"
)

// applications and application are the envelopes of the Eureka reads, as a client takes them apart.
type application struct {
	Name      string     `json:"name" xml:"name"`
	Instances []document `json:"instance" xml:"instance"`
}

type applications struct {
	Version string        `json:"versions__delta" xml:"versions__delta"`
	Hash    string        `json:"apps__hashcode" xml:"apps__hashcode"`
	Apps    []application `json:"application" xml:"application"`
}

func readXML(t *testing.T, body []byte) (all applications) {
	t.Helper()
	if err := xml.Unmarshal(body, &all); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return all
}

func readJSON(t *testing.T, body []byte) applications {
	t.Helper()
	var in struct{ Applications applications }
	if err := json.Unmarshal(body, &in); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return in.Applications
}
