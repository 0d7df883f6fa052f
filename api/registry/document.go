package registry

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/school-sms/sms/internal/discovery"
)

// document is an instance as the Eureka protocol writes it, in JSON and in XML
// (com.netflix.appinfo.InstanceInfo and com.netflix.discovery.converters).
type document struct {
	XMLName       xml.Name   `json:"-" xml:"instance"`
	InstanceID    text       `json:"instanceId" xml:"instanceId"`
	HostName      text       `json:"hostName" xml:"hostName"`
	App           text       `json:"app" xml:"app"`
	IPAddr        text       `json:"ipAddr" xml:"ipAddr"`
	Status        text       `json:"status" xml:"status"`
	Overridden    text       `json:"overriddenStatus" xml:"overriddenstatus"`
	Port          port       `json:"port" xml:"port"`
	SecurePort    port       `json:"securePort" xml:"securePort"`
	CountryID     number     `json:"countryId" xml:"countryId"`
	DataCenter    dataCenter `json:"dataCenterInfo" xml:"dataCenterInfo"`
	Lease         leaseInfo  `json:"leaseInfo" xml:"leaseInfo"`
	Metadata      metadata   `json:"metadata" xml:"metadata"`
	HomePageURL   text       `json:"homePageUrl,omitempty" xml:"homePageUrl,omitempty"`
	StatusPageURL text       `json:"statusPageUrl,omitempty" xml:"statusPageUrl,omitempty"`
	HealthURL     text       `json:"healthCheckUrl,omitempty" xml:"healthCheckUrl,omitempty"`
	SecureHealth  text       `json:"secureHealthCheckUrl,omitempty" xml:"secureHealthCheckUrl,omitempty"`
	VIP           text       `json:"vipAddress,omitempty" xml:"vipAddress,omitempty"`
	SecureVIP     text       `json:"secureVipAddress,omitempty" xml:"secureVipAddress,omitempty"`
	ASGName       text       `json:"asgName,omitempty" xml:"asgName,omitempty"`
	Coordinating  text       `json:"isCoordinatingDiscoveryServer" xml:"isCoordinatingDiscoveryServer"`
	LastUpdated   text       `json:"lastUpdatedTimestamp" xml:"lastUpdatedTimestamp"`
	LastDirty     text       `json:"lastDirtyTimestamp" xml:"lastDirtyTimestamp"`
	ActionType    text       `json:"actionType" xml:"actionType"`

	// own is the state that the instance gave itself, under an override that an operator may have set.
	own text
}

type dataCenter struct {
	Class    text     `json:"@class" xml:"class,attr"`
	Name     text     `json:"name" xml:"name"`
	Metadata metadata `json:"metadata,omitempty" xml:"metadata,omitempty"`
}

type leaseInfo struct {
	RenewalInterval number `json:"renewalIntervalInSecs" xml:"renewalIntervalInSecs"`
	Duration        number `json:"durationInSecs" xml:"durationInSecs"`
	Registered      number `json:"registrationTimestamp" xml:"registrationTimestamp"`
	LastRenewal     number `json:"lastRenewalTimestamp" xml:"lastRenewalTimestamp"`
	Evicted         number `json:"evictionTimestamp" xml:"evictionTimestamp"`
	ServiceUp       number `json:"serviceUpTimestamp" xml:"serviceUpTimestamp"`
}

// effective is the state that others see: an instance that says that it is not ready is believed, and else an
// override wins (com.netflix.eureka.registry.rule.DownOrStartingRule, OverrideExistsRule).
func (d document) effective() text {
	if d.own == discovery.StatusDown || d.own == discovery.StatusStarting {
		return d.own
	}
	if d.Overridden != "" && d.Overridden != discovery.StatusUnknown {
		return d.Overridden
	}
	return d.own
}

// instance is the document as the registry's own interface shows it.
func (d document) instance() discovery.Instance {
	host := string(d.HostName)
	if host == "" {
		host = string(d.IPAddr)
	}
	return discovery.Instance{
		App: strings.ToLower(string(d.App)), ID: string(d.InstanceID), Host: host, Port: d.Port.Number, Status: string(d.Status),
		Release: d.Metadata[discovery.MetadataRelease], Version: d.Metadata[discovery.MetadataVersion], Metadata: d.Metadata,
	}
}

// text is a string that clients also send as a number or a boolean.
type text string

func (t *text) UnmarshalJSON(in []byte) error {
	if string(in) == "null" {
		return nil
	}
	if len(in) > 0 && in[0] == '"' {
		return json.Unmarshal(in, (*string)(t))
	}
	if bytes.ContainsAny(in, "{[") {
		return fmt.Errorf("%.20q is not a plain value", in)
	}
	*t = text(in)
	return nil
}

// number is an integer that clients also send as a string.
type number int64

func (n *number) UnmarshalJSON(in []byte) error {
	in = bytes.Trim(in, `"`)
	if len(in) == 0 || string(in) == "null" {
		return nil
	}
	value, err := strconv.ParseInt(string(in), 10, 64)
	*n = number(value)
	return err
}

// port is written {"$":8081,"@enabled":"true"} in JSON and <port enabled="true">8081</port> in XML; a bare number is
// accepted.
type port struct {
	Number  int
	Enabled bool
}

func (p port) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"$":%d,"@enabled":"%t"}`, p.Number, p.Enabled), nil
}

func (p *port) UnmarshalJSON(in []byte) error {
	if bytes.HasPrefix(in, []byte("{")) {
		var object struct {
			Number  number `json:"$"`
			Enabled text   `json:"@enabled"`
		}
		if err := json.Unmarshal(in, &object); err != nil {
			return err
		}
		*p = port{int(object.Number), object.Enabled != "false"}
		return nil
	}
	var bare number
	err := bare.UnmarshalJSON(in)
	*p = port{int(bare), bare > 0}
	return err
}

type portXML struct {
	Enabled string `xml:"enabled,attr"`
	Number  string `xml:",chardata"`
}

func (p port) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	return e.EncodeElement(portXML{strconv.FormatBool(p.Enabled), strconv.Itoa(p.Number)}, start)
}

func (p *port) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	var in portXML
	if err := d.DecodeElement(&in, &start); err != nil {
		return err
	}
	value, err := strconv.Atoi(strings.TrimSpace(in.Number))
	*p = port{value, in.Enabled != "false"}
	return err
}

// metadata is an object in JSON and an element a key in XML.
type metadata map[string]string

// emptyMap is what Eureka writes where there is no metadata.
const emptyMap = `{"@class":"java.util.Collections$EmptyMap"}`

func (m metadata) MarshalJSON() ([]byte, error) {
	if len(m) == 0 {
		return []byte(emptyMap), nil
	}
	return json.Marshal(map[string]string(m))
}

func (m *metadata) UnmarshalJSON(in []byte) error {
	var object map[string]text
	if err := json.Unmarshal(in, &object); err != nil {
		return err
	}
	delete(object, "@class") // names the Java class of the map
	*m = metadata{}
	for key, value := range object {
		(*m)[key] = string(value)
	}
	return nil
}

// elementName is what a key must look like to stand as an element; others are shown in JSON only.
var elementName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._-]*$`)

func (m metadata) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !elementName.MatchString(key) {
			continue
		}
		if err := e.EncodeElement(m[key], xml.StartElement{Name: xml.Name{Local: key}}); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

func (m *metadata) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	var in struct {
		Entries []struct {
			XMLName xml.Name
			Value   string `xml:",chardata"`
		} `xml:",any"`
	}
	if err := d.DecodeElement(&in, &start); err != nil {
		return err
	}
	*m = metadata{}
	for _, entry := range in.Entries {
		(*m)[entry.XMLName.Local] = entry.Value
	}
	return nil
}
