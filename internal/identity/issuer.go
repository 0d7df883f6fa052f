package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Issuer is an OpenID Connect issuer whose tokens are taken. Names are compared exactly, letter by letter.
//
//	[{
//	  "name":       "school",
//	  "issuer":     "https://login.school.example/realms/school",
//	  "audience":   "sms",
//	  "rolesClaim": "realm_access.roles",
//	  "roles":      {"school-office": "clerk", "school-it": "operator", "teachers": "viewer"}
//	}]
type Issuer struct {
	// Name stands before the users of the issuer, as in school/meera, in logs, audits and limits: so a user of one issuer is
	// never taken for another's, or for one of the platform's own. Lower-case letters, digits and hyphens.
	Name string `json:"name"`
	// Issuer is the claim iss of its tokens, an https address; http is taken for this machine only.
	Issuer string `json:"issuer"`
	// Audience must be among the claim aud of its tokens.
	Audience string `json:"audience"`
	// JWKS is where its keys are. Default: what <issuer>/.well-known/openid-configuration names as jwks_uri.
	JWKS string `json:"jwks"`
	// CAFile holds the authorities, in PEM, that vouch for the issuer's server in place of the system's. Default: none.
	CAFile string `json:"caFile"`
	// Algorithms that its tokens may be signed with. Default: RS256, PS256, ES256 and EdDSA.
	Algorithms []string `json:"algorithms"`
	// RolesClaim holds the user's roles, as a list or as words in a text: the name of a claim, or a path of names with dots
	// between them. Default: roles.
	RolesClaim string `json:"rolesClaim"`
	// Roles says which of the platform's roles each of the issuer's stands for. Others mean nothing here. A user with several
	// has the first in the order admin, clerk, operator, viewer.
	Roles map[string]Role `json:"roles"`
	// UserClaim names the user. Default: sub.
	UserClaim string `json:"userClaim"`
}

// asymmetric are the algorithms that an issuer may be allowed: with a shared secret, whoever verifies could sign too.
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

var issuerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// ParseIssuers reads a list of issuers, with the defaults put in. The error names every fault.
func ParseIssuers(text string) ([]Issuer, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	var issuers []Issuer
	if err := decoder.Decode(&issuers); err != nil {
		return nil, fmt.Errorf("IDENTITY_OIDC_ISSUERS_FILE: not a list of issuers in JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("IDENTITY_OIDC_ISSUERS_FILE: there is something after the list")
	}
	var faults []error
	names, addresses := map[string]bool{}, map[string]bool{issuer: true}
	for i := range issuers {
		one := &issuers[i]
		one.setDefaults()
		for _, fault := range one.faults() {
			faults = append(faults, fmt.Errorf("IDENTITY_OIDC_ISSUERS_FILE: issuer %d (%q): %w", i+1, one.Name, fault))
		}
		if names[one.Name] || addresses[one.Issuer] {
			faults = append(faults, fmt.Errorf("IDENTITY_OIDC_ISSUERS_FILE: issuer %d (%q): its name or its address is taken", i+1, one.Name))
		}
		names[one.Name], addresses[one.Issuer] = true, true
	}
	return issuers, errors.Join(faults...)
}

func (i *Issuer) setDefaults() {
	if len(i.Algorithms) == 0 {
		i.Algorithms = []string{"RS256", "PS256", "ES256", "EdDSA"}
	}
	if i.RolesClaim == "" {
		i.RolesClaim = "roles"
	}
	if i.UserClaim == "" {
		i.UserClaim = "sub"
	}
}

func (i *Issuer) faults() []error {
	var faults []error
	if !issuerName.MatchString(i.Name) {
		faults = append(faults, errors.New("name: 1 to 32 lower-case letters, digits and hyphens"))
	}
	if err := trustworthy(i.Issuer); err != nil {
		faults = append(faults, fmt.Errorf("issuer: %w", err))
	}
	if err := trustworthy(i.JWKS); i.JWKS != "" && err != nil {
		faults = append(faults, fmt.Errorf("jwks: %w", err))
	}
	if i.Audience == "" {
		faults = append(faults, errors.New("audience: is required, or tokens for other programs would be taken"))
	}
	for _, algorithm := range i.Algorithms {
		if !slices.Contains(asymmetric, algorithm) {
			faults = append(faults, fmt.Errorf("algorithms: %q is none of %v", algorithm, asymmetric))
		}
	}
	if len(i.Roles) == 0 {
		faults = append(faults, errors.New("roles: say which of the platform's roles each of the issuer's stands for"))
	}
	for theirs, ours := range i.Roles {
		if !ours.Valid() {
			faults = append(faults, fmt.Errorf("roles: %q stands for %q, which is none of %v", theirs, ours, Roles()))
		}
	}
	return faults
}

// trustworthy reports whether what an address answers can be believed: it is https, or does not leave this machine.
func trustworthy(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("not an address such as https://login.school.example")
	}
	if u.Scheme == "https" {
		return nil
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()) {
		return nil
	}
	return errors.New("must be https, other than on this machine")
}

// principal says who the claims of a verified token speak for; false when they name no user or no role that counts here.
func (i *Issuer) principal(claims map[string]any) (Principal, bool) {
	user, _ := claims[i.UserClaim].(string)
	role, found := i.role(claims)
	return Principal{User: i.Name + "/" + user, Role: role}, found && validUser(user)
}

// validUser keeps out of logs and audits what is no name.
func validUser(user string) bool {
	const longest = 200
	return user != "" && len(user) <= longest && !strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// role is the first of the platform's roles that the claims hold.
func (i *Issuer) role(claims map[string]any) (Role, bool) {
	held := map[Role]bool{}
	for _, theirs := range words(at(claims, i.RolesClaim)) {
		if ours, ok := i.Roles[theirs]; ok {
			held[ours] = true
		}
	}
	for _, role := range Roles() {
		if held[role] {
			return role, true
		}
	}
	return "", false
}

// at is the value of a claim, by its name or by a path of names.
func at(claims map[string]any, path string) any {
	if value, ok := claims[path]; ok { // names that are addresses hold dots themselves
		return value
	}
	first, rest, deeper := strings.Cut(path, ".")
	inner, ok := claims[first].(map[string]any)
	if !deeper || !ok {
		return nil
	}
	return at(inner, rest)
}

func words(value any) []string {
	switch v := value.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var all []string
		for _, one := range v {
			if text, ok := one.(string); ok {
				all = append(all, text)
			}
		}
		return all
	}
	return nil
}
